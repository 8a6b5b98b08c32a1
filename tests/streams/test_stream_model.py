"""What each subscription is given, compared with a model, step by step: transactions that publish and take end in any
order. ``PQ_TEST_EXAMPLES=200`` tries more than the usual few."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from psycopg2.extensions import make_dsn
from support.machine import run_machine

import pq
from pq import PQ
from pq._streams.hold import JobHold
from pq.errors import BatchLost, StreamRestored
from pq.sql import stream_object

NUMBERS = count(1)
PARTITIONS = 3
MAX_RETRIES = 1

keys = st.sampled_from(["k", "l", "m", None])
types = st.sampled_from(["x", "x", "y"])
starts = st.sampled_from(["new", "beginning", "id"])
which = st.integers(0, 50)
sizes = st.integers(1, 4)


@dataclass
class Published:
    """:ivar at: the transaction that it is part of; None: it is committed."""

    id: int
    type: str
    key: str | None
    at: Transaction | None


@dataclass(eq=False)
class Batch:
    """One that is not done.

    :ivar at: the transaction in which it is done, or was taken.
    :ivar held: the delivery that holds it.
    """

    reader: Reader
    partition: int
    ids: list[int]
    attempts: int = 0
    is_due: bool = True
    at: Transaction | None = None
    held: pq.Batch | None = None

    @property
    def fails_for_good(self) -> bool:
        return len(self.ids) == 1 and not self.reader.stops and self.attempts > MAX_RETRIES


@dataclass
class Place:
    """A position.

    :ivar read: what is behind it.
    :ivar window: what is left of a window that was begun; None: the next one ends at the next take.
    """

    read: set[int] = field(default_factory=set)
    window: list[int] | None = None


@dataclass(eq=False)
class Reader:
    """:ivar aside: the events that wait to be tried again, or are; with those of `dead`.
    :ivar held: those that were delivered.
    """

    subscription: pq.Subscription
    types: list[str] | None = None
    partitions: int = 1
    shared: bool = False
    stops: bool = False
    is_paused: bool = False
    places: list[Place] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    aside: Counter[int] = field(default_factory=Counter)
    dead: Counter[int] = field(default_factory=Counter)
    held: list[tuple[pq.Batch, int]] = field(default_factory=list)


@dataclass
class Changes:
    """What a transaction has done.

    :ivar ended: batches.
    :ivar rests: batches that come next, of some that were cut.
    """

    published: list[int] = field(default_factory=list)
    places: dict[tuple[Reader, int], Place] = field(default_factory=dict)
    ended: list[Batch] = field(default_factory=list)
    rests: list[Batch] = field(default_factory=list)
    aside_ended: list[tuple[Reader, int]] = field(default_factory=list)
    aside: list[tuple[Reader, int]] = field(default_factory=list)
    dead: list[tuple[Reader, int]] = field(default_factory=list)

    def copy(self) -> Changes:
        copy = Changes(**{name: value.copy() for name, value in vars(self).items()})
        copy.places = {at: deepcopy(place) for at, place in self.places.items()}
        return copy


@dataclass(eq=False)
class Transaction:
    """:ivar conn: of a session.
    :ivar savepoints: what was done before each.
    """

    conn: Any
    is_open: bool = False
    changes: Changes = field(default_factory=Changes)
    savepoints: list[Changes] = field(default_factory=list)


class Machine(RuleBasedStateMachine):
    """
    :param blocks: has transactions of its own, by ``with subscription.batch()``.
    :param sessions: in which are the other transactions.
    """

    def __init__(self, pq: PQ, blocks: PQ, sessions: list[Any]) -> None:
        super().__init__()
        self.pq, self.blocks = pq, blocks
        self.stream = pq.streams[f"model {next(NUMBERS)}"]
        self.stream.create(retain="1000d")
        self.events: dict[int, Published] = {}
        self.sessions = [Transaction(conn) for conn in sessions]
        self.block: tuple[Any, Batch | tuple[Reader, int], Transaction] | None = None
        self.stale: list[pq.Batch] = []
        rows = self.sql("select key, :hash from unnest(array['k', 'l', 'm', '']) as event (key)")
        self.partition_of: dict[str | None, int] = {key or None: number for key, number in rows}
        self.readers: list[Reader] = []
        self.subscribe("new")
        self.subscribe("new", types=["x"])
        self.subscribe("new", partitions=PARTITIONS)
        self.subscribe("new", shared=True)
        self.subscribe("new", stops=True)

    # -- what the database has

    def sql(self, sql: str, conn: Any = None) -> list[Any]:
        for kind in ("log", "batches", "origin"):
            sql = sql.replace(f":{kind}", stream_object(self.stream._table.quoted, kind, self.stream.name))
        sql = sql.replace(":hash", f"(hashtextextended(key collate \"C\", 0) & 1073741823) % {PARTITIONS}")
        if conn is None:
            return list(self.pq._db.execute(sql))
        with conn.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    def jobs(self, reader: Reader, conn: Any = None) -> tuple[Counter[int], Counter[int]]:
        """Return the events that wait to be tried again, and the dead ones."""
        queue = f"{self.stream.name}:{reader.subscription.name}"
        rows = self.sql(
            "select (data ->> 'id')::bigint, dequeued_at is not null and due_at is null from queue"
            f" where q_name = '{queue}' and not (dequeued_at is not null and due_at is null and error is null)",
            conn,
        )
        return Counter(id for id, is_dead in rows if not is_dead), Counter(id for id, is_dead in rows if is_dead)

    def kept(self) -> set[int]:
        return {id for (id,) in self.sql("select id from :log")}

    # -- what is to be delivered

    def wants(self, reader: Reader, partition: int, id: int) -> bool:
        event = self.events[id]
        return (reader.types is None or event.type in reader.types) and (
            reader.partitions == 1 or self.partition_of[event.key] == partition
        )

    def committed(self) -> set[int]:
        return {event.id for event in self.events.values() if event.at is None}

    def unread(self, reader: Reader, partition: int, place: Place) -> list[int]:
        return sorted(id for id in self.committed() - place.read if self.wants(reader, partition, id))

    def batches(self, reader: Reader, partition: int, at: Transaction | None) -> list[Batch]:
        """Return those that a transaction sees, in order."""
        found = [batch for batch in reader.batches if at is None or batch not in at.changes.ended]
        found += [] if at is None else [batch for batch in at.changes.rests if batch.reader is reader]
        return sorted((batch for batch in found if batch.partition == partition), key=lambda batch: batch.ids[0])

    def held_up(self, reader: Reader, partition: int, at: Transaction | None) -> Batch | None:
        """Return the batch that comes before other events, if there is one."""
        batches = self.batches(reader, partition, at)
        if reader.shared:
            batches = [batch for batch in batches if batch.is_due and batch.at in (None, at)]
        return batches[0] if batches else None

    def next(self, reader: Reader, partition: int, n: int, at: Transaction | None) -> Batch | list[int]:
        """Return what comes next of a partition: a batch that was delivered before, or events."""
        batch = self.held_up(reader, partition, at)
        if batch is not None:
            return batch if batch.is_due and batch.at in (None, at) else []
        place = reader.places[partition]
        for other in self.transactions():
            if (reader, partition) in other.changes.places:
                if other is not at:
                    return []
                place = other.changes.places[reader, partition]
        return (place.window or self.unread(reader, partition, place))[:n]

    def transactions(self) -> Iterator[Transaction]:
        yield from self.sessions
        if self.block is not None:
            yield self.block[2]

    def may_retry(self, reader: Reader, at: Transaction | None) -> Counter[int]:
        """Return the events that were set aside, and that nobody has."""
        there = reader.aside - Counter(id for _, id in reader.held)
        if at is not None:
            there += Counter(id for its, id in at.changes.aside if its is reader)
        for other in self.transactions():
            there -= Counter(id for its, id in other.changes.aside_ended if its is reader)
        return there

    # -- what was delivered

    def given_up(self, reader: Reader, at: Transaction | None) -> None:
        """See which events a take has found to be delivered too often."""
        _, found = self.jobs(reader, None if at is None else at.conn)
        known = reader.dead + Counter() if at is None else reader.dead + Counter(
            id for its, id in at.changes.dead if its is reader
        )  # fmt: skip
        for id in (found - known).elements():
            batch = next(
                (
                    batch for partition in range(reader.partitions) for batch in self.batches(reader, partition, at)
                    if batch.ids == [id] and batch.is_due and batch.at in (None, at) and batch.fails_for_good
                ), None
            )  # fmt: skip
            if batch is not None:
                self.end(batch, at)
            else:
                assert self.may_retry(reader, at)[id]
                self.end_aside(reader, id, at)
            self.set_aside(reader, [id], at, dead=True)

    def end(self, batch: Batch, at: Transaction | None) -> None:
        batch.held = None
        if at is None:
            batch.reader.batches.remove(batch)
        elif batch in at.changes.rests:
            at.changes.rests.remove(batch)
        else:
            batch.at = at
            at.changes.ended.append(batch)

    def end_aside(self, reader: Reader, id: int, at: Transaction | None) -> None:
        if at is None:
            reader.aside[id] -= 1
        elif (reader, id) in at.changes.aside:
            at.changes.aside.remove((reader, id))
        else:
            at.changes.aside_ended.append((reader, id))

    def set_aside(self, reader: Reader, ids: list[int], at: Transaction | None, dead: bool = False) -> None:
        if at is None:
            (reader.dead if dead else reader.aside).update(ids)
        else:
            (at.changes.dead if dead else at.changes.aside).extend((reader, id) for id in ids)

    def delivered(
        self, reader: Reader, take: Callable[[], pq.Batch], n: int, at: Transaction | None, taker: Any = None
    ) -> Batch | tuple[Reader, int] | None:
        """Check what a take returns, and note it.

        :param taker: of the subscription that takes.
        """
        taker = taker or reader.subscription._taker
        taker._last = taker._last or 0  # not by chance
        order = sorted(range(reader.partitions), key=lambda partition: (partition <= taker._last, partition))
        was_retry = taker._was_retry
        got = take()
        self.given_up(reader, at)
        expected = {partition: self.next(reader, partition, n, at) for partition in range(reader.partitions)}
        retries = self.may_retry(reader, at)
        if not got:
            assert reader.is_paused or (not any(expected.values()) and not +retries)
            if not reader.is_paused:
                self.passed(reader, order, at)
            return None
        assert not reader.is_paused
        for event in got:
            its = self.events[event.id]
            assert (event.data, event.type, event.key) == (f"event {its.type}", its.type, its.key)
        ids = [event.id for event in got]
        if isinstance(got._hold, JobHold):
            assert retries[ids[0]] > 0
            assert len(ids) == 1
            if was_retry:  # it was not its turn
                assert not any(expected.values())
                self.passed(reader, order, at)
            if at is None:
                reader.held.append((got, ids[0]))
            else:
                self.end_aside(reader, ids[0], at)
            return reader, ids[0]
        partition = self.partition_of[got[0].key] if reader.partitions > 1 else 0
        batch = expected[partition]
        self.passed(reader, order[: order.index(partition) + 1], at)
        if isinstance(batch, Batch):
            return self.delivered_again(batch, got, n, at)
        assert ids == batch
        assert got.attempts == 1
        self.moved(reader, partition, n, at)
        batch = Batch(reader, partition, ids, 1, False, at, got)
        if at is None:
            reader.batches.append(batch)
        return batch

    def moved(self, reader: Reader, partition: int, n: int, at: Transaction | None) -> None:
        place = self.place(reader, partition, at)
        window = place.window or self.unread(reader, partition, place)
        place.read |= set(window[:n])
        place.window = window[n:] or None

    def place(self, reader: Reader, partition: int, at: Transaction | None) -> Place:
        """Return a position that moves, in a transaction."""
        place = reader.places[partition]
        return place if at is None else at.changes.places.setdefault((reader, partition), deepcopy(place))

    def passed(self, reader: Reader, partitions: list[int], at: Transaction | None) -> None:
        """A take that finds nothing in a window that was begun moves behind it."""
        for partition in partitions:
            place = reader.places[partition] if at is None else at.changes.places.get(
                (reader, partition), reader.places[partition]
            )  # fmt: skip
            others = [other for other in self.transactions() if other is not at]
            is_locked = any((reader, partition) in other.changes.places for other in others)
            if place.window == [] and not is_locked and not self.held_up(reader, partition, at):
                self.place(reader, partition, at).window = None

    def delivered_again(self, batch: Batch, got: pq.Batch, n: int, at: Transaction | None) -> Batch:
        """One comes again by halves."""
        size = len(batch.ids) if batch.attempts == 0 else (len(batch.ids) + 1) // 2
        part = Batch(batch.reader, batch.partition, batch.ids[: min(size, n)], 1, False, at, got)
        rest = Batch(batch.reader, batch.partition, batch.ids[len(part.ids) :])
        if not rest.ids:
            part.attempts = batch.attempts + 1
        assert [event.id for event in got] == part.ids
        assert got.attempts == part.attempts
        if batch.held is not None:
            self.stale.append(batch.held)
        self.end(batch, at)
        if at is None:
            batch.reader.batches += [part, rest] if rest.ids else [part]
        elif rest.ids:
            rest.at = at
            at.changes.rests.append(rest)
        return part

    # -- publishing

    @rule(types=st.lists(types, min_size=1, max_size=3), key=keys, session=st.sampled_from([0, 1, 2, None]))
    def publish(self, types: list[str], key: str | None, session: int | None) -> None:
        at = None if session is None else self.begun(session)
        given = [pq.NewEvent(f"event {type}", type, key) for type in types]
        conn = None if at is None else at.conn
        if len(given) == 1:
            ids = [self.stream.publish(*given[0], conn=conn)]
        else:
            ids = self.stream.publish_many(given, conn=conn)
        self.published(ids, types, key, at)

    def published(self, ids: list[int], types: list[str], key: str | None, at: Transaction | None) -> None:
        assert min(ids) > max(self.events, default=0)
        for id, type in zip(ids, types, strict=True):
            self.events[id] = Published(id, type, key, at)
            if at is not None:
                at.changes.published.append(id)

    def begun(self, session: int) -> Transaction:
        self.sessions[session].is_open = True
        return self.sessions[session]

    @rule(session=st.integers(0, 2))
    def number(self, session: int) -> None:
        """Give a transaction its number before its first event."""
        self.sql("select pg_current_xact_id()::text", self.begun(session).conn)

    @rule(session=st.integers(0, 2), commits=st.booleans())
    def end_transaction(self, session: int, commits: bool) -> None:
        at = self.sessions[session]
        at.conn.commit() if commits else at.conn.rollback()
        self.commit(at) if commits else self.roll_back(at, Changes())
        at.is_open, at.savepoints = False, []

    def commit(self, at: Transaction) -> None:
        changes, at.changes = at.changes, Changes()
        for id in changes.published:
            self.events[id].at = None
        for (reader, partition), place in changes.places.items():
            reader.places[partition] = place
        for batch in changes.ended:
            batch.reader.batches.remove(batch)
        for batch in changes.rests:
            batch.at = None
            batch.reader.batches.append(batch)
        for reader, id in changes.aside_ended:
            reader.aside[id] -= 1
        for reader, id in changes.aside:
            reader.aside[id] += 1
        for reader, id in changes.dead:
            reader.dead[id] += 1

    def roll_back(self, at: Transaction, to: Changes) -> None:
        changes, at.changes = at.changes, to.copy()
        for id in set(changes.published) - set(to.published):
            del self.events[id]
        for batch in changes.ended:
            batch.at = at if batch in to.ended else None

    @rule(session=st.integers(0, 2))
    def savepoint(self, session: int) -> None:
        at = self.begun(session)
        with at.conn.cursor() as cursor:
            cursor.execute(f"savepoint s{len(at.savepoints)}")
        at.savepoints.append(at.changes.copy())

    @rule(session=st.integers(0, 2))
    def roll_back_to(self, session: int) -> None:
        at = self.sessions[session]
        if at.savepoints:
            with at.conn.cursor() as cursor:
                cursor.execute(f"rollback to savepoint s{len(at.savepoints) - 1}")
            self.roll_back(at, at.savepoints[-1])

    # -- taking

    def reader(self, number: int) -> Reader:
        return self.readers[number % len(self.readers)]

    @rule(number=which, n=sizes)
    def take_leased(self, number: int, n: int) -> None:
        reader = self.reader(number)
        self.delivered(reader, lambda: next(reader.subscription.batches(n, "1h", 0)), n, None)

    @rule(number=which, n=sizes, session=st.integers(0, 2), aside=st.sampled_from(["no", "no", "retry", "fail"]))
    def take_in_a_transaction(self, number: int, n: int, session: int, aside: str) -> None:
        at, reader = self.begun(session), self.reader(number)
        taken: list[pq.Batch] = []

        def take() -> pq.Batch:
            taken.append(reader.subscription.take(n, conn=at.conn))
            return taken[0]

        if self.delivered(reader, take, n, at) and aside != "no":
            event = taken[0][0]
            event.retry("0s") if aside == "retry" else event.fail("no")
            self.set_aside(reader, [event.id], at, dead=aside == "fail")

    @precondition(lambda self: self.block is None)
    @rule(number=which, n=sizes)
    def enter_a_block(self, number: int, n: int) -> None:
        reader = self.reader(number)
        subscription = self.blocks.streams[self.stream.name].subscription(reader.subscription.name, None)
        block = subscription.batch(n, timeout=0)
        found = self.delivered(reader, block.__enter__, n, None, subscription._taker)
        if found is None:
            block.__exit__(None, None, None)
            return
        at = Transaction(None)
        if isinstance(found, Batch):
            found.at = at
            at.changes.ended.append(found)
        else:
            reader.held.pop()
            at.changes.aside_ended.append(found)
        self.block = (block, found, at)

    @precondition(lambda self: self.block is not None)
    @rule(type=types, key=keys)
    def publish_in_the_block(self, type: str, key: str | None) -> None:
        assert self.block is not None
        id = self.blocks.streams[self.stream.name].publish(f"event {type}", type, key)
        self.published([id], [type], key, self.block[2])

    @precondition(lambda self: self.block is not None)
    @rule(raises=st.booleans())
    def leave_the_block(self, raises: bool) -> None:
        assert self.block is not None
        block, found, at = self.block
        self.block = None
        error = ZeroDivisionError() if raises else None
        block.__exit__(type(error), error, None)
        if not raises:
            self.commit(at)
            return
        self.roll_back(at, Changes())
        if isinstance(found, Batch):
            self.note_failed(found)
        else:
            self.note_failed_aside(*found)

    # -- ends

    def open_batches(self) -> list[Batch]:
        """Those that a delivery holds, and that no transaction has."""
        return [
            batch for reader in self.readers for batch in reader.batches if batch.held is not None and batch.at is None
        ]

    @rule(number=which, aside=st.sampled_from(["no", "no", "retry", "fail"]), session=st.sampled_from([None, None, 0]))
    def done(self, number: int, aside: str, session: int | None) -> None:
        batches = self.open_batches()
        if not batches:
            return
        batch = batches[number % len(batches)]
        assert batch.held is not None
        at = None if session is None else self.begun(session)
        if aside != "no":
            event = batch.held[0]
            event.retry("0s") if aside == "retry" else event.fail("no")
        batch.held.done(conn=None if at is None else at.conn)
        if aside != "no":
            self.set_aside(batch.reader, [batch.ids[0]], at, dead=aside == "fail")
        self.end(batch, at)

    @rule(number=which, releases=st.booleans())
    def fail(self, number: int, releases: bool) -> None:
        batches = self.open_batches()
        if not batches:
            return
        batch = batches[number % len(batches)]
        assert batch.held is not None
        if releases:
            batch.held.release()
            batch.attempts, batch.is_due, batch.held = max(0, batch.attempts - 1), True, None
        else:
            batch.held.failed("no")
            self.note_failed(batch)

    def note_failed(self, batch: Batch) -> None:
        batch.held, batch.is_due = None, not (batch.reader.stops and len(batch.ids) == 1)
        if batch.fails_for_good:
            self.set_aside(batch.reader, batch.ids, None, dead=True)
            self.end(batch, None)

    @rule(number=which, ends=st.sampled_from(["done", "failed", "release"]))
    def end_of_a_retry(self, number: int, ends: str) -> None:
        held = [(reader, *its) for reader in self.readers for its in reader.held]
        if held:
            reader, batch, id = held[number % len(held)]
            reader.held.remove((batch, id))
            if ends == "failed":
                batch.failed("no")
                self.note_failed_aside(reader, id)
            elif ends == "done":
                batch.done()
                reader.aside[id] -= 1
            else:
                batch.release()

    def note_failed_aside(self, reader: Reader, id: int) -> None:
        """How often it was tried is its job's: see whether that is dead."""
        _, dead = self.jobs(reader)
        if dead[id] > reader.dead[id]:
            self.end_aside(reader, id, None)
            reader.dead[id] += 1

    @rule(number=which)
    def end_too_late(self, number: int) -> None:
        """What was delivered again meanwhile is no longer held."""
        if self.stale:
            batch = self.stale.pop(number % len(self.stale))
            with pytest.raises(BatchLost):
                batch.done()

    @rule()
    def leases_expire(self) -> None:
        for reader in self.readers:
            for batch in reader.batches:
                if batch.at is None:
                    batch.is_due = True
        numbers = [
            str(batch.ids[0]) for reader in self.readers for batch in reader.batches if batch.at is None
        ]
        self.sql(
            f"update :batches set due_at = now() where number in (select number from :batches for update skip locked)"
            f" and first = any ('{{{','.join(numbers)}}}') returning 1"
        )

    # -- others

    def quiet(self) -> bool:
        """Whether no transaction has anything of the readers."""
        return self.block is None and not any(
            at.changes.places or at.changes.ended or at.changes.aside_ended for at in self.sessions
        )

    def subscribe(self, start: str, number: int = 0, **options: Any) -> None:
        stops, to = options.pop("stops", False), self.start(start, number)
        subscription = self.stream.subscribe(
            f"reader {len(self.readers)}", to, max_retries=MAX_RETRIES, retry_in=None,
            ordered="stop" if stops else "aside", **options,
        )  # fmt: skip
        reader = Reader(subscription, **options, stops=stops)
        self.readers.append(reader)
        self.begin_at(reader, to)

    def start(self, start: str, number: int) -> str | int:
        ids = sorted(self.kept())
        if start == "id":
            return ids[number % len(ids)] if ids else 0
        return start

    def begin_at(self, reader: Reader, to: str | int) -> None:
        """It reads what is committed from now on and, in the first window, what lies behind an id."""
        kept, committed = self.kept(), self.committed()
        reader.places = [Place(committed.copy()) for _ in range(reader.partitions)]
        after = 0 if isinstance(to, str) else to
        if to == "new" or after >= max(kept, default=0) > 0:
            return
        for partition, place in enumerate(reader.places):
            place.window = sorted(id for id in committed & kept if id > after and self.wants(reader, partition, id))
            place.read -= set(place.window)

    @precondition(lambda self: len(self.readers) < 8)
    @rule(start=starts, number=which, kind=st.sampled_from(["plain", "types", "partitions", "shared"]))
    def subscribe_later(self, start: str, number: int, kind: str) -> None:
        options: dict[str, Any] = {"types": ["y"], "partitions": PARTITIONS, "shared": True}
        self.subscribe(start, number, **({} if kind == "plain" else {kind: options[kind]}))

    @precondition(lambda self: self.quiet())
    @rule(number=which, start=starts, id=which)
    def seek(self, number: int, start: str, id: int) -> None:
        reader, to = self.reader(number), self.start(start, id)
        reader.subscription.seek(to)
        self.stale += [batch.held for batch in reader.batches if batch.held is not None]
        reader.batches = []
        self.begin_at(reader, to)

    @rule(number=which, pauses=st.booleans())
    def pause(self, number: int, pauses: bool) -> None:
        reader = self.reader(number)
        reader.subscription.pause() if pauses else reader.subscription.resume()
        reader.is_paused = pauses

    @rule()
    def grow_old(self) -> None:
        """Events are those of the slot that the clock comes to next, and so old that they may be removed."""
        period = self.pq.streams[self.stream.name].info().retain.total_seconds()
        self.sql(
            f"update :log set at = at - interval '1000 days',"
            f" slot = mod(floor(extract(epoch from statement_timestamp()) / {period})::bigint + 1, 3::bigint)"
            f" where at > statement_timestamp() - interval '500 days' returning 1"
        )

    @rule()
    def rotate(self) -> None:
        before = self.kept()
        removed = self.stream.rotate()
        gone = before - self.kept()
        assert removed or not gone
        for reader in self.readers:
            for batch in reader.batches:
                assert not gone & set(batch.ids)
            for partition, place in enumerate(reader.places):
                assert not [id for id in gone - place.read if self.wants(reader, partition, id)]
                assert not gone & set(place.window or [])

    @precondition(lambda self: self.block is None and not any(at.is_open for at in self.sessions))
    @rule()
    def restore(self) -> None:
        """As if this were a restored dump."""
        self.sql("update :origin set home = 0 returning 1")
        reader = self.readers[0]
        if not reader.is_paused:
            with pytest.raises(StreamRestored):
                next(reader.subscription.batches(1, timeout=0))
        assert self.stream.rebase()
        for reader in self.readers:
            for place in reader.places:
                place.window = None

    @rule(number=which)
    def look(self, number: int) -> None:
        reader = self.reader(number)
        unread = sum(len(self.unread(reader, *its)) for its in enumerate(reader.places))
        assert reader.subscription.lag(exact=True).events == unread + sum(
            batch.ids[-1] - batch.ids[0] + 1 for batch in reader.batches
        )
        assert self.jobs(reader) == (+reader.aside, +reader.dead)

    def teardown(self) -> None:
        """All that is committed is delivered in the end, and then all of it may be removed."""
        if self.block is not None:
            self.leave_the_block(raises=False)
        for session in range(len(self.sessions)):
            self.end_transaction(session, commits=True)
        for reader in self.readers:
            reader.subscription.resume()
            reader.is_paused = False
            for batch in [batch for batch in reader.batches if batch.held is not None]:
                batch.held.done()  # type: ignore[union-attr]
                self.end(batch, None)
            for batch, id in reader.held:
                batch.done()
                reader.aside[id] -= 1
            reader.held = []
        self.leases_expire()
        for reader in self.readers:
            while found := self.delivered(reader, lambda: next(reader.subscription.batches(4, timeout=0)), 4, None):  # noqa: B023
                if isinstance(found, Batch):
                    assert found.held is not None
                    found.held.done()
                    self.end(found, None)
                else:
                    batch, id = reader.held.pop()
                    batch.done()
                    reader.aside[id] -= 1
            self.look(self.readers.index(reader))
            assert not reader.subscription.lag(exact=True).events
        with suppress(Exception):
            self.stream.drop(force=True)


def test_each_subscription_is_given_what_the_model_says(dsn: str, connect: Callable[..., Any]) -> None:
    options = "-c lock_timeout=20s"  # nothing waits for a transaction that is open
    sessions = [connect(options=options) for _ in range(3)]
    with PQ(make_dsn(dsn, options=options)) as pq, PQ(dsn) as blocks:
        run_machine(lambda: Machine(pq, blocks, sessions), 50)
