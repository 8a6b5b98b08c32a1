"""Taking a job: in which order, at what time, by whom, and at what cost."""

from __future__ import annotations

import datetime as dt
import heapq
import math
import random
import time
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from typing import Any

import pytest
from psycopg2.extensions import make_dsn, parse_dsn
from support import PATIENCE, Background, execute, wait_until
from support.driver import driver
from support.plan import filled_tables, nodes

from pq import PQ, Queue
from pq import sql as _sql
from pq._db.prepared import _prepared
from pq._queue import marks as _marks

#: How many due rows a claim looks at.
WINDOW = {"alone": 1001, "in a transaction": 100}

CLAIMS = pytest.mark.parametrize("how", list(WINDOW))


def take(queue: Queue, how: str) -> Any:
    """The data of the next job, or None; taken by a statement alone or in a transaction."""
    with nullcontext() if how == "alone" else queue:
        job = queue.get(block=False)
    return None if job is None else job.data


def drain(queue: Queue, how: str) -> list[Any]:
    found = []
    while (data := take(queue, how)) is not None:
        found.append(data)
    return found


# -- order


@CLAIMS
@pytest.mark.parametrize("due", [False, True], ids=["ready", "due"])
def test_the_earliest_expected_comes_first_then_those_without_then_the_lowest_id(pq: PQ, how: str, due: bool) -> None:
    queue = pq["a"]
    in_order = [dt.datetime(2000, 1, 1), dt.timedelta(hours=-1), "0s", "1h", dt.datetime(3000, 1, 1), None]
    jobs = [(random.randrange(len(in_order)), n) for n in range(40)]
    for rank, n in jobs:
        queue.put(n, dt.timedelta(seconds=-1) if due else None, in_order[rank])
    assert drain(queue, how) == [n for _, n in sorted(jobs)]


@CLAIMS
def test_a_scheduled_job_competes_by_its_expected_time_once_it_is_due(
    pq: PQ, sql: Callable[..., Any], how: str
) -> None:
    queue = pq["a"]
    queue.put("late", expected_at="2h")
    queue.put("none")
    for name, expected in [("due, first", "1h"), ("due, second", "3h"), ("due, last", None)]:
        queue.put(name, "1h", expected)
    queue.put("not due", "1h", dt.datetime(2000, 1, 1))
    sql("update queue set schedule_at = now() where data::text like '%due,%'")
    assert drain(queue, how) == ["due, first", "late", "due, second", "none", "due, last"]


@CLAIMS
def test_no_job_is_taken_before_its_time_nor_passed_over_after_it(pq: PQ, sql: Callable[..., Any], how: str) -> None:
    """One consumer, and jobs that become due while it works. All times are the server's."""
    queue = pq["a"]
    for n in range(80):
        at = random.choice([None, dt.timedelta(milliseconds=random.randrange(1000))])
        queue.put(n, at, random.choice([None, dt.timedelta(seconds=random.randrange(-9, 9))]))
    deadline = time.monotonic() + PATIENCE
    asked: dict[int, dt.datetime] = {}  # just before the claim that took it
    while len(asked) < 80:
        assert time.monotonic() < deadline
        ((now,),) = sql("select clock_timestamp()")
        data = take(queue, how)
        assert data not in asked
        if data is not None:
            asked[data] = now
    assert sql("select count(*) from queue where dequeued_at < schedule_at") == [(0,)]
    rows = sql("select data::text::int, schedule_at, dequeued_at from queue")
    order = [n for (n,) in sql("select data::text::int from queue order by expected_at, id")]
    passed_over = [
        (taken, better)
        for taken, _, taken_at in rows
        for better, due, better_at in rows
        if better_at > taken_at
        and (due is None or due <= asked[taken])
        and order.index(better) < order.index(taken)
    ]
    assert passed_over == []


@CLAIMS
def test_a_burst_of_jobs_due_at_once_is_in_order_as_far_as_it_is_looked_at(
    pq: PQ, sql: Callable[..., Any], how: str
) -> None:
    queue = pq["a"]
    sql(
        """
        insert into queue (q_name, data, schedule_at, expected_at)
        select 'a', to_json(i), now() - interval '1 hour' + i * interval '1 ms',
          '2030-01-01'::timestamptz + i * 7919 %% 5000 * interval '1 hour'
        from generate_series(0, 4999) as i
        """,
        (),
    )
    due = list(range(5000))
    looked_at: list[tuple[int, int]] = []
    for _ in range(20):
        # a claim of its own makes ready what it did not take, and so the next one looks further
        window = WINDOW[how] if how == "alone" else WINDOW[how] - len(looked_at)
        for n in due[:window]:
            heapq.heappush(looked_at, (n * 7919 % 5000, n))
        del due[:window]
        assert take(queue, how) == heapq.heappop(looked_at)[1]


# -- the low-water mark


def take_from_afar(pq: PQ, sql: Callable[..., Any]) -> Queue:
    """A queue whose first job was given back when the mark was past it."""
    queue = pq["a"]
    sql("insert into queue (q_name, data) select 'a', to_json(i) from generate_series(1, 1200) as i")
    for _ in range(1100):
        queue.get()
    sql("update queue set dequeued_at = null where id = (select min(id) from queue)")
    return queue


def test_what_is_ready_below_the_mark_is_found_before_the_queue_is_empty(
    pq: PQ, sql: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_marks, "FORGET", 1e9)
    monkeypatch.setattr(_marks, "SLOW_PAUSE", 0.0)  # whatever an exact look takes
    assert drain(take_from_afar(pq, sql), "alone") == [*range(1101, 1201), 1]


def test_what_is_ready_below_the_mark_is_found_in_time(
    pq: PQ, sql: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = take_from_afar(pq, sql)
    monkeypatch.setattr(_marks, "FORGET", 0.0)
    assert drain(queue, "alone") == [1, *range(1101, 1201)]


def test_a_prioritised_job_is_never_below_the_mark(
    pq: PQ, sql: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_marks, "FORGET", 1e9)
    queue = take_from_afar(pq, sql)
    sql("update queue set expected_at = now() where id = (select min(id) from queue)")
    assert take(queue, "alone") == 1


def test_taken_jobs_that_an_old_transaction_keeps_in_the_index_are_not_stepped_over_again(
    pq: PQ, sql: Callable[..., Any], connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_marks, "FORGET", 1e9)
    with connect().cursor() as old:
        old.execute("set transaction isolation level repeatable read; select 1")
        sql("insert into queue (q_name, data) select 'a', '1' from generate_series(1, 20000)")
        sql("update queue set dequeued_at = now() where id in (select id from queue order by id limit 19000)")
        pq["a"].get()
        statements = _sql.bound("claim.sql", '"queue"')

        def blocks(mark: int) -> int:
            params = {"queue": "a", "mark": mark, "limit": 1}
            (((plan,),),) = sql(f"explain (analyze, buffers, format json) {statements['claim']}", params)
            return int(plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"])

        assert blocks(pq["a"]._claims._marks.position.id) * 3 < blocks(0)


def test_a_claim_that_makes_others_ready_lowers_the_mark(
    pq: PQ, sql: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that they are taken at once, in order, by this process."""
    queue = pq["a"]
    due = queue.put_many(range(20), schedule_at="1h")
    queue.put_many(range(20, 5000))
    monkeypatch.setattr(_marks, "FORGET", 1e9)
    assert [job.data for job in queue.get_many(3000, block=False)] == list(range(20, 3020))
    sql("update queue set due_at = now(), schedule_at = now() where due_at is not null")
    assert [queue.get(block=False).id for _ in range(20)] == due  # type: ignore[union-attr]
    assert take(queue, "alone") == 3020


@CLAIMS
@pytest.mark.parametrize("kind", ["urgent", "plain"])
def test_a_slow_machine_hides_nothing(pq: PQ, monkeypatch: pytest.MonkeyPatch, kind: str, how: str) -> None:
    queue, times = pq["a"], {} if kind == "plain" else {"expected_at": "0s"}
    queue.put_many(range(3), **times)
    first = take(queue, how)
    marks = queue._claims._marks
    marks._exact_at, marks._slow_until = math.inf, math.inf  # as if exact looks were slow, and marks far ahead
    marks.position.id = 1000
    if kind == "urgent":
        marks.position.urgent = dt.datetime(9999, 1, 1, tzinfo=dt.timezone.utc)
    monkeypatch.setattr(_marks, "SLOW_TIMES", 1e9)  # this look is slow, too
    assert take(queue, how) == first + 1


def test_marks_that_help_stay_in_force(pq: PQ, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = pq["a"]
    queue.put_many(range(3))
    marks = queue._claims._marks
    marks._exact_at, marks._slow_until, marks._slow_took = math.inf, math.inf, math.inf
    marks.position.id = 1000
    assert queue.get(block=False) is None


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "urgent": {"expected_at": "0s"},
    "scheduled": {"schedule_at": "0s"},
    "leased": {"lease": "4s"},
}


@CLAIMS
@pytest.mark.parametrize("kind", list(KINDS))
def test_a_consumer_that_keeps_up_stays_fast_while_an_old_transaction_is_open(
    pq: PQ,
    sql: Callable[..., Any],
    connect: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    how: str,
) -> None:
    """Measured by the entries that a claim steps over: the pages of the table that it reads for them."""
    options = dict(KINDS[kind])
    lease = options.pop("lease", None)
    queue = pq["a"]
    sql("alter table queue set (autovacuum_enabled = off)")

    def pass_through(count: int) -> None:
        queue.put_many(range(count), **options)
        with nullcontext() if how == "alone" else queue:
            jobs = queue.get_many(count + 1, block=False, lease=lease)
            assert len(jobs) == count
            if lease:
                queue.done(jobs)

    with connect().cursor() as old:
        old.execute("set transaction isolation level repeatable read; select 1")
        for _ in range(12):
            pass_through(1000)
        if lease:  # else a claim would not come to what they have left in the index
            ((over,),) = sql("select clock_timestamp() + %s::interval", (lease,))
            wait_until(lambda: sql("select clock_timestamp() > %s", (over,)) == [(True,)], "the end of the leases")
        monkeypatch.setattr(_marks, "ID_MARGIN", 100)
        queue._claims._marks._exact_at = -1e9
        costly = read_by(pq, monkeypatch, lambda: take(queue, how))
        with monkeypatch.context() as patch:
            patch.setattr(_marks, "SLOW_TIMES", 0.0)  # each exact look is slow
            patch.setattr(_marks, "SLOW_SECONDS", 0.0)
            patch.setattr(_marks, "FORGET", 1e9)
            patch.setattr(_marks, "SLOW_PAUSE", 1e9)
            queue._claims._marks._exact_at = -1e9
            assert take(queue, how) is None
            for _ in range(3):
                pass_through(_marks.JOB_MARGIN)
            cheap = read_by(pq, monkeypatch, lambda: take(queue, how))
        assert cheap * 3 < costly, (cheap, costly)


def read_by(pq: PQ, monkeypatch: pytest.MonkeyPatch, call: Callable[[], Any]) -> int:
    """How many pages the last statement of a call reads that finds nothing."""
    found = []
    execute = pq._db.execute

    def explained(sql: str, params: Any = None, **options: Any) -> Any:
        if "skip locked" in sql:
            (((plan,),),) = execute(f"explain (analyze, buffers, format json) {sql}", params)
            found.append(plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"])
        return execute(sql, params, **options)

    with monkeypatch.context() as patch:
        patch.setattr(pq._db, "execute", explained)
        assert call() is None
    return int(found[-1])


def test_after_a_slow_exact_look_the_next_one_follows_within_a_second(
    pq: PQ, sql: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes back far behind the marks is found then, urgent, due, or neither."""
    queue, clock = pq["a"], Clock()
    monkeypatch.setattr(_marks, "time", clock)
    urgent, other = queue.put("urgent", expected_at="0s"), queue.put("other")
    assert len(queue.get_many(2)) == 2
    for times in ({"expected_at": "0s"}, {"schedule_at": "0s"}, {}):
        for _ in range(3):
            queue.put_many(range(_marks.ID_MARGIN), **times)
            assert len(queue.get_many(_marks.ID_MARGIN)) == _marks.ID_MARGIN
    marks = queue._claims._marks
    assert marks.position.urgent is not None
    assert marks.position.due is not None
    marks._slow_until, marks._slow_took = clock.now + 1.0, 1.0  # as after an exact look that took long
    marks._exact_at = clock.now
    sql("update queue set dequeued_at = null where id in (%s, %s)", (urgent, other))
    sql("insert into queue (id, q_name, data, schedule_at) values (0, 'a', '\"due\"', now() - interval '1 hour')")
    clock.now += 0.9
    assert take(queue, "alone") is None
    clock.now += 0.2
    assert drain(queue, "alone") == ["urgent", "due", "other"]


@pytest.mark.parametrize("first", [{"expected_at": "1h"}, {}], ids=["urgent", "other"])
def test_a_claim_during_which_others_were_made_ready_hides_none_of_them(
    pq: PQ, sql: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, first: dict[str, Any]
) -> None:
    """It began before, took what was behind them, and comes to its end after."""
    queue, marks = pq["a"], pq["a"]._claims._marks
    monkeypatch.setattr(_marks, "ID_MARGIN", 0)
    queue.put("made ready", schedule_at="1h", **first)
    queue.put_many(["taken", "left"], **({"expected_at": "2h"} if first else {}))
    execute = pq._db.execute

    def delayed(sql_text: str, *args: Any, **options: Any) -> Any:
        """The answer to the claim comes late."""
        found = execute(sql_text, *args, **options)
        if "skip locked" in sql_text:
            monkeypatch.undo()
            monkeypatch.setattr(_marks, "ID_MARGIN", 0)
            sql("update queue set due_at = now() where due_at is not null")
            queue.put("best", expected_at="0s")
            assert take(queue, "alone") == "best"
            position = marks.position  # as moved by claims that stepped over what this one had locked meanwhile
            position.id, position.seen_urgent = 10**6, dt.datetime(3000, 1, 1)
            position.follow(), position.follow()
        return found

    monkeypatch.setattr(pq._db, "execute", delayed)
    assert take(queue, "alone") == "taken"
    marks.position.follow(), marks.position.follow()
    marks._slow_until, marks._exact_at = math.inf, time.monotonic() + 1000  # no exact look
    assert drain(queue, "alone") == ["made ready", "left"]


class Clock:
    """In place of the module `time`, for the marks alone."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@CLAIMS
def test_rows_whose_ids_are_not_positive_are_taken(pq: PQ, sql: Callable[..., Any], how: str) -> None:
    queue = pq["a"]
    for id in (5, 0, -1, -(2**63), 2**63 - 1):
        sql("insert into queue (id, q_name, data) values (%s, 'a', %s)", (id, str(id)))
    assert queue.update(-1, -1) == 2
    assert drain(queue, how) == [-(2**63), -1, 0, 5, 2**63 - 1]


def test_one_statement_takes_a_thousand_jobs_at_most(pq: PQ) -> None:
    """So its cost is known to the planner, and its locks are few."""
    queue = pq["a"]
    queue.put_many(range(2500))
    assert [job.data for job in queue.get_many(10**30, block=False)] == list(range(2500))


# -- many consumers


@CLAIMS
@pytest.mark.parametrize("due", [False, True], ids=["ready", "due"])
def test_eight_threads_get_each_job_once(pq: PQ, sql: Callable[..., Any], how: str, due: bool) -> None:
    sql(
        """
        insert into queue (q_name, data, schedule_at, expected_at)
        select 'a', to_json(i), case when %s then now() - interval '1 hour' end,
          case when i %% 2 = 0 then now() + random() * interval '1 hour' end
        from generate_series(1, 3000) as i
        """,
        (due,),
    )
    threads = [Background(drain, pq["a"], how) for _ in range(8)]
    taken = [data for thread in threads for data in thread.result(patience=60)]
    # a thread that finds all rows locked by the others is done: the rest is for the last one
    taken += drain(pq["a"], how)
    assert sorted(taken) == list(range(1, 3001))


@pytest.mark.parametrize("due", [False, True], ids=["ready", "due"])
def test_a_transaction_hides_only_the_jobs_that_it_has_taken(pq: PQ, due: bool) -> None:
    queue = pq["a"]
    for n in range(3):
        queue.put(f"ready {n}")
        queue.put(f"due {n}", dt.timedelta(seconds=-1), "0s" if due else None)
    with queue:
        job = queue.get(block=False)
        assert job is not None
        assert job.data == ("due 0" if due else "ready 0")
        others = Background(drain, queue, "in a transaction").result()
        assert len(others) == 5
        assert job.data not in others


@CLAIMS
def test_a_transaction_that_takes_many_due_jobs_does_not_hide_those_behind(pq: PQ, how: str) -> None:
    queue = pq["a"]
    many = WINDOW["in a transaction"] + 20
    for n in range(many + 3):
        queue.put(n, dt.timedelta(seconds=n - 1000))
    with queue:
        assert [take(queue, "alone") for _ in range(many)] == list(range(many))
        assert Background(drain, queue, how).result() == [many, many + 1, many + 2]


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_a_get_of_its_own_does_not_fail_by_the_databases_isolation_level(dsn: str, isolation: str) -> None:
    execute(dsn, f"alter database {parse_dsn(dsn)['dbname']} set default_transaction_isolation = '{isolation}'")
    execute(dsn, "insert into queue (q_name, data) select 'a', to_json(i) from generate_series(1, 500) as i")
    with PQ(dsn) as pq:
        threads = [Background(drain, pq["a"], "alone") for _ in range(8)]
        taken = [data for thread in threads for data in thread.result(patience=60)]
        taken += drain(pq["a"], "alone")
    assert sorted(taken) == list(range(1, 501))


# -- whose clock


def test_relative_times_are_by_the_servers_clock(pq: PQ, sql: Callable[..., Any]) -> None:
    """A statement alone begins its transaction: were it another clock, the times would not agree to a microsecond."""
    pq["a"].put(1, schedule_at="5m", expected_at=dt.timedelta(days=-3))
    assert sql("select schedule_at - enqueued_at, expected_at - enqueued_at from queue") == [
        (dt.timedelta(minutes=5), dt.timedelta(days=-3))
    ]


def test_in_a_transaction_relative_times_count_from_the_put(pq: PQ, sql: Callable[..., Any]) -> None:
    with pq["a"] as cursor:
        cursor.execute("select clock_timestamp()")
        (before,) = cursor.fetchone()
        pq["a"].put(1, schedule_at="5m")
    ((at,),) = sql("select schedule_at from queue")
    assert before + dt.timedelta(minutes=5) < at


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe"])
def test_a_day_has_24_hours_in_any_time_zone(dsn: str, sql: Callable[..., Any], zone: str) -> None:
    with PQ(make_dsn(dsn, options=f"-c timezone={zone}")) as pq:
        for days in range(0, 365, 30):
            pq["a"].put(days, schedule_at=f"{days}d", expected_at=dt.timedelta(days=days))
        wrong = """
            select data::text from queue
            where schedule_at <> expected_at
              or extract(epoch from schedule_at) - extract(epoch from enqueued_at) <> data::text::int * 86400
        """
        assert sql(wrong) == []
        job = pq["a"].get(block=False)
        assert job is not None
        assert sql("select schedule_at at time zone 'utc' from queue where id = %s", (job.id,)) == [(job.schedule_at,)]


def test_what_becomes_due_during_a_long_transaction_is_got_in_it(pq: PQ) -> None:
    queue = pq["a"]
    with queue as cursor:
        cursor.execute("select 1")  # now() stands still from here on
        Background(queue.put, 1, dt.timedelta(milliseconds=200)).result()
        job = queue.get(timeout=PATIENCE)
        assert job is not None


# -- at what cost


FILLS = {
    # 100,000 finished, as many ready, 20,000 in the future; statistics up to date
    "known": """
        insert into known (q_name, data, dequeued_at) select 'a', '1', now() from generate_series(1, 100000);
        insert into known (q_name, data, expected_at)
          select 'a', '1', case when i % 2 = 0 then now() + random() * interval '1 day' end
          from generate_series(1, 100000) as i;
        insert into known (q_name, data, schedule_at)
          select 'a', '1', now() + interval '1 day' + i * interval '1 s' from generate_series(1, 20000) as i;
        analyze known;
    """,
    # many of them due
    "known_due": """
        insert into known_due (q_name, data, dequeued_at) select 'a', '1', now() from generate_series(1, 20000);
        insert into known_due (q_name, data, expected_at)
          select 'a', '1', case when i % 2 = 0 then now() + random() * interval '1 day' end
          from generate_series(1, 20000) as i;
        insert into known_due (q_name, data, schedule_at)
          select 'a', '1', now() - i * interval '1 s' from generate_series(1, 10000) as i;
        analyze known_due;
    """,
    # no statistics at all
    "unknown": """
        insert into unknown (q_name, data, expected_at)
          select 'a', '1', now() + random() * interval '1 day' from generate_series(1, 30000) as i;
        insert into unknown (q_name, data, schedule_at)
          select 'a', '1', now() - i * interval '1 s' from generate_series(1, 10000) as i;
    """,
    # statistics from a time when there were only other queues
    "outdated": """
        insert into outdated (q_name, data, expected_at)
          select 'other ' || i % 1000, '1', now() + random() * interval '1 day' from generate_series(1, 20000) as i;
        analyze outdated;
        insert into outdated (q_name, data, expected_at)
          select 'a', '1', now() + random() * interval '1 day' from generate_series(1, 30000) as i;
        insert into outdated (q_name, data, schedule_at)
          select 'a', '1', now() - i * interval '1 s' from generate_series(1, 10000) as i;
    """,
}


@pytest.fixture(scope="module")
def filled(server: str) -> Iterator[str]:
    """The DSN of a database with these tables."""
    with filled_tables(server, FILLS) as dsn:
        yield dsn


@pytest.mark.parametrize("limit", [1, 100])
@pytest.mark.parametrize("prepared", [False, True], ids=["", "generic plan"])
@pytest.mark.parametrize("statement", ["claim", "claim_in_transaction"])
@pytest.mark.parametrize("table", list(FILLS))
def test_a_claim_reads_the_heads_of_two_indexes_whatever_the_statistics(
    filled: str, table: str, statement: str, prepared: bool, limit: int
) -> None:
    query = _sql.bound("claim.sql", f'"{table}"')[statement]
    with closing(driver.connect(filled)) as conn, conn.cursor() as cursor:
        if prepared:
            _, prepare, query = _prepared(query)
            cursor.execute(f"set plan_cache_mode = force_generic_plan; {prepare}", {})
        params = {"queue": "a", "mark": 1, "limit": limit}
        cursor.execute(f"explain (analyze, buffers, format json) {query}", params)
        plan = cursor.fetchone()[0][0]["Plan"]
        conn.rollback()  # not later, as after a mere close: the next claim would meet these locks
    window = WINDOW["alone"] if statement == "claim" else WINDOW["in a transaction"]
    looked_at = 0 if table == "known" else window
    looked_at += 3 * limit  # ready ones, those of the two that are better, and the update
    indexes = {f"{table}_ready_index", f"{table}_due_index", f"{table}_pkey"}
    for node in nodes(plan):
        assert node["Node Type"] != "Seq Scan"
        assert node.get("Index Name") in {None, *indexes}
        if node["Node Type"] != "Bitmap Index Scan":  # that of the primary key counts what earlier tests rolled back
            assert node["Actual Rows"] * node["Actual Loops"] <= looked_at + 1, node
    # a promoted row costs a lookup by its id, a new version, and entries in both indexes
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 100 + 25 * looked_at
