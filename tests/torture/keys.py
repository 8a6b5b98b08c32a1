"""What must hold of jobs with keys, tokens and limits. Pure.

The times of changes and commits are the server's. That of a commit is taken before anybody can see what was committed,
and that of a change after the change was decided on: so whoever has waited for a commit is later, in these times, too.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from .audit import QUEUES, RATE, RUNNING, Audit, Change
from .checker import Report
from .history import Event

#: Seconds for which a key that has nobody active may wait for one of its jobs to be taken, and those that a look for a
#: job takes that finds none.
STUCK = 2.0
LOOK = 0.5

#: The queues whose jobs are taken in order; those of which somebody notes that there was none to take.
ORDERED = ("keyed", "keytasks")
LOOKED = ("keyed", "keytasks", "pairs")

INFINITY = float("inf")

#: Seconds after which a change of a limit whose outcome is not known has happened, or won't.
UNKNOWN = 10.0

#: Seconds for which a job that could be taken is joined in any case.
JOINED = 29.0


class Tenure(NamedTuple):
    """For how long a job was the one of its key: from its take until it had left the line, retries included.

    :ivar tx: the transaction that took it; and the one in which it ended.
    :ivar begun: when it was taken.
    :ivar ended: when the end was committed.
    :ivar since: when the statement began that took it.
    """

    id: int
    tx: int
    end_tx: int
    begun: float
    ended: float
    since: float


class Delivery(NamedTuple):
    """
    :ivar since: when the statement began that took it.
    :ivar ended: when the end was committed, or its lease expired.
    """

    tx: int
    leased: bool
    begun: float
    ended: float
    since: float


class Limits:
    """What a limit may have been, at any time, by those that were set, and of those whose outcome is not known.

    :param first: what it was at first.
    """

    def __init__(self, name: str, first: int, events: Iterable[Event] = ()) -> None:
        events = [event for event in events if event.get("limit") == name]
        known = {event["began"]: event["wall"] for event in events if event["event"] == "set"}
        settings = sorted((event["began"], event["most"]) for event in events if event["event"] == "setting")
        self._spans = []
        for began, most in [(-INFINITY, first), *settings]:
            over = known.get(began, began + UNKNOWN)
            ends = [known[other] for other, _ in settings if other in known and other > over]
            self._spans.append((began, min(ends, default=INFINITY), most))

    def between(self, since: float, until: float) -> list[int]:
        return [most for began, ended, most in self._spans if began <= until and ended >= since]


def check_keys(events: Sequence[Event], audit: Audit, faults: Iterable[tuple[float, float]]) -> Report:
    """Compare what the processes have noted with what the database has.

    :param faults: when each began and ended.
    """
    rows: dict[int, list[Change]] = {}
    for change in audit.changes:
        rows.setdefault(change.id, []).append(change)
    by_kind: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        by_kind[event["event"]].append(event)
    named: dict[str, list[int]] = defaultdict(list)
    for id, changes in rows.items():
        named[changes[0].name].append(id)
    known = {id: event["wall"] for event in by_kind["acknowledged"] for id in event["ids"]}
    by_hand = {event.get("by_hand") for event in by_kind["touched"]}  # somebody has made these ready
    aborted = {name for event in by_kind["aborted"] for name in event["names"]}
    taken = [change for change in audit.changes if change.taken]
    takes = {(change.id, round(change.dequeued or 0, 4)) for change in taken}
    tenures = _tenures(rows)
    per_key = {name: Limits(name, first, events if name == "pairs" else ()) for name, first in QUEUES.items()}
    running = Limits("limited", RUNNING, events)
    deliveries = [each for changes in rows.values() for each in _deliveries(changes, "limited")]
    wrong = {
        "two of a key": {
            str(late)
            for key, held in tenures.items()
            for late in too_many(held, per_key[key[0]])
        },
        "out of order": {f"{late} before {early}" for early, late in overtaken(rows, known) if late not in by_hand},
        "before one that was given back": {f"{late} before {early}" for early, late in passed(rows)},
        "stuck": set(stuck(audit.changes, events, list(faults), per_key["pairs"])),
        "lost": {
            f"{id} {name}"
            for event in by_kind["acknowledged"]
            for id, name in zip(event["ids"], event["names"], strict=True)
            if id not in rows or not _over(rows[id])
        },
        "aborted, but there": aborted & named.keys(),
        "put twice": {name for name, ids in named.items() if len(ids) > 1},
        "joined, and not started": set(not_started(by_kind["acknowledged"], rows, audit.joins)),
        "a second one with a token": set(second(by_kind["acknowledged"], rows)),
        "delivered without a take": {
            f"{event['id']} {event['key']}"
            for event in by_kind["held"]
            if event["begun"] is not None and (event["id"], round(event["begun"], 4)) not in takes
        },
        "more than the limit": {str(at) for at in beyond(deliveries, running)},
        "more than the rate": {
            str(after)
            for before, after in _apart([each.dequeued for each in taken if each.queue == "rated" and each.dequeued])
            if after - before < 1
        },
        **audit.left,
    }
    counts = [sum(change.taken for change in changes) for changes in rows.values()]
    return Report(
        acknowledged=sum(len(event["names"]) for event in by_kind["acknowledged"]),
        unknown=len({name for event in by_kind["put"] for name in event["names"]})
        - sum(len(event["names"]) for kind in ("acknowledged", "aborted") for event in by_kind[kind]),
        aborted=len(aborted),
        delivered=sum(count > 0 for count in counts),
        redelivered=sum(count > 1 for count in counts),
        dead=sum(changes[-1].state == "dead" for changes in rows.values()),
        in_line=sum(changes[0].queue in ORDERED and changes[0].key is not None for changes in rows.values()),
        recoveries=sorted(waits(audit.changes, per_key["pairs"])),
        wrong={kind: sorted(what) for kind, what in wrong.items() if what},
    )


def _over(changes: list[Change]) -> bool:
    """Whether the job was taken, or ended by others."""
    return any(change.taken for change in changes) or changes[-1].state in ("cancelled", "gone")


# -- one at a time


def _tenures(rows: dict[int, list[Change]]) -> dict[tuple[str, str], list[Tenure]]:
    found: dict[tuple[str, str], list[Tenure]] = defaultdict(list)
    for id, changes in rows.items():
        begun: Change | None = None
        for change in changes:
            if begun is None and change.taken and change.key is not None:
                begun = change
            if begun is None:
                continue
            left = change.state in ("done", "dead", "cancelled", "gone") or change.queue != begun.queue
            if left or (change.state != "running" and change.attempts == 0):
                tenure = Tenure(id, begun.tx, change.tx, begun.at, change.committed, begun.began)
                found[begun.queue, str(begun.key)].append(tenure)
                begun = None
        if begun is not None:
            found[begun.queue, str(begun.key)].append(Tenure(id, begun.tx, 0, begun.at, INFINITY, begun.began))
    return found


def too_many(tenures: list[Tenure], limits: Limits) -> list[int]:
    """The jobs that were taken while so many others of their key had not ended, without those of their transaction."""
    wrong, line = [], []
    for tenure in sorted(tenures, key=lambda each: each.begun):
        line = [other for other in line if other.ended > tenure.begun]
        others = {other.id for other in line if tenure.tx not in (other.tx, other.end_tx)}
        if len(others - {tenure.id}) >= max(limits.between(tenure.since, tenure.begun)):
            wrong.append(tenure.id)
        line.append(tenure)
    return wrong


# -- in order


def overtaken(rows: dict[int, list[Change]], known: dict[int, float]) -> list[tuple[int, int]]:
    """Pairs of jobs, of which the second one was taken first, although the first one's put was known when the statement
    began that made the second one ready, and it was to come first: by its priority, then its id. Jobs that were
    scheduled, moved or tried again before they were taken are left out.
    """
    lines: dict[tuple[str, str], list[tuple[tuple[float, int], float, float, float]]] = defaultdict(list)
    for id, changes in rows.items():
        first = changes[0]
        ready = over = None
        for change in changes:
            if change.state == "scheduled" or change.queue != first.queue or (over is None and change.attempts > 1):
                break
            if change.taken or change.state in ("cancelled", "gone"):
                over = change
                break
            ready = None if change.state != "ready" else change.began if ready is None else ready
        else:
            change = first
        if first.queue in ORDERED and first.key is not None and first.state in ("ready", "held"):
            if change.state == "scheduled" or change.queue != first.queue:
                continue
            rank = (INFINITY if first.expected is None else first.expected, id)
            end = INFINITY if over is None else over.at
            was_taken = over is not None and over.taken
            lines[first.queue, first.key].append(
                (rank, known.get(id, INFINITY), ready if was_taken and ready is not None else -INFINITY, end)
            )
    wrong = []
    for line in lines.values():
        line.sort()
        for place, (rank, put, _, end) in enumerate(line):
            for other in line[place + 1 :]:
                if other[2] > put and other[3] < end:
                    wrong.append((rank[1], other[0][1]))
    return wrong


def _rank(change: Change) -> tuple[float, int]:
    return INFINITY if change.expected is None else change.expected, change.id


def passed(rows: dict[int, list[Change]]) -> Iterable[tuple[int, int]]:
    """Pairs of jobs, of which the first was given back for a while, and the second one, which comes behind it, was
    taken meanwhile."""
    takes: dict[tuple[str, str], list[Change]] = defaultdict(list)
    for changes in rows.values():
        for change in changes:
            if change.taken and change.queue in ORDERED and change.key is not None:
                takes[change.queue, change.key].append(change)
    for id, changes in rows.items():
        for before, change, after in zip(changes, changes[1:], [*changes[2:], None], strict=False):
            if (before.state, change.state, change.attempts) == ("running", "scheduled", 0):
                until = INFINITY if after is None else after.at
                for take in takes[change.queue, str(change.key)]:
                    if take.id != id and change.committed < take.at < until and _rank(take) > _rank(change):
                        yield id, take.id


# -- none is stuck


def _idle(changes: list[Change], pairs: Limits) -> Iterable[tuple[str, str, float, float, int]]:
    """When a key had a job that could be taken, and nobody active, by what was committed: the queue, the key, since
    when, until when, and a job."""
    keys: dict[tuple[str, str], list[Change]] = defaultdict(list)
    places: dict[int, tuple[str, str]] = {}
    for change in sorted(changes, key=lambda each: (each.committed, each.n)):
        place = (change.queue, str(change.key))
        if change.key is None:
            continue
        if places.get(change.id, place) != place:
            keys[places[change.id]].append(change._replace(state="gone"))
        places[change.id] = place
        keys[place].append(change)
    for (queue, key), line in keys.items():
        if queue not in LOOKED:
            continue
        now: dict[int, Change] = {}
        for change, after in pairwise([*line, None]):
            assert change is not None
            if change.state in ("done", "dead", "cancelled", "gone"):
                now.pop(change.id, None)
            elif change.id not in now or now[change.id].n < change.n:
                now[change.id] = change
            active = [
                other for other in now.values()
                if other.state == "running" or (other.state == "scheduled" and other.attempts > 0)
            ]  # fmt: skip
            until = INFINITY if after is None else after.committed
            most = min(pairs.between(change.committed, until)) if queue == "pairs" else QUEUES[queue]
            those = active if len(active) >= most else list(now.values())
            if those:
                first = min(those, key=lambda other: other.due or 0)
                since = max(change.committed, first.due or 0)
                if until > since:
                    yield queue, key, since, until, first.id


def waits(changes: list[Change], pairs: Limits) -> list[float]:
    """For how long keys with jobs that could be taken had nobody active."""
    return [until - since for _, _, since, until, _ in _idle(changes, pairs) if until < INFINITY]


def stuck(
    changes: list[Change], events: Iterable[Event], faults: list[tuple[float, float]], pairs: Limits
) -> list[str]:
    """Keys that had a job to take and nobody active, for two seconds in which there was no fault and nobody has held or
    locked it in a transaction that came to nothing; and then somebody looked for jobs, and found none."""
    touched: dict[tuple[str, str], list[float]] = defaultdict(list)
    looks: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for event in events:
        if event["event"] in ("held", "touched") and event["key"] is not None:
            touched[event["queue"], event["key"]].append(event["wall"])
        elif event["event"] == "empty" and event["wall"] - event["since"] < 2 * LOOK:
            looks[event["queue"]].append((event["since"], event["wall"]))
    for times in (*touched.values(), *looks.values()):
        times.sort()  # type: ignore[attr-defined]
    wrong = []
    for queue, key, since, until, job in _idle(changes, pairs):
        if until - since < STUCK:
            continue
        times = [since, *touched[queue, key], *(end for _, end in faults), until]
        times = sorted(time for time in times if since <= time <= until)
        for begin, end in pairwise(times):
            if any(began < end and ended > begin for began, ended in faults):
                continue
            first = bisect_left(looks[queue], (begin + STUCK - LOOK, 0.0))
            if any(
                STUCK + begin <= ended <= end for _, ended in looks[queue][first : first + 20]
            ):
                wrong.append(f"job {job} of key {key} in {queue}, from {begin} to {end}")
    return wrong


# -- tokens


def not_started(acknowledged: list[Event], rows: dict[int, list[Change]], joins: dict[str, float]) -> Iterable[str]:
    """Joined jobs that were not taken after the put: in a transaction after its commit, else after the put began. And
    merged data that was in no delivery."""
    puts = (
        (event, *put)
        for event in acknowledged
        for put in zip(event["ids"], event["names"], event["created"], event.get("modes", ()), strict=False)
    )
    for event, id, name, created, mode in puts:
        changes = rows.get(id, [])
        if mode is None or (changes and changes[-1].state in ("cancelled", "gone")):
            continue
        takes = [change for change in changes if change.taken]
        if event.get("open"):
            found = any(change.at > joins[name] for change in takes)
        else:
            found = any(change.committed > event["began"] for change in takes)
        if not found and not created:
            yield f"{id} {name}"
        elif mode == "merge" and not any(name in change.data.get("items", []) for change in takes):
            yield f"{id} without {name}"


def second(acknowledged: list[Event], rows: dict[int, list[Change]]) -> Iterable[str]:
    """Jobs that a put has made although another one with its token was there, which had not been taken when the put was
    acknowledged. Left out are those that were scheduled, or moved, or were there for long: these may not be joined.
    """
    made: dict[str, list[tuple[float, float, int]]] = defaultdict(list)
    for event in acknowledged:
        for id, created, token in zip(event["ids"], event["created"], event.get("tokens", ()), strict=False):
            if created:
                made[token].append((event["began"], event["wall"], id))
    for puts in made.values():
        puts.sort()
        for (_, known, first), (began, ended, id) in pairwise(puts):
            changes = rows.get(first, [])
            before = [change for change in changes if change.at < ended]
            if (
                known < began
                and before
                and ended - before[0].at < JOINED
                and all(change.state in ("ready", "held") and change.queue == before[0].queue for change in before)
            ):
                yield f"{id} beside {first}"


# -- limits


def _deliveries(changes: list[Change], queue: str) -> Iterable[Delivery]:
    begun: Change | None = None
    last: Change | None = None
    for change in changes:
        if begun is not None and last is not None and (change.taken or change.state != "running"):
            yield Delivery(begun.tx, True, begun.at, min(change.committed, last.due or INFINITY), begun.began)
            begun = None
        if change.taken and change.queue == queue:
            if change.state == "done":
                yield Delivery(change.tx, False, change.at, change.committed, change.began)
            else:
                begun = change
        last = change
    if begun is not None and last is not None:
        yield Delivery(begun.tx, True, begun.at, last.due or INFINITY, begun.began)


def beyond(deliveries: Iterable[Delivery], limits: Limits) -> list[float]:
    """When a delivery began while so many others had not ended. A transaction that takes jobs without a lease has one
    at a time."""
    wrong: list[float] = []
    line: list[Delivery] = []
    for delivery in sorted(deliveries, key=lambda each: each.begun):
        line = [other for other in line if other.ended > delivery.begun]
        others = [other for other in line if other.tx != delivery.tx or other.leased]
        number = sum(other.leased for other in others) + len({other.tx for other in others if not other.leased})
        if number >= max(limits.between(delivery.since, delivery.begun)):
            wrong.append(delivery.begun)
        line.append(delivery)
    return wrong


def _apart(times: list[float]) -> Iterable[tuple[float, float]]:
    """The times of deliveries that have as many others between them as a period has tokens."""
    times = sorted(times)
    return zip(times, times[RATE:], strict=False)


