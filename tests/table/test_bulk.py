"""Many jobs at once: put_many, load, get_many, batches, done and settle."""

from __future__ import annotations

import datetime as dt
import random
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
from psycopg2.extensions import make_dsn
from support import PATIENCE, Background, wait_until
from support.driver import driver
from support.kinds import ALL, WITH_PSYCOPG3, make_pq
from support.proxy import Proxy, cut_before

from pq import PQ, DecodeError, Discard, LeasedJob, LeaseLost, LeasesLost, NewJob, Queue, Retry
from pq._db import execute as _execute
from pq._queue import marks as _marks
from pq._table import Table
from pq._table import bulk as _bulk
from pq._table.lines import ROWS
from pq._times import NOW

Sql = Callable[..., list[tuple[Any, ...]]]
SECOND = dt.timedelta(seconds=1)

#: Texts that a format, or a client's encoding of it, can stumble upon.
ODD = [
    "",
    " ",
    "'",
    '"',
    "\\",
    "\\\\.",
    "\\.",
    "\\N",
    "\\x41",
    "{}",
    "{a,b}",
    "NULL",
    "null",
    "a\tb\nc\rd\x0be\x0c",
    "\u0000",
    "\\u0000",
    "%s %(queue)s %%",
    ":table",
    "ünïcödé 🍎",
    "\ud800",
    "$1 $$",
    "--",
    "x" * 70_000,
]

#: Data that is no text.
DATA = [None, True, 0, -1.5, 10**30, [], {}, [[]], {"": ""}, {"a": [1, {"b": None}]}]

#: All forms of a time, and how far from now.
FORMS: list[tuple[Any, dt.timedelta | dt.datetime]] = [
    ("90s", 90 * SECOND),
    ("1h30m", 5400 * SECOND),
    (dt.timedelta(days=-1, seconds=-5, microseconds=7), dt.timedelta(days=-1, seconds=-5, microseconds=7)),
    (dt.timedelta(days=40), dt.timedelta(days=40)),
    (dt.datetime(2001, 2, 3, 4, 5, 6, 789), dt.datetime(2001, 2, 3, 4, 5, 6, 789)),
    (dt.datetime(2001, 2, 3, tzinfo=dt.timezone(dt.timedelta(hours=2))), dt.datetime(2001, 2, 2, 22)),
    (dt.datetime(1, 1, 1), dt.datetime(1, 1, 1)),
    (dt.datetime(9999, 12, 31, 23, 59, 59, 999999), dt.datetime(9999, 12, 31, 23, 59, 59, 999999)),
]


def put_many(queue: Queue, items: Any, *times: Any) -> int:
    return len(queue.put_many(items, *times))


def load(queue: Queue, items: Any, *times: Any) -> int:
    return queue.load(items, *times)


WRITERS = pytest.mark.parametrize("write", [put_many, load])


def stored(queue: Queue) -> list[Any]:
    """The data of all jobs, in the order of their ids, as the queue decodes them."""
    rows = queue._db.execute("select data::text from queue where q_name = %(name)s order by id", {"name": queue.name})
    return [queue.loads(queue.decode(text)) for (text,) in rows]


def taken(queue: Queue, n: int = 10_000, **options: Any) -> list[Any]:
    return [job.data for job in queue.get_many(n, block=False, **options)]


def leased(queue: Queue, number: int) -> list[LeasedJob]:
    queue.put_many(range(number))
    return queue.get_many(number, lease="1h")


def asleep(pq: PQ, get: Callable[..., Any], *args: Any) -> Background:
    """A thread that waits for jobs of queue a, and has looked in vain."""
    thread = Background(get, *args, timeout=PATIENCE)
    channels = pq._table._room.queues
    wait_until(lambda: "a" in channels and channels["a"].sure, "sleep")
    return thread


# -- put_many and load


@pytest.mark.parametrize("kind", ALL)
@WRITERS
def test_each_kind_of_connection(dsn: str, kind: str, write: Any) -> None:
    with make_pq(kind, dsn) as pq:
        assert write(pq["a"], range(2500)) == 2500
        assert taken(pq["a"]) == list(range(2500))


def test_put_many_returns_the_ids_in_order(pq: PQ, sql: Sql) -> None:
    ids = pq["a"].put_many(iter(range(2 * ROWS + 1)))
    assert ids == sorted(ids)
    assert sql("select id, data from queue order by id") == list(zip(ids, range(2 * ROWS + 1), strict=True))


@WRITERS
def test_data_comes_back_as_it_was(pq: PQ, write: Any) -> None:
    write(pq["a"], ODD + DATA)
    assert stored(pq["a"]) == ODD + DATA
    assert taken(pq["a"]) == ODD + DATA


@WRITERS
def test_data_comes_back_from_an_encoder_that_escapes_nothing(dsn: str, write: Any) -> None:
    with PQ(dsn, encode=lambda data: '\t\n "' + data + '"\r\n') as pq:
        write(pq["a'\\\t\n{\"}"], ["ünïcödé 🍎" * 9000, "\\\\", "\\t"])
        assert taken(pq["a'\\\t\n{\"}"]) == ["ünïcödé 🍎" * 9000, "\\", "\t"]


@WRITERS
def test_pickles(dsn: str, write: Any) -> None:
    data = [dt.datetime(2000, 1, 1), {1, 2}, b"\x00\xff", NewJob, "\\"]
    with PQ(dsn, pickle_key=b"key") as pq:
        write(pq["a/pickle"], data)
        assert taken(pq["a/pickle"]) == data


@WRITERS
def test_nothing(pq: PQ, write: Any, sql: Sql) -> None:
    assert write(pq["a"], []) == 0
    assert sql("select * from queue") == []


@WRITERS
@pytest.mark.parametrize("own", [False, True], ids=["for all", "of each"])
@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_times_of_all_forms(dsn: str, sql: Sql, write: Any, own: bool, zone: str) -> None:
    with PQ(make_dsn(dsn, options=f"-c timezone={zone} -c intervalstyle=sql_standard")) as pq:
        queue = pq["a"]
        before = sql("select clock_timestamp() at time zone 'utc'")[0][0]
        for schedule_at, _ in FORMS:
            for expected_at, _ in FORMS:
                if own:
                    write(queue, [NewJob(0, schedule_at, expected_at)], "9d", "9d")
                else:
                    write(queue, [0], schedule_at, expected_at)
        after = sql("select clock_timestamp() at time zone 'utc'")[0][0]
    rows = sql("select schedule_at at time zone 'utc', expected_at at time zone 'utc' from queue order by id")
    meant = [(one, other) for _, one in FORMS for _, other in FORMS]
    for row, pair in zip(rows, meant, strict=True):
        for found, wanted in zip(row, pair, strict=True):
            if isinstance(wanted, dt.timedelta):
                assert before + wanted <= found <= after + wanted
            else:
                assert found == wanted


@WRITERS
def test_an_item_without_times_has_the_common_ones(pq: PQ, sql: Sql, write: Any) -> None:
    moments = [dt.datetime(year, 1, 1) for year in (2001, 2002, 2003)]
    common, schedule, expected = moments
    write(pq["a"], [1, NewJob(2), NewJob(3, schedule), NewJob(4, expected_at=expected)], common, common)
    assert sql("select schedule_at at time zone 'utc', expected_at at time zone 'utc' from queue order by id") == [
        (common, common),
        (common, common),
        (schedule, common),
        (common, expected),
    ]


@WRITERS
def test_the_longest_times_into_the_past_and_the_future(pq: PQ, write: Any) -> None:
    far = dt.timedelta(days=2_000_000)
    jobs = [NewJob("future", expected_at=far), NewJob("past", expected_at=-far), NewJob("now", expected_at="0s")]
    write(pq["a"], jobs)
    assert taken(pq["a"]) == ["past", "now", "future"]


@WRITERS
def test_relative_times_are_by_the_servers_clock(
    pq: PQ, sql: Sql, write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 0.0)
    write(pq["a"], [1], "1h")
    (row,) = sql("select schedule_at - now() between '59m' and '1h', due_at = schedule_at from queue")
    assert row == (True, True)
    assert taken(pq["a"]) == []
    sql("update queue set due_at = now()")
    assert taken(pq["a"]) == [1]


@WRITERS
@pytest.mark.parametrize(
    ("items", "error"),
    [
        ([1, NewJob(2, "soon")], ValueError),
        ([1, NewJob(2, expected_at=[5])], TypeError),  # type: ignore[arg-type]
        ([1, {2}], TypeError),
        ([1, float("nan")], ValueError),
        (5, TypeError),
    ],
    ids=repr,
)
def test_what_cannot_be_put(pq: PQ, sql: Sql, write: Any, items: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        write(pq["a"], items)
    assert sql("select * from queue") == []


class Breakdown(Exception):
    """Of an iterable."""


def breaking(number: int) -> Iterator[int]:
    yield from range(number)
    raise Breakdown


def with_a_bad_one_at_the_end(number: int) -> Iterator[Any]:
    yield from range(number)
    yield {1}


@pytest.mark.parametrize("number", [0, 5, 2 * ROWS + 5])
@pytest.mark.parametrize(("items", "error"), [(breaking, Breakdown), (with_a_bad_one_at_the_end, TypeError)])
@WRITERS
def test_all_or_none(pq: PQ, sql: Sql, write: Any, items: Any, number: int, error: Any) -> None:
    with pytest.raises(error):
        write(pq["a"], items(number))
    assert sql("select count(*) from queue") == [(0,)]
    assert write(pq["a"], range(number)) == number
    assert sql("select count(*) from queue") == [(number,)]


@WRITERS
def test_invalid_json_of_an_encoder_is_a_value_error(dsn: str, sql: Sql, write: Any) -> None:
    with PQ(dsn, encode=str) as pq:
        with pytest.raises(ValueError, match="did not return valid JSON") as raised:
            write(pq["a"], [*range(ROWS + 5), "secret"])
        assert "secret" not in str(raised.value)
        assert sql("select * from queue") == []
        assert write(pq["a"], [1]) == 1


@pytest.mark.parametrize("number", [5, 2 * ROWS + 5])
@WRITERS
def test_in_a_block_it_is_part_of_the_transaction(pq: PQ, sql: Sql, write: Any, number: int) -> None:
    queue = pq["a"]
    with pytest.raises(ZeroDivisionError), queue:
        write(queue, range(number))
        assert len(queue) == number
        assert sql("select count(*) from queue") == [(0,)]
        raise ZeroDivisionError
    assert sql("select count(*) from queue") == [(0,)]
    with queue:
        queue.put("before")
        with pytest.raises(Breakdown):
            write(queue, breaking(number))
        write(queue, ["after"])
    assert taken(queue) == ["before", "after"]


@WRITERS
def test_what_the_iteration_does_with_the_queue(pq: PQ, write: Any) -> None:
    """Moving jobs from one queue to another."""
    pq["a"].put_many(range(1500))

    def moved() -> Iterator[Any]:
        while (job := pq["a"].get(block=False)) is not None:
            yield job.data

    if write is load:  # the connection is busy with the COPY
        with pytest.raises(driver.InternalError):
            load(pq["b"], moved())
        assert (len(pq["a"]), len(pq["b"])) == (1500, 0)
    with pq["a"]:
        assert put_many(pq["b"], moved()) == 1500
    assert taken(pq["b"]) == list(range(1500))


@pytest.mark.parametrize(("write", "count", "most"), [(put_many, 200_000, 25e6), (load, 50_000, 5e6)])
def test_many_jobs_in_little_memory(pq: PQ, sql: Sql, write: Any, count: int, most: float) -> None:
    """Their ids are what remains of them; their data would be 130 bytes of JSON each, and 400 as Python has it."""

    def items() -> Iterator[Any]:
        for number in range(count):
            yield {"number": number, "text": "x" * 100}

    tracemalloc.start()
    try:
        assert write(pq["a"], items()) == count
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < most
    assert sql("select count(*), max((data->>'number')::int) from queue") == [(count, count - 1)]


def test_large_data_is_put_in_several_statements(pq: PQ, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    put_chunk = Queue._put_chunk

    def counting(queue: Queue, chunk: Any) -> Any:
        sizes.append(len(chunk))
        return put_chunk(queue, chunk)

    monkeypatch.setattr(Queue, "_put_chunk", counting)
    data = ["x" * 300_000] * 7
    ids = pq["a"].put_many(data)
    assert sizes == [4, 3]
    assert len(ids) == 7
    assert taken(pq["a"]) == data


@WRITERS
def test_it_wakes_those_that_wait(pq: PQ, dsn: str, write: Any) -> None:
    with PQ(dsn, poll_interval=3600) as patient, PQ(dsn) as other:
        for source in (patient, other):
            waiting = asleep(patient, patient["a"].get_many, 10)
            write(source["a"], [1, 2, 3])
            assert [job.data for job in waiting.result()] == [1, 2, 3]


PRODUCER = """
import sys
from pq import PQ
with PQ(sys.argv[1]) as pq:
    getattr(pq["a"], sys.argv[2])([1, 2, 3])
"""


@WRITERS
def test_it_wakes_those_that_wait_in_another_process(dsn: str, write: Any) -> None:
    with PQ(dsn, poll_interval=3600) as patient:
        waiting = asleep(patient, patient["a"].get)
        subprocess.run([sys.executable, "-c", PRODUCER, dsn, write.__name__], check=True, timeout=PATIENCE)
        assert waiting.result().data == 1


# -- get_many


@pytest.mark.parametrize("how", ["alone", "in a transaction", "leased"])
@pytest.mark.parametrize("n", [1, 7, 100, 1000])
def test_get_many_takes_them_in_order(pq: PQ, how: str, n: int) -> None:
    queue = pq["a"]
    jobs = [(random.randrange(5), number) for number in range(60)]
    for rank, number in jobs:
        due = random.choice([None, -SECOND])
        queue.put(number, due, None if rank == 4 else dt.datetime(2000 + rank, 1, 1))
    wanted = [number for _, number in sorted(jobs)]
    found: list[int] = []
    with queue if how == "in a transaction" else nullcontext():
        while batch := queue.get_many(n, block=False, lease="1h" if how == "leased" else None):
            assert len(batch) <= n
            assert all(isinstance(job, LeasedJob) == (how == "leased") for job in batch)
            found += [job.data for job in batch]
    assert found == wanted


def test_get_many_takes_what_is_below_the_mark_in_order(pq: PQ, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is ready above the low-water mark is not enough."""
    monkeypatch.setattr(_marks, "FORGET", 3600)
    queue = pq["a"]
    ids = queue.put_many(range(3000))
    jobs = queue.get_many(3000, lease="1h")
    queue.settle((job, Retry("0s")) for job in jobs if job.id in (ids[0], ids[2990], ids[2995]))
    queue.put("urgent", expected_at="0s")
    queue.put("last")
    assert queue._claims._marks.position.id > ids[0]
    assert taken(queue) == ["urgent", 0, 2990, 2995, "last"]


def test_get_many_keeps_what_it_has_when_the_connection_is_cut_before_it_has_enough(
    dsn: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_marks, "FORGET", 3600)
    with Proxy(dsn) as proxy, PQ(driver.connect(proxy.dsn)) as pq:
        queue = pq["a"]
        queue.put_many(range(3000))
        assert len(queue.get_many(2990, block=False)) == 2990
        cut = proxy.on("877", cut_before)  # the number still wanted
        assert [job.data for job in queue.get_many(887, block=False)] == list(range(2990, 3000))
        assert cut.is_set()
        assert "may or may not have happened" in caplog.text
        with pytest.raises(driver.OperationalError):
            queue.get(block=False)


@pytest.mark.parametrize(("n", "error"), [(0, ValueError), (-1, ValueError), ("2", TypeError), (True, TypeError)])
def test_how_many_must_be_a_positive_number(pq: PQ, n: Any, error: type[Exception]) -> None:
    pq["a"].put(1)
    with pytest.raises(error):
        pq["a"].get_many(n)
    with pytest.raises(error):
        pq["a"].batches(n)
    assert len(pq["a"]) == 1


def test_get_many_waits_for_the_first(pq: PQ) -> None:
    queue = pq["a"]
    assert queue.get_many(5, block=False) == []
    assert queue.get_many(5, timeout=0) == []
    assert queue.get_many(5, timeout=0.05) == []
    waiting = asleep(pq, queue.get_many, 5)
    queue.put("one")
    assert [job.data for job in waiting.result()] == ["one"]


def test_get_many_takes_each_job_once_for_many_threads(pq: PQ) -> None:
    queue = pq["a"]
    queue.put_many(range(3000))

    def drain() -> list[int]:
        found: list[int] = []
        while batch := taken(queue, 37):
            found += batch
        return found

    threads = [Background(drain) for _ in range(6)]
    assert sorted(number for thread in threads for number in thread.result()) == list(range(3000))


def spoil(sql: Sql, *ids: int) -> None:
    sql("update queue set data = '\"no pickle\"' where id = any(%s)", (list(ids),))


STATES = "select id, dequeued_at is not null, due_at is not null, attempts from queue order by id"


@pytest.mark.parametrize("in_transaction", [False, True])
def test_what_cannot_be_decoded_stays_and_the_others_are_returned(
    pq: PQ, sql: Sql, in_transaction: bool, caplog: pytest.LogCaptureFixture
) -> None:
    queue = pq["a/pickle"]
    ids = queue.put_many(range(5))
    spoil(sql, ids[1], ids[4])
    with queue if in_transaction else nullcontext():
        assert taken(queue) == [0, 2, 3]
    assert sql("select id from queue where dequeued_at is null") == [(ids[1],), (ids[4],)]
    told = [record.message for record in caplog.records if "cannot be decoded" in record.message]
    assert [text.split()[1] for text in told] == [str(ids[1]), str(ids[4])]
    assert all("left where it is" in text for text in told)


def test_if_none_can_be_decoded_that_is_an_error_and_the_others_are_told(
    pq: PQ, sql: Sql, caplog: pytest.LogCaptureFixture
) -> None:
    queue = pq["a/pickle"]
    ids = queue.put_many(range(3))
    spoil(sql, *ids)
    with pytest.raises(DecodeError) as raised:
        queue.get_many(10, block=False)
    assert raised.value.job_id == ids[0]
    assert [record.message.split()[1] for record in caplog.records] == [str(id) for id in ids[1:]]
    assert sql("select count(*) from queue where dequeued_at is null") == [(3,)]


def test_under_a_lease_what_cannot_be_decoded_is_a_failed_attempt(
    dsn: str, sql: Sql, caplog: pytest.LogCaptureFixture
) -> None:
    with PQ(dsn, max_retries=1, retry_in="0s") as pq:
        queue = pq["a/pickle"]
        ids = queue.put_many(range(3))
        spoil(sql, ids[1])
        assert taken(queue, lease="1h") == [0, 2]
        assert sql(STATES)[1] == (ids[1], False, False, 1)
        with pytest.raises(DecodeError, match="it is dead"):
            queue.get_many(10, block=False, lease="1h")
        assert [job.id for job in queue.dead] == [ids[1]]
        assert [record.message for record in caplog.records if "tried again" in record.message]


# -- batches


def test_a_batch_lingers_for_more(pq: PQ) -> None:
    queue = pq["a"]
    queue.put("first")
    batches = queue.batches(3, linger="10m", timeout=PATIENCE)
    waiting = Background(next, batches)
    wait_until(lambda: len(queue) == 0, "the first")
    queue.put("second")
    wait_until(lambda: len(queue) == 0, "the second")
    assert waiting.is_alive()
    queue.put_many(["third", "fourth"])
    assert [job.data for job in waiting.result()] == ["first", "second", "third"]
    assert len(queue) == 1


def test_a_batch_is_returned_after_the_linger_if_it_is_not_full(pq: PQ) -> None:
    queue = pq["a"]
    queue.put_many(range(5))
    batches = queue.batches(3, timeout=0.01)
    assert [[job.data for job in next(batches)] for _ in range(3)] == [[0, 1, 2], [3, 4], []]
    queue.put(5)
    assert [job.data for job in next(batches)] == [5]
    assert next(queue.batches(3, linger=dt.timedelta(0), timeout=0)) == []


def test_the_jobs_of_a_batch_can_be_leased_and_done(pq: PQ, sql: Sql) -> None:
    pq["a"].put_many(range(5))
    for batch in pq["a"].batches(2, linger="1ms", lease="1h", timeout=0):
        if not batch:
            break
        assert all(isinstance(job, LeasedJob) for job in batch)
        pq["a"].done(batch)
    assert sql("select count(*) from queue where due_at is null and dequeued_at is not null") == [(5,)]


@pytest.mark.parametrize(
    ("options", "error"),
    [({"linger": "soon"}, ValueError), ({"linger": True}, TypeError), ({"lease": "0s"}, ValueError)],
    ids=repr,
)
def test_bad_arguments_of_batches(pq: PQ, options: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        pq["a"].batches(2, **options)


def test_a_batch_is_not_lost_by_an_error_while_it_lingers(
    pq: PQ, sql: Sql, caplog: pytest.LogCaptureFixture
) -> None:
    queue = pq["a/pickle"]
    queue.put("first")
    batches = queue.batches(3, linger="10m", timeout=0)
    waiting = Background(next, batches)
    wait_until(lambda: len(queue) == 0, "the first")
    sql("insert into queue (q_name, data) values ('a', '\"no pickle\"')")
    assert [job.data for job in waiting.result()] == ["first"]
    assert "cannot be decoded" in caplog.text
    with pytest.raises(DecodeError):
        next(batches)
    sql("delete from queue where data::text like '%%no pickle%%'")
    queue.put("second")
    assert [job.data for job in queue.batches(1).__next__()] == ["second"]
    assert next(batches) == []


# -- done and settle


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What queues execute."""
    seen: list[str] = []
    execute = Table.execute

    def counting(table: Table, sql: str, params: Any = None, **options: Any) -> Any:
        seen.append(sql)
        return execute(table, sql, params, **options)

    monkeypatch.setattr(Table, "execute", counting)
    return seen


OUTCOMES = """
    select data, dequeued_at is not null as taken, due_at > now() + interval '1m' as later, attempts,
        error::json->>'message' from queue order by id
"""


def test_all_outcomes_in_one_statement(dsn: str, sql: Sql, statements: list[str]) -> None:
    with PQ(dsn, max_retries=1, retry_in="1h") as pq:
        jobs = leased(pq["a"], 5)
        statements.clear()
        errors = [None, ValueError("again"), Retry(), Retry("0s"), Discard("no")]
        pq["a"].settle(zip(jobs, errors, strict=True))
        assert len(statements) == 1
        assert sql(OUTCOMES) == [
            (0, True, None, 1, None),
            (1, False, True, 1, "again"),
            (2, False, True, 1, None),
            (3, False, None, 1, None),
            (4, True, None, 1, "no"),
        ]
        assert [job.settled for job in jobs] == [True] * 5
        assert [job.id for job in pq["a"].dead] == [jobs[4].id]
        (again,) = pq["a"].get_many(10, lease="1h", block=False)
        pq["a"].settle([(again, ValueError("at last"))])
        assert [job.error.message for job in pq["a"].dead] == ["no", "at last"]


def test_done_finishes_jobs_of_several_queues_in_one_statement(pq: PQ, sql: Sql, statements: list[str]) -> None:
    jobs = [job for name in "abc" for job in leased(pq[name], 3)]
    statements.clear()
    pq["x"].done(iter(jobs))
    assert len(statements) == 1
    assert sql("select count(*) from queue where dequeued_at is not null and due_at is null") == [(9,)]
    pq["a"].done([])
    assert len(statements) == 1


def test_more_than_a_thousand(pq: PQ, sql: Sql) -> None:
    jobs = leased(pq["a"], 2500)
    lost = [jobs[5], jobs[1005], jobs[2005]]
    for job in lost:
        job.release()
    with pytest.raises(LeasesLost) as raised:
        pq["a"].done(jobs)
    assert raised.value.job_ids == [job.id for job in lost]
    assert sql("select count(*) from queue where dequeued_at is not null and due_at is null") == [(2497,)]


def test_lost_leases_are_named_and_the_others_settled(pq: PQ, sql: Sql) -> None:
    jobs = [*leased(pq["a"], 3), *leased(pq["b"], 2)]
    jobs[1].done()
    jobs[4].release()
    with pytest.raises(LeasesLost, match=r"2 of the jobs are no longer held, .* in queue 'a'") as raised:
        pq["a"].settle((job, Retry("1h")) for job in jobs)
    error = raised.value
    assert isinstance(error, LeaseLost)
    assert (error.count, error.job_ids) == (2, [jobs[1].id, jobs[4].id])
    assert (error.job_id, error.queue, error.attempt) == (jobs[1].id, "a", 1)
    assert sql("select id from queue where schedule_at is not null order by id") == [
        (jobs[number].id,) for number in (0, 2, 3)
    ]
    assert [job.settled for job in jobs] == [True, True, True, True, True]


def test_a_job_can_stand_there_only_once(pq: PQ, sql: Sql) -> None:
    one, other = leased(pq["a"], 2)
    with pytest.raises(ValueError, match="only once"):
        pq["a"].settle([(one, None), (other, None), (one, ValueError())])
    assert sql("select count(*) from queue where due_at is not null") == [(2,)]


@pytest.mark.parametrize("committed", [True, False])
def test_in_a_block_they_are_settled_with_it(pq: PQ, sql: Sql, committed: bool) -> None:
    jobs = leased(pq["a"], 3)
    jobs[2].release()
    try:
        with pq["a"] as cursor:
            cursor.execute("create table effects ()")
            with pytest.raises(LeasesLost):
                pq["a"].done(jobs)
            assert [job.settled for job in jobs] == [None, None, True]
            assert sql("select count(*) from queue where due_at is not null") == [(2,)]
            if not committed:
                raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    assert sql("select to_regclass('effects') is not null") == [(committed,)]
    assert sql("select count(*) from queue where due_at is not null") == [(0 if committed else 2,)]
    if not committed:
        pq["a"].done(jobs[:2])


def test_what_is_to_be_tried_again_at_once_wakes_those_that_wait(dsn: str) -> None:
    with PQ(dsn, poll_interval=3600) as pq:
        jobs = leased(pq["a"], 2)
        waiting = asleep(pq, pq["a"].get)
        pq["a"].settle([(jobs[0], None), (jobs[1], Retry("0s"))])
        assert waiting.result().id == jobs[1].id


def test_a_settlement_cut_on_its_way_is_done_once_or_not_at_all(
    dsn: str, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_execute, "HOT", 0.0)  # on a quick machine the statement would follow that closely
    with Proxy(dsn) as proxy, PQ(proxy.dsn) as pq:
        jobs = leased(pq["a"], 3)
        proxy.on("outcome", cut_before)
        pq["a"].done(jobs)  # the connection is replaced: nothing was changed
        assert sql("select count(*) from queue where due_at is null and dequeued_at is not null") == [(3,)]


# -- the lines of COPY


def test_a_large_job_is_read_in_one_piece() -> None:
    """To cut it into pieces would copy what is left of it each time: the square of its size."""
    now = dt.datetime(2026, 1, 1)
    texts = ["1", "x" * 1_000_000, "2", "3"]
    lines = _bulk.JobLines("a", iter([_bulk.Row(text, NOW, NOW) for text in texts]), now)
    found = []
    while text := lines.read(100):
        found.append(text)
    written = [f"a\t{text}\t\\N\t\\N\t\\N\n" for text in texts]
    assert found == [written[0] + written[1], written[2] + written[3]]
    assert lines.count == 4


@pytest.mark.parametrize("kind", WITH_PSYCOPG3)
def test_jobs_larger_than_what_the_driver_asks_for_are_loaded(dsn: str, kind: str) -> None:
    with make_pq(kind, dsn) as pq:
        texts = ["x" * size for size in (1, 65_535, 65_536, 3_000_000, 1)]
        assert pq["a"].load(texts) == 5
        assert [job.data for job in pq["a"].get_many(5)] == texts


@pytest.mark.parametrize("call", ["put", "put_many", "update"])
def test_a_new_job_is_no_data(pq: PQ, call: str) -> None:
    queue = pq["a"]
    id = queue.put(0)
    calls = {
        "put": lambda: queue.put(NewJob(1)),
        "put_many": lambda: queue.put_many([NewJob(NewJob(1))]),
        "update": lambda: queue.update(id, NewJob(1)),
    }
    with pytest.raises(TypeError, match="give that to put_many or load"):
        calls[call]()
    assert [job.data for job in queue.list()] == [0]
