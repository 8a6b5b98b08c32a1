"""What must hold of the events of a stream, and of its subscriptions.

A trigger on the log notes each event in `truth`, in the transaction that publishes it: so this table has those that
were committed. Consumers insert into `seen` the names of the events that they read, in the transaction that reads them,
and into `aside` those that they set aside.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from pq import PQ

from .checker import Report
from .history import Event

STREAM = "torture"

#: Each is read in another way: see `streamed`. The events of the last are performed by workers, those of one type.
SUBSCRIPTIONS: dict[str, dict[str, Any]] = {
    "block": {},
    "take": {},
    "settle": {},
    "lease": {},
    "types": {"types": ["a"]},
    "parted": {"partitions": 4},
    "shared": {"shared": True},
    "worker": {},
}

#: The types that they read.
TYPES = {name: {"a"} if name == "types" else {"w"} if name == "worker" else {"a", "b", "w"} for name in SUBSCRIPTIONS}

#: Those that are read in order; of all events, or of each key by itself.
ORDERED = ("block", "take", "settle", "lease", "types")
ORDERED_BY_KEY = ("parted", "worker")

#: Those of which each event is read at least once, not exactly once.
AT_LEAST_ONCE = ("lease",)

#: Retries, after which an event would be dead: never.
MANY = 1_000_000

LOG = f'"queue_stream_{STREAM}"'

SETUP = f"""
    create table truth (id bigint not null, tx bigint not null, name text not null, key text, type text not null);
    create table seen (n bigserial, subscription text not null, name text not null);
    create table aside (subscription text not null, name text not null);
    create function note_truth() returns trigger language plpgsql as $$
    begin
      insert into truth select id, txid::text::bigint, data->>'name', key, type from new_events;
      return null;
    end
    $$;
    create trigger note_truth after insert on {LOG} referencing new table as new_events
      for each statement execute function note_truth();
"""


class Truth(NamedTuple):
    """An event that was committed."""

    id: int
    tx: int
    name: str
    key: str | None
    type: str


class Told(NamedTuple):
    """All that the database tells at the end.

    :ivar truth: the events that were committed.
    :ivar seen: by subscription, the names of those that were read, in the order in which they were.
    :ivar aside: those that were set aside.
    :ivar left: what must not be.
    :ivar jobs: of the worker's queue, by their ids: to look at when something was wrong.
    """

    truth: list[Truth]
    seen: dict[str, list[str]]
    aside: set[tuple[str, str]]
    left: dict[str, list[str]]
    jobs: Sequence[str] = ()


def set_up(execute: Callable[[str], Any], dsn: str) -> None:
    with PQ(dsn) as pq:
        stream = pq.streams[STREAM]
        stream.create(retain="2s")
        for name, options in SUBSCRIPTIONS.items():
            stream.subscribe(name, max_retries=MANY, **options)
    execute(SETUP)


def left_over(dsn: str) -> int:
    """How many events wait; a subscription that was left paused goes on."""
    with PQ(dsn) as pq:
        readers = [pq.streams[STREAM].subscription(name) for name in SUBSCRIPTIONS]
        for reader in readers:
            if reader.info().paused_at is not None:
                reader.resume()
        return sum(reader.lag(exact=True).events for reader in readers)


def read(execute: Callable[[str], list[tuple[Any, ...]]]) -> Told:
    seen: dict[str, list[str]] = defaultdict(list)
    for subscription, name in execute("select subscription, name from seen order by n"):
        seen[subscription].append(name)
    left = {
        "an open batch": [str(row) for row in execute(f'select * from "queue_batches_{STREAM}"')],
        "dead": [str(row) for row in execute("select q_name, data from queue where error is not null")],
    }
    truth = [Truth(*row) for row in execute("select * from truth")]
    aside = {(subscription, name) for subscription, name in execute("select * from aside")}
    jobs_sql = f"select to_jsonb(queue)::text from queue where starts_with(q_name, '{STREAM}:') order by id"
    jobs = [row[0] for row in execute(jobs_sql)]
    return Told(truth, seen, aside, left, jobs)


def check_streams(events: Iterable[Event], told: Told) -> Report:
    """Compare what the processes have noted with what the database has."""
    outcome: dict[str, str] = {}  # "put": its process was killed before it knew
    begun: dict[str, float] = {}
    known: dict[str, float] = {}
    handled: list[tuple[float, int, str]] = []
    count: Counter[str] = Counter()
    for event in events:
        kind = event["event"]
        count[kind] += 1
        if kind in ("put", "unknown", "aborted", "acknowledged"):
            outcome |= dict.fromkeys(event["names"], kind)
        if kind == "put":
            begun |= dict.fromkeys(event["names"], event["at"])
        elif kind == "acknowledged":
            known |= dict.fromkeys(event["names"], event["at"])
        elif kind == "handled":
            handled += [(event["at"], i, name) for i, name in enumerate(event["names"])]
    acknowledged = {name for name, how in outcome.items() if how == "acknowledged"}
    truth = {each.name: each for each in told.truth}
    seen = {name: told.seen.get(name, []) for name in SUBSCRIPTIONS}
    again = Counter(name for _, _, name in handled)
    seen["lease"] = list(dict.fromkeys(name for _, _, name in sorted(handled)))  # when it was handled first
    wrong: dict[str, set[str]] = defaultdict(set)
    wrong["acknowledged, and not there"] = acknowledged - truth.keys()
    wrong["aborted, but there"] = {name for name in truth if outcome.get(name) == "aborted"}
    wrong["never published"] = truth.keys() - outcome.keys()
    wrong["published twice"] = {name for name, n in Counter(each.name for each in told.truth).items() if n > 1}
    in_order = 0
    for subscription, names in seen.items():
        wanted = {name for name, each in truth.items() if each.type in TYPES[subscription]}
        found = set(names)
        wrong["lost"] |= {f"{name} of {subscription}" for name in wanted - found}
        wrong["of no transaction"] |= {f"{name} of {subscription}" for name in found - truth.keys()}
        wrong["not wanted"] |= {f"{name} of {subscription}" for name in (found & truth.keys()) - wanted}
        if subscription not in AT_LEAST_ONCE:
            wrong["twice"] |= {f"{name} of {subscription}" for name, n in Counter(names).items() if n > 1}
        if subscription in ORDERED + ORDERED_BY_KEY:
            lines: dict[str | None, list[Truth]] = defaultdict(list)
            for name in names:
                if name in truth and (subscription, name) not in told.aside:
                    key = truth[name].key
                    if subscription != "worker" or key is not None:
                        lines[None if subscription in ORDERED else key].append(truth[name])
            in_order += sum(map(len, lines.values()))
            for line in lines.values():
                wrong["out of order"] |= {f"{name} of {subscription}" for name in overtaken(line, begun, known)}
    wrong["too many in a batch"] = {"see the histories"} if count["too many"] else set()
    for kind, what in told.left.items():
        wrong[kind] |= set(what)
    return Report(
        acknowledged=len(acknowledged),
        unknown=sum(how in ("put", "unknown") for how in outcome.values()),
        aborted=sum(how == "aborted" for how in outcome.values()),
        delivered=sum(map(len, seen.values())),
        redelivered=sum(n > 1 for n in again.values()),
        duplicates=sum(n > 1 for n in again.values()),
        in_line=in_order,
        counts={"events": len(truth), "rotations": count["rotated"], "set aside": len(told.aside)},
        wrong={kind: sorted(what) for kind, what in wrong.items() if what},
    )


def overtaken(line: Sequence[Truth], begun: dict[str, float], known: dict[str, float]) -> list[str]:
    """The events that came behind one that was published after they were known to be committed; or behind a later one
    of their transaction.

    :param begun: when each began to be published.
    :param known: when it was known to be committed, if it was.
    """
    found = []
    last = float("-inf")
    ids: dict[int, int] = {}
    for each in line:
        if known.get(each.name, float("inf")) < last or each.id < ids.get(each.tx, 0):
            found.append(each.name)
        last = max(last, begun.get(each.name, last))
        ids[each.tx] = each.id
    return found
