"""The cases in which an event could be skipped or come twice, step by step and without chance.

`test_stream_proof` has them hold; `test_stream_mutants` has each statement broken, and some case fail.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import count
from typing import Any

from support import Background, execute, wait_until
from support.driver import driver

from pq import PQ
from pq.sql import stream_object

NUMBERS = count(1)


class Bench:
    """A stream, a subscription that reads it in one way, and sessions.

    :param dsn: of the sessions.
    :param way: ``take``: in a transaction of the caller; ``block``: ``with batch()``; ``lease``: under a lease;
        ``again``: each batch is delivered again, by halves.
    """

    def __init__(self, pq: PQ, dsn: str, way: str) -> None:
        self.pq, self._dsn, self.way = pq, dsn, way
        self._sessions: list[Any] = []
        self.stream = pq.streams[f"proof {next(NUMBERS)}"]
        self.stream.create()
        self.reader = self.stream.subscribe("a")
        self.publish = self.stream.publish

    def session(self) -> Any:
        self._sessions.append(driver.connect(self._dsn))
        return self._sessions[-1]

    def table(self, kind: str) -> str:
        return stream_object(self.stream._table.quoted, kind, self.stream.name)

    def number(self, conn: Any) -> Any:
        """Give a transaction its number."""
        return self.one(conn, "select pg_current_xact_id()::text::bigint")

    @staticmethod
    def one(conn: Any, sql: str) -> Any:
        with conn.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchone()[0]

    def take(self, n: int = 1000, conn: Any = None, reader: Any = None) -> list[Any]:
        """What is taken and done, of at most one batch.

        :param conn: in the transaction that is open there, which goes on.
        """
        reader = reader or self.reader
        if self.way == "take":
            mine = conn or self.session()
            found = [event.data for event in reader.take(n, conn=mine)]
            if conn is None:
                mine.commit()
        elif self.way == "block" and conn is None:
            with reader.batch(n, timeout=0) as batch:
                found = [event.data for event in batch]
        else:
            with nullcontext() if conn is None else self.pq.using(conn):
                found = self._leased(n, reader)
        assert len(found) <= n
        return found

    def _leased(self, n: int, reader: Any) -> list[Any]:
        def deliver() -> Any:
            return next(reader.batches(n, timeout=0))

        batch = deliver()
        found = [event.data for event in batch]
        if self.way == "again" and batch:
            batch.failed("again", "0s")
            parts: list[Any] = []
            while len(parts) < len(found):
                part = deliver()
                assert part, f"{parts} of {found}"
                parts += [event.data for event in part]
                part.done()
            assert parts == found
        else:
            batch.done()
        return found

    def all(self, n: int = 1000) -> list[Any]:
        found: list[Any] = []
        while events := self.take(n):
            found += events
        return found


@contextmanager
def bench(dsn: str, way: str) -> Iterator[Bench]:
    """A bench with a stream of its own; its sessions are closed in the end."""
    with PQ(dsn) as pq:
        made = Bench(pq, dsn, way)
        try:
            yield made
        finally:
            for session in made._sessions:
                session.close()


def above_xmax(b: Bench) -> None:
    """A transaction runs with a number above the snapshot's xmax, and with an id below one that the snapshot sees."""
    y, x = b.session(), b.session()
    b.number(y)
    b.publish("x", conn=x)
    b.publish("y", conn=y)
    y.commit()
    assert b.take() == ["y"]
    x.commit()
    assert b.all() == ["x"]


def in_xip(b: Bench) -> None:
    x = b.session()
    b.publish("x", conn=x)
    b.publish("y")
    b.publish("z")
    assert b.take() == ["y", "z"]
    x.commit()
    assert b.all() == ["x"]


def own_after(b: Bench) -> None:
    """A consumer that had a number before it takes publishes afterwards."""
    mine = b.session()
    b.number(mine)
    b.publish("other")
    assert b.take(conn=mine) == ["other"]
    b.publish("own", conn=mine)
    mine.commit()
    assert b.all() == ["own"]


def own_before(b: Bench) -> None:
    mine = b.session()
    b.publish("own", conn=mine)
    b.publish("other")
    assert b.take(conn=mine) == ["other"]
    assert b.take(conn=mine) == []
    mine.commit()
    assert b.all() == ["own"]


def above_xmax_at_the_end_of_a_window(b: Bench) -> None:
    """The same, where the window is cut: whoever takes its end knows what was running when it began."""
    b.publish("first")
    assert b.take() == ["first"]
    y, x = b.session(), b.session()
    b.number(y)
    b.publish("x", conn=x)
    b.publish("y", conn=y)
    b.publish("z", conn=y)
    y.commit()
    assert [b.take(1), b.take(1)] == [["y"], ["z"]]
    x.commit()
    assert b.all() == ["x"]


def unknown_top(b: Bench) -> None:
    """The take is in a transaction that had a number; a younger one runs, and its id is below the mark."""
    mine, y, x = b.session(), b.session(), b.session()
    b.number(mine)
    b.number(y)
    b.publish("x", conn=x)
    b.publish("y", conn=y)
    y.commit()
    assert b.take(conn=mine) == ["y"]
    mine.commit()
    x.commit()
    assert b.all() == ["x"]


def unknown_top_inside(b: Bench) -> None:
    """The same, where the window is cut, and its end is reached by another transaction."""
    mine, y, x = b.session(), b.session(), b.session()
    b.number(mine)
    b.number(y)
    b.publish("x", conn=x)
    b.publish("y", conn=y)
    b.publish("z", conn=y)
    y.commit()
    assert b.take(1, conn=mine) == ["y"]
    mine.commit()
    x.commit()
    assert b.take() == ["z"]
    assert b.all() == ["x"]


def subscribed_late(b: Bench) -> None:
    """A subscription begins while transactions run: it has what they commit."""
    y, x, w = b.session(), b.session(), b.session()
    b.publish("w", conn=w)
    b.number(y)
    b.publish("x", conn=x)
    b.publish("y", conn=y)
    y.commit()
    second = b.stream.subscribe("second")
    x.commit()
    w.commit()
    assert b.take(reader=second) == ["w", "x"]
    second.seek("beginning")
    assert b.take(reader=second) == ["w", "x", "y"]


def sought_late(b: Bench) -> None:
    """The same for a seek, to the end or behind an id."""
    y, x = b.session(), b.session()
    b.number(y)
    b.publish("x", conn=x)
    first = b.publish("y", conn=y)
    y.commit()
    b.reader.seek("new")
    x.commit()
    assert b.all() == ["x"]
    b.publish("z")
    b.reader.seek(first)
    assert b.all() == ["z"]
    late = b.session()
    b.publish("late", conn=late)
    last = b.publish("last")
    b.reader.seek(last - 2)
    assert b.take() == ["last"]
    late.commit()
    assert b.all() == ["late"]


def id_first(b: Bench) -> None:
    """Whoever takes an id has a number: so the columns stand in this order."""
    wanted = f"attrelid = '{b.table('log')}'::regclass and attname in ('txid', 'id')"
    order = b.one(b.session(), f"select string_agg(attname, ' ' order by attnum) from pg_attribute where {wanted}")
    assert order == "txid id"


def late_and_above(b: Bench) -> None:
    x = b.session()
    b.publish("y")
    b.publish("x", conn=x)
    assert b.take() == ["y"]
    x.commit()
    assert b.all() == ["x"]


def rolled_back(b: Bench) -> None:
    b.publish(1)
    b.publish(2)
    undone = b.session()
    if b.way == "take":
        assert b.take(1, conn=undone) == [1]
        undone.rollback()
    elif b.way == "block":
        try:
            with b.reader.batch(2, timeout=0) as batch:
                raise KeyError(batch)
        except KeyError:
            pass
    else:
        with b.pq.using(undone):
            assert len(next(b.reader.batches(1, timeout=0))) == 1
        undone.rollback()
    b.publish("undone", conn=undone)
    undone.rollback()
    assert [b.take(1), b.take(1), b.take(1)] == [[1], [2], []]


def two_at_once(b: Bench) -> None:
    """Nobody waits, and nobody gets what another transaction has taken."""
    b.publish(1)
    x, y = b.session(), b.session()
    assert b.take(conn=x) == [1]
    assert b.take(conn=y) == []
    x.commit()
    y.commit()
    assert b.all() == []


def overtaken(b: Bench) -> None:
    """Between the look of a take and its lock another one takes, and commits: the slower one gets nothing."""
    b.publish(1)
    gate, slow = b.session(), b.session()
    b.one(gate, "select pg_advisory_xact_lock(7)::text")
    sql = b.stream._table.statements("stream_take.sql", b.stream.name)["take"]
    sql, found = re.subn(
        r"(pq_free as materialized \(.*?where )", r"\1(select pg_advisory_xact_lock_shared(7)::text) is not null and ",
        sql, flags=re.DOTALL,
    )  # fmt: skip
    assert found == 1
    params = {
        "subscription": b.reader.name, "partition": 0, "n": 10, "queue": "", "past_retries": False, "past_open": False,
    }  # fmt: skip

    def take() -> list[Any]:
        with slow.cursor() as cursor:
            cursor.execute(sql, params)
            return list(cursor.fetchall())

    thread = Background(take)
    waits = "select from pg_stat_activity where datname = current_database() and wait_event = 'advisory'"
    wait_until(lambda: execute(b._dsn, waits), "the take's wait")
    assert b.take() == [1]
    gate.rollback()
    assert len(thread.result()) == 1  # which tells, and is no event
    slow.rollback()


def capped(b: Bench) -> None:
    b.stream.publish_many(range(10))
    assert [len(b.take(4)) for _ in range(4)] == [4, 4, 2, 0]
    b.stream.publish_many(range(8))
    assert [b.take(4) for _ in range(3)] == [[0, 1, 2, 3], [4, 5, 6, 7], []]
    # or each take would read all that there is since the subscription began
    assert b.one(b.session(), f"select max(mark) from {b.table('positions')}") == 18


def savepoints(b: Bench) -> None:
    """What was rolled back to a savepoint never was; what another savepoint has published is of its transaction."""
    x = b.session()
    with x.cursor() as cursor:
        b.publish("kept", conn=x)
        cursor.execute("savepoint s")
        b.publish("undone", conn=x)
        cursor.execute("rollback to savepoint s")
        cursor.execute("savepoint t")
        b.publish("inner", conn=x)
        cursor.execute("release savepoint t")
        cursor.execute("savepoint u")
        b.publish("open", conn=x)
    b.publish("between")
    assert b.take() == ["between"]
    x.commit()
    assert b.all(2) == ["kept", "inner", "open"]


def taken_in_a_savepoint(b: Bench) -> None:
    """A take that is rolled back to a savepoint has not been; what the transaction publishes then is delivered."""
    b.publish(1)
    b.publish(2)
    x = b.session()
    with x.cursor() as cursor:
        cursor.execute("savepoint s")
        b.publish("undone", conn=x)
        assert b.take(1, conn=x) == [1]
        cursor.execute("rollback to savepoint s")
        b.publish("own", conn=x)
        assert b.take(1, conn=x) == [1]
    x.commit()
    assert b.all(1) == [2, "own"]


def cut_inside_of_late_ones(b: Bench) -> None:
    """A window is cut between events that come late; another transaction that is as old commits meanwhile."""
    x, w = b.session(), b.session()
    for i in range(3):
        b.publish(f"x{i}", conn=x)
        b.publish(f"w{i}", conn=w)
    b.stream.publish_many(["a", "b"])
    assert b.all() == ["a", "b"]
    x.commit()
    b.publish("c")
    assert b.take(2) == ["x0", "x1"]
    w.commit()
    b.publish("d")
    assert b.take(2) == ["x2", "c"]
    assert b.take(2) == ["w0", "w1"]
    assert b.all(2) == ["w2", "d"]


def cut_between_late_and_fresh(b: Bench) -> None:
    """Late events are above and below the mark, and their window has fresh ones."""
    x, y = b.session(), b.session()
    b.number(y)
    b.publish("x0", conn=x)
    b.publish("a")
    b.publish("y0", conn=y)
    b.publish("x1", conn=x)
    assert b.take() == ["a"]
    b.publish("b")
    x.commit()
    y.commit()
    assert b.all(3) == ["x0", "y0", "x1", "b"]
    assert b.all() == []


def halves_with_late_ones(b: Bench) -> None:
    """Batches of a window with late events, each of another size."""
    for n in (1, 2, 3, 7):
        x, y = b.session(), b.session()
        b.number(y)
        b.stream.publish_many([f"x{i}" for i in range(4)], conn=x)
        b.stream.publish_many(["a", "b"])
        b.stream.publish_many(["y0", "y1"], conn=y)
        assert b.all(n) == ["a", "b"]
        y.commit()
        b.publish("c")
        x.commit()
        assert b.all(n) == ["x0", "x1", "x2", "x3", "y0", "y1", "c"]


def repeatable_read(b: Bench) -> None:
    """A transaction that sees what it saw at its first statement takes that, and publishes."""
    b.publish("before")
    mine = b.session()
    driver.set_session(mine, isolation_level="REPEATABLE READ")
    assert b.one(mine, "select 1") == 1
    b.publish("after")
    b.publish("own", conn=mine)
    assert b.take(conn=mine) == ["before"]
    assert b.take(conn=mine) == []
    b.publish("own too", conn=mine)
    mine.commit()
    assert b.all() == ["after", "own", "own too"]


def repeatable_read_too_late(b: Bench) -> None:
    """It does not take what was taken since its first statement."""
    b.publish(1)
    mine = b.session()
    driver.set_session(mine, isolation_level="REPEATABLE READ")
    assert b.one(mine, "select 1") == 1
    assert b.take() == [1]
    try:
        found = b.take(conn=mine)
    except driver.Error as error:
        assert "could not serialize" in str(error)
    else:
        assert found == []
    mine.rollback()
    assert b.all() == []


def idle(b: Bench) -> None:
    """A look that finds nothing writes nothing."""
    chooses = b.stream.subscribe("chooses", types=["x"])
    parted = b.stream.subscribe("parted", partitions=3)
    b.stream.publish_many([1, 2])
    assert b.all() == [1, 2]
    for reader in (b.reader, chooses, parted):
        for _ in range(2):
            b.take(reader=reader)
        mine = b.session()
        assert b.take(conn=mine, reader=reader) == []
        assert b.one(mine, "select pg_current_xact_id_if_assigned() is null")
        mine.rollback()


def filtered(b: Bench) -> None:
    """What is not wanted is passed when it is much, also where something that is wanted comes late."""
    chooses = b.stream.subscribe("chooses", types=["x", ""])
    late, later = b.session(), b.session()
    b.number(late)
    b.publish("later", type="x", conn=later)
    for _ in range(3):
        b.stream.publish_many(range(200), type="y")
    b.publish("late", conn=late)
    b.stream.publish_many(range(150), type="y")
    assert b.take(reader=chooses) == []
    assert b.one(b.session(), f"select max(mark) from {b.table('positions')} where subscription = 'chooses'") == 752
    late.commit()
    assert b.take(reader=chooses) == ["late"]
    later.commit()
    assert b.take(reader=chooses) == ["later"]
    mine = b.session()
    assert b.take(conn=mine, reader=chooses) == []
    assert b.one(mine, "select pg_current_xact_id_if_assigned() is null")


def filtered_and_cut(b: Bench) -> None:
    chooses = b.stream.subscribe("chooses", types=["x"])
    for i in range(3):
        b.stream.publish_many(range(120), type="y")
        b.stream.publish_many([f"{i} {j}" for j in range(3)], type="x")
    found: list[Any] = []
    while events := b.take(2, reader=chooses):
        found += events
    assert found == [f"{i} {j}" for i in range(3) for j in range(3)]


def own_that_are_not_wanted(b: Bench) -> None:
    """A transaction has published much that the subscription does not want, which is not passed before its commit."""
    chooses = b.stream.subscribe("chooses", types=["x"])
    mine = b.session()
    b.stream.publish_many(range(200), type="y", conn=mine)
    b.publish("own", type="x", conn=mine)
    with mine.cursor() as cursor:
        cursor.execute("set local statement_timeout = '20s'")
    assert b.take(conn=mine, reader=chooses) == []
    mine.commit()
    assert b.take(reader=chooses) == ["own"]


def left_while_others_go_on(b: Bench) -> None:
    """Several batches of a shared subscription are open: each comes again, whatever was taken since."""
    shared = b.stream.subscribe("shared", shared=True)
    b.stream.publish_many(range(5))
    batches = shared.batches(1, timeout=0)
    open = [next(batches) for _ in range(4)]
    open[2].done()
    for again in (0, 1, 3):
        open[again].release()
        batch = next(batches)
        assert [event.data for event in batch] == [again]
        batch.done()
    assert [event.data for event in next(batches)] == [4]


CASES = [
    above_xmax, above_xmax_at_the_end_of_a_window, in_xip, own_after, own_before, unknown_top, unknown_top_inside,
    subscribed_late, sought_late, id_first, late_and_above, rolled_back, two_at_once, overtaken, capped, savepoints,
    taken_in_a_savepoint, cut_inside_of_late_ones, cut_between_late_and_fresh, halves_with_late_ones, repeatable_read,
    repeatable_read_too_late, idle, filtered, filtered_and_cut, own_that_are_not_wanted,
    left_while_others_go_on,
]  # fmt: skip

WAYS = ["take", "block", "lease", "again"]
