"""Prepared statements: which there are, for how long, and that nothing is lost with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from support import execute
from support.driver import driver
from support.kinds import WITH_PSYCOPG3, make_pq
from support.proxy import Proxy

from pq import PQ
from pq._db import prepared as plans
from pq._db.prepared import LOSS_PAUSE, _prepared
from pq.errors import JobNotFound

Sql = Callable[..., list[tuple[Any, ...]]]


class Clock:
    """In place of the module `time`, for plans alone."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Stands still, so that what a slow machine does is repeated in time."""
    made = Clock()
    monkeypatch.setattr(plans, "time", made)
    return made


@pytest.fixture
def conn(connect: Callable[..., Any]) -> Any:
    made = connect()
    made.autocommit = True
    return made


@pytest.fixture
def pq(conn: Any) -> PQ:
    """On one connection, so that what is prepared can be seen."""
    return PQ(conn)


def prepared(conn: Any) -> set[str]:
    with conn.cursor() as cursor:
        cursor.execute("select name from pg_prepared_statements")
        return {name for (name,) in cursor.fetchall()}


def run(conn: Any, sql: str) -> None:
    with conn.cursor() as cursor:
        cursor.execute(sql)


@contextmanager
def closed(conn: Any) -> Iterator[None]:
    """What is executed inside is committed at once."""
    autocommit, conn.autocommit = conn.autocommit, True
    yield
    conn.autocommit = autocommit


def use(pq: PQ, name: str = "a", times: int = 3) -> None:
    """Each kind of statement that may be prepared."""
    queue = pq[name]
    for number in range(times):
        queue.put({"%": number})
        queue.put_many(["{", number])
        assert queue.get().data == {"%": number}  # type: ignore[union-attr]
        first, second = queue.get_many(2, lease="1m")
        assert (first.data, second.data) == ("{", number)
        first.done()
        queue.settle([(second, None)])
        assert queue.get_many(2, block=False) == []


def test_what_is_repeated_within_a_second_is_prepared(pq: PQ, conn: Any, clock: Clock) -> None:
    pq["a"].put(1)
    clock.now += plans.REPEAT + 0.1
    pq["a"].put(2)
    assert prepared(conn) == set()
    pq["a"].put(3)
    assert len(prepared(conn)) == 1
    assert [pq["a"].get().data for _ in range(3)] == [1, 2, 3]  # type: ignore[union-attr]
    assert len(prepared(conn)) == 2


def test_a_plan_lives_for_ten_seconds(dsn: str, clock: Clock) -> None:
    with Proxy(dsn) as proxy, closing(driver.connect(proxy.dsn)) as conn:
        conn.autocommit = True
        pq = PQ(conn)
        for _ in range(2):
            pq["a"].put(1)
        proxy.seen.clear()
        for _ in range(15):
            clock.now += 0.9 * plans.REPEAT
            pq["a"].put(1)
        assert [[part.split()[0] for part in text.split("; ")] for text in proxy.seen] == [
            *[["execute"]] * 11,
            ["deallocate", "prepare", "execute"],
            *[["execute"]] * 3,
        ]
        assert len(prepared(conn)) == 1
        assert len(pq["a"]) == 17


@pytest.mark.parametrize("kind", WITH_PSYCOPG3)
def test_all_statements_on_each_kind_of_connection(dsn: str, kind: str) -> None:
    with Proxy(dsn) as proxy, make_pq(kind, proxy.dsn) as pq:
        use(pq)
        assert sum("prepare " in text for text in proxy.seen) >= 5


def test_a_handful_of_statements_for_any_number_of_queues(pq: PQ, conn: Any) -> None:
    use(pq)
    names = prepared(conn)
    assert 5 <= len(names) <= 8
    assert all(name.startswith("pq_") for name in names)
    for number in range(3_000):
        pq[f"queue {number}"].put(number)
    for number in range(0, 3_000, 10):
        assert pq[f"queue {number}"].get().data == number  # type: ignore[union-attr]
    assert prepared(conn) >= names
    assert len(prepared(conn) - names) <= 1  # that heals keys, once in half a second


def test_pq_that_share_a_connection_share_what_is_prepared(dsn: str) -> None:
    with Proxy(dsn) as proxy, closing(driver.connect(proxy.dsn)) as conn:
        conn.autocommit = True
        first, second = PQ(conn), PQ(conn)
        for _ in range(3):
            first["a"].put(1)
            second["a"].put(1)
        assert sum("prepare " in text for text in proxy.seen) == 1
        assert len(first["a"]) == 6


LOSSES = ["discard all", "deallocate all", "deallocate prepare all"]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", ["connection", "autocommit connection"])
def test_it_goes_on_when_they_were_discarded(
    dsn: str, sql: Sql, loss: str, kind: str, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with make_pq(kind, dsn) as pq:
        conn = pq["a"].conn
        acts: dict[str, Callable[[], Any]] = {
            "put": lambda: pq["a"].put(1),
            "put_many": lambda: pq["a"].put_many([1, 2]),
            "get": lambda: pq["a"].get(),
            "get_many": lambda: pq["a"].get_many(1, lease="1h"),
            "done": lambda: pq["a"].done(pq["a"].get_many(1, lease="1h")),
        }
        for act in acts.values():
            act(), act()
            with closed(conn):
                assert prepared(conn)
                run(conn, loss)
            act()
            with closed(conn):
                assert not prepared(conn)  # it does without for a while
            clock.now += LOSS_PAUSE + 1
            act(), act()
            with closed(conn):
                assert prepared(conn)
    assert sql("select count(*), count(dequeued_at) from queue") == [(5 + 2 * 5, 15)]
    assert not caplog.records


def test_also_when_the_plan_was_to_be_renewed(pq: PQ, conn: Any, clock: Clock) -> None:
    for _ in range(13):
        pq["a"].put(1)
        clock.now += plans.REPEAT * 0.9
    run(conn, "deallocate all")
    pq["a"].put(1)
    assert len(pq["a"]) == 14
    assert prepared(conn) == set()


def test_the_applications_own_statements_are_left_alone(pq: PQ, conn: Any, clock: Clock) -> None:
    run(conn, "prepare mine as select 1")
    use(pq)
    for name in prepared(conn) - {"mine"}:
        run(conn, f"deallocate {name}")
    use(pq)
    clock.now += LOSS_PAUSE + 1
    use(pq)
    assert "mine" in prepared(conn)


def test_an_application_that_has_statements_of_these_names(pq: PQ, conn: Any, clock: Clock) -> None:
    """Such as a copy of pq of another version on the same connection."""
    name, prepare, _ = _prepared(pq["a"]._sql["put"])
    run(conn, prepare.replace("%%", "%"))
    for _ in range(3):
        pq["a"].put(1)
    assert prepared(conn) == {name}
    clock.now += LOSS_PAUSE + 1
    for _ in range(3):
        pq["a"].put(1)
    assert len(prepared(conn)) == 2
    assert len(pq["a"]) == 6


def test_nothing_is_prepared_in_a_transaction(pq: PQ, conn: Any) -> None:
    with pq["a"]:
        use(pq)
        assert prepared(conn) == set()
    conn.autocommit = False
    run(conn, "select 1")  # the application's
    for _ in range(3):
        run(conn, "select 1")
        pq["a"].put(1)
    assert prepared(conn) == set()
    conn.rollback()


def test_nothing_is_prepared_where_the_server_session_changes(
    pq: PQ, conn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a pooler, which shows another process id than the server; see test_pgbouncer."""
    monkeypatch.setattr(type(pq._db.driver), "backend_pid", lambda driver, conn: 0)
    use(pq)
    assert prepared(conn) == set()


def test_a_table_that_was_dropped_and_made_again(pq: PQ, conn: Any, clock: Clock) -> None:
    for _ in range(2):
        use(pq)
        run(conn, "drop table queue")
        with pytest.raises(driver.ProgrammingError, match=r"call create\(\)"):
            pq["a"].put(1)
        with pytest.raises(driver.ProgrammingError, match=r"call create\(\)"):
            pq["a"].get()
        pq.create()
        use(pq)
        clock.now += LOSS_PAUSE + 1


INDEXES = "select indexrelid::regclass::text from pg_index where indrelid = 'queue'::regclass and not indisprimary"


@pytest.mark.parametrize(
    "change",
    [
        "alter table queue alter column q_name type varchar(100)",
        "alter table queue alter column data type jsonb using data::jsonb",
        "alter table queue alter column attempts type bigint",
        "alter table queue alter column id type int",
        "alter table queue add column more text",
        "drop index",
        "set timezone to 'Asia/Tokyo'",
        "create schema other; set search_path to other, public",
    ],
)
def test_a_table_that_was_changed(pq: PQ, conn: Any, sql: Sql, change: str, clock: Clock) -> None:
    if "drop index" in change:
        change = "".join(f"drop index {name}; " for (name,) in sql(INDEXES))
    use(pq)
    assert len(prepared(conn)) >= 5
    run(conn, change)
    use(pq)
    clock.now += LOSS_PAUSE + 1
    use(pq)


def test_ids_of_a_smaller_type(pq: PQ, conn: Any) -> None:
    """The lowest mark of a claim is below all that such a column can hold."""
    run(conn, "alter table queue alter column id type int")
    use(pq)
    pq["a"]._claims._marks._exact_at = -math.inf  # a second later a claim begins at the lowest mark
    use(pq)
    assert len(prepared(conn)) >= 5
    for _ in range(2):
        with pytest.raises(JobNotFound):
            pq["a"].update(2**40, 1)


def test_a_statement_that_fails_leaves_the_next_one_alone(pq: PQ, conn: Any) -> None:
    queue = pq["a"]
    queue.encode = str  # type: ignore[method-assign]
    queue.put(1)
    for _ in range(2):
        with pytest.raises(ValueError, match="valid JSON"):
            queue.put("not JSON")
    for _ in range(2):
        queue.put(1)
    assert len(prepared(conn)) == 1
    assert len(queue) == 3


def test_lost_and_interrupted_connections_forget_what_was_theirs(dsn: str) -> None:
    with PQ(dsn) as pq:
        for _ in range(3):
            use(pq)
            execute(
                dsn,
                "select pg_terminate_backend(pid, 30000) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid()",
            )
        use(pq)


def test_a_plan_made_for_an_empty_table_is_not_kept_for_a_full_one(dsn: str, sql: Sql, clock: Clock) -> None:
    """The statement is planned anew although it is executed all the time."""
    with closing(driver.connect(dsn)) as conn:
        conn.autocommit = True
        queue = PQ(conn)["a"]
        for _ in range(10):
            assert queue.get_many(5, block=False) == []
        begun = made(conn)
        for _ in range(12):
            clock.now += plans.REPEAT * 0.9
            queue.get_many(5, block=False)
        assert made(conn) > begun


def made(conn: Any) -> Any:
    with conn.cursor() as cursor:
        cursor.execute("select max(prepare_time) from pg_prepared_statements")
        return cursor.fetchone()[0]
