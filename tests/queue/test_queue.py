"""Queues and jobs: data, names, order, times, what becomes of a row that cannot be decoded."""

from __future__ import annotations

import datetime as dt
import json
import pickle
import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
from support import Background, wait_until

from pq import PQ, DecodeError, Job, Queue
from pq._args import QUEUE_NAME_BYTES

Sql = Callable[..., list[tuple[Any, ...]]]
UTC = dt.timezone.utc
HOUR = dt.timedelta(hours=1)


def take(queue: Queue) -> Any:
    """The data of the next job, without waiting; "nothing" if there is none."""
    job = queue.get(block=False)
    return "nothing" if job is None else job.data


def waiters(sql: Sql) -> Any:
    """The gates that are held, one for each queue that is waited for."""
    held = "locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())"
    return sql(f"select * from pg_locks where {held}")


def text_of(value: Any) -> str:
    return ascii(value)[:25]


# -- data

DATA = [
    {"kind": "Cox"},
    {"z": 1, "a": {"y": 2, "b": 3}},
    [1, "zwei", None, True, False, 1.5, -0.0, 1e-300, [], {}],
    None,
    "",
    "text with \0 NUL",
    {"key with \0 NUL": "\0"},
    "lone \ud800 surrogate, \udc00 another",
    "…æøå!\U0001f600",
    "back\\slash 'quote' \"double\" %s %(x)s :word $1",
    10**99,
    -(10**100) + 1,
    [0.1, 1 / 3, 2**53 + 1],
    "x" * 5_000_000,
    list(range(700_000)),
]


@pytest.mark.parametrize("name", ["a", "a/pickle"])
def test_data_comes_back_as_it_was(pq: PQ, name: str) -> None:
    for data in DATA:
        pq[name].put(data)
        back = take(pq[name])
        assert back == data
        assert json.dumps(back) == json.dumps(data)  # the order of keys, -0.0, True and not 1


MOMENTS = [
    dt.datetime.min,
    dt.datetime(99, 12, 31, 23, 59, 59, 1),
    dt.datetime(1582, 10, 10),
    dt.datetime(1969, 12, 31, 23, 59, 59, 999999),
    dt.datetime(2026, 3, 29, 1, 30),
    dt.datetime(9999, 1, 1),
    dt.datetime.max,
]
ZONES = [dt.timezone(dt.timedelta(hours=5, minutes=45)), dt.timezone(-dt.timedelta(hours=11, seconds=1))]
AWARE = [moment.replace(tzinfo=zone) for moment in MOMENTS[1:-1] for zone in ZONES]
AWARE += [moment.replace(tzinfo=UTC) for moment in MOMENTS]


def test_datetimes_and_other_objects_are_pickled(pq: PQ) -> None:
    data = [MOMENTS, AWARE, dt.date.min, {1, 2}, (1, 2), b"\0\xff", {("tuple",): 1}, 1j]
    pq["a/pickle"].put(data)
    assert take(pq["a/pickle"]) == data


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Auckland", "America/St_Johns"])
def test_times_from_year_1_to_9999_are_kept(connect: Callable[..., Any], sql: Sql, zone: str) -> None:
    queue = PQ(connect(options=f"-c timezone={zone}"))["a"]
    put = {queue.put(1, schedule_at=moment, expected_at=moment): moment for moment in MOMENTS + AWARE}
    sql("update queue set due_at = now()")  # as if their time had come
    for _ in put:
        job = queue.get(block=False)
        assert job is not None
        moment = put[job.id]
        naive = moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)
        assert (job.schedule_at, job.expected_at) == (naive, naive)


@pytest.mark.parametrize("moment", ["infinity", "-infinity", "20000-01-01", "0044-03-15 BC"])
def test_times_that_python_does_not_know_are_clamped(pq: PQ, sql: Sql, moment: str) -> None:
    """Such a row, put by plain SQL, must not stop the queue."""
    sql(
        "insert into queue (q_name, data, enqueued_at, expected_at, schedule_at, due_at)"
        " values ('a', '1', %s, %s, %s, now())",
        [moment] * 3,
    )
    job = pq["a"].get(block=False)
    assert job is not None
    assert job.expected_at == job.schedule_at == job.enqueued_at
    assert job.enqueued_at in (dt.datetime.min, dt.datetime.max)


@pytest.mark.parametrize(
    ("spec", "delay"),
    [("90s", HOUR / 40), ("1h30m", 1.5 * HOUR), (dt.timedelta.resolution, dt.timedelta.resolution)],
    ids=str,
)
def test_relative_times_are_by_the_clock_of_the_server(pq: PQ, sql: Sql, spec: Any, delay: dt.timedelta) -> None:
    pq["a"].put(1, schedule_at=spec, expected_at=spec)
    # to the microsecond, which this process's clock could not know
    assert sql("select schedule_at - enqueued_at, expected_at - enqueued_at from queue") == [(delay, delay)]


def test_relative_times_are_from_the_put_and_not_from_the_start_of_the_transaction(pq: PQ) -> None:
    with pq["a"] as cursor:
        cursor.execute("select now(), pg_sleep(0.01)")
        began = cursor.fetchone()[0]
        pq["a"].put(1, expected_at="0s")
        job = pq["a"].get()
    assert job is not None
    assert job.expected_at is not None
    assert job.expected_at.replace(tzinfo=UTC) > began


# -- names

NAMES = [
    "orders/2024",
    "/",
    "a/",
    "/pickle",
    "//pickle",
    "a/pickle/",
    "a/Pickle",
    "a/b/c",
    " ",
    "a\nb",
    'double " quote',
    "it's; drop table queue --",
    "100%",
    "%s",
    "%(queue)s",
    "größer als ∞",
    "\U0001f600",
    "e\u0301",
    "\u202eabc",
    "\x7f",
    "\ufffe",
    "x" * 64,
    "€" * (QUEUE_NAME_BYTES // 3),
]


def test_any_name_is_a_name(pq: PQ, sql: Sql) -> None:
    for name in NAMES:
        getting = Background(pq[name].get, timeout=60)
        wait_until(lambda: waiters(sql), "a waiter")
        pq[name].put({"for": name})
        assert getting.result().data == {"for": name}
        pq[name].put(1, schedule_at="1h")
        assert name in pq
        wait_until(lambda: not waiters(sql), "the end of waiting")
    assert set(pq) == {pq[name].name for name in NAMES}
    assert len(list(pq)) == len(NAMES) - 1  # only //pickle is a pickle queue, and its name is /


@pytest.mark.parametrize(
    ("name", "stem", "data"),
    [("a/pickle", "a", {1}), ("a/b/pickle", "a/b", {1}), ("//pickle", "/", {1}), ("a/ pickle", "a/ pickle", 1)],
)
def test_pickle_is_a_suffix_and_no_part_of_the_name(pq: PQ, name: str, stem: str, data: Any) -> None:
    pq[name].put(data)
    assert pq[name].name == stem
    assert list(pq) == [stem]
    assert name in pq
    assert stem in pq
    assert take(pq[name]) == data


def test_names_that_look_alike_are_different_queues(pq: PQ) -> None:
    names = ["a", "A", "a ", "é", "e\u0301", "a/1", "a/2"]
    for name in names:
        pq[name].put(name)
    assert sorted(pq) == sorted(names)
    for name in names:
        assert len(pq[name]) == 1
        assert take(pq[name]) == name


# -- the PQ


def test_a_name_has_one_object(pq: PQ) -> None:
    queue = pq["a"]
    queue.timeout = 5
    del queue
    assert pq["a"].timeout == 5
    assert pq["a"] is pq["a"]
    assert pq["a"] is not pq["b"]


def test_threads_get_the_same_object(pq: PQ) -> None:
    start = threading.Barrier(8)

    def look() -> Queue:
        start.wait()
        return pq["a"]

    assert len({id(thread.result()) for thread in [Background(look) for _ in range(8)]}) == 1


def test_asking_for_a_name_does_not_make_rows_or_queues(pq: PQ) -> None:
    assert "a" not in pq
    _ = pq["b"]
    assert list(pq) == []
    assert all(name not in pq for name in ["", "a\0", "\ud800", None, 5, ["a"]])


def test_the_names_are_those_that_have_jobs(pq: PQ) -> None:
    for name in ["b", "a", "c"]:
        pq[name].put(1)
    pq["a"].get()
    pq["b"].get(lease="1h")
    pq["c"].clear()
    pq["c"].put(1, schedule_at="1h")
    assert list(pq) == ["b", "c"]
    assert [name in pq for name in "abc"] == [False, True, True]


def test_a_closed_pq_says_so(dsn: str) -> None:
    with PQ(dsn) as pq:
        queue = pq["a"]
        queue.put(1)
    with pytest.raises(Exception, match="closed"):
        queue.put(2)


def test_no_password_is_shown() -> None:
    pq = PQ("postgresql://ann:secret@localhost/example", table="Odd table")
    assert repr(pq) == '<pq.PQ "Odd table">'
    assert repr(pq["a"]) == "<pq.Queue 'a'>"
    assert pq["a"].conn is None


# -- order


def test_the_earliest_expected_is_first_none_last_then_the_lowest_id(pq: PQ) -> None:
    queue = pq["a"]
    puts = [("none 1", None), ("late", "2h"), ("none 2", None), ("soon 1", HOUR), ("past", -HOUR)]
    for data, expected_at in puts:
        queue.put(data, expected_at=expected_at)
    moment = dt.datetime(2500, 1, 1)
    queue.put("far 1", expected_at=moment)
    queue.put("far 2", expected_at=moment)
    order = ["past", "soon 1", "late", "far 1", "far 2", "none 1", "none 2", "nothing"]
    assert [take(queue) for _ in order] == order


@pytest.mark.parametrize("in_transaction", [False, True])
def test_a_scheduled_job_competes_by_its_expected_time_once_it_is_due(pq: PQ, in_transaction: bool) -> None:
    queue = pq["a"]
    queue.put("ready, 2", expected_at=dt.datetime(2001, 1, 2))
    queue.put("due, none", schedule_at=-2 * HOUR)
    queue.put("due, 1", schedule_at=-HOUR, expected_at=dt.datetime(2001, 1, 1))
    queue.put("ready, none")
    queue.put("due, 3", schedule_at=-2 * HOUR, expected_at=dt.datetime(2001, 1, 3))
    queue.put("not due, 0", schedule_at=HOUR, expected_at=dt.datetime(2000, 1, 1))
    order = ["due, 1", "ready, 2", "due, 3", "due, none", "ready, none", "nothing"]
    if in_transaction:
        with queue:
            assert [take(queue) for _ in order] == order
    else:
        assert [take(queue) for _ in order] == order
    assert queue.timeout == 1  # nothing is left over


def test_many_jobs_due_at_once_come_in_order(pq: PQ) -> None:
    queue = pq["a"]
    with queue:
        for i in range(300):
            queue.put(-i, schedule_at=dt.datetime(2001, 1, 1), expected_at=dt.datetime(2002, 1, 1) - i * HOUR)
    assert [take(queue) for _ in range(300)] == sorted(-i for i in range(300))


def test_a_job_is_not_got_before_its_time(pq: PQ, sql: Sql) -> None:
    queue = pq["a"]
    queue.put(1, schedule_at=dt.timedelta(milliseconds=300), expected_at=-HOUR)
    job = queue.get(timeout=30)
    assert job is not None
    assert sql("select dequeued_at >= schedule_at from queue") == [(True,)]


# -- counting, clearing, changing


def test_len_counts_what_could_be_got(pq: PQ) -> None:
    queue = pq["a"]
    assert len(queue) == 0
    assert bool(pq["a"]) is False  # as in 1.9.1: an empty queue is false
    for schedule_at in (None, None, -HOUR, HOUR):
        queue.put(1, schedule_at=schedule_at)
    pq["b"].put(1)
    assert len(queue) == 3
    queue.get()
    assert len(queue) == 2
    with queue:
        queue.get()
        assert len(queue) == 1


def test_clear_deletes_the_rows_of_this_queue_alone(pq: PQ, sql: Sql) -> None:
    for schedule_at in (None, None, HOUR):
        pq["a"].put(1, schedule_at=schedule_at)
    pq["a"].get()
    pq["b"].put(1)
    pq["a"].clear()
    assert sql("select q_name from queue") == [("b",)]


@pytest.mark.parametrize("data", [["longer", "than before"], "…", "\0", None], ids=text_of)
def test_update_replaces_the_data_and_returns_its_size(pq: PQ, sql: Sql, data: Any) -> None:
    queue = pq["a"]
    id = queue.put("before")
    size = queue.update(id, data)
    assert size == len(json.dumps(data))
    assert sql("select length(data::text) from queue") == [(size,)]
    job = queue.get()
    assert job is not None
    assert (job.data, job.size) == (data, size)


@pytest.mark.parametrize("name", ["a", "a/pickle"])
def test_assigning_to_data_writes_the_row_and_the_size(pq: PQ, sql: Sql, name: str) -> None:
    queue = pq[name]
    queue.put("short")
    job = queue.get()
    assert job is not None
    job.data = ["something", "longer"]
    assert job.data == ["something", "longer"]
    assert [(job.size,)] == sql("select length(data::text) from queue")
    sql("update queue set dequeued_at = null")
    assert take(queue) == ["something", "longer"]


def test_a_job_tells_its_times(pq: PQ, sql: Sql) -> None:
    pq["a"].put(1, -HOUR, "1h")
    job = pq["a"].get()
    assert job is not None
    naive = "enqueued_at at time zone 'utc', schedule_at at time zone 'utc', expected_at at time zone 'utc'"
    assert sql(f"select id, {naive} from queue") == [(job.id, job.enqueued_at, job.schedule_at, job.expected_at)]
    assert not hasattr(job, "__dict__")  # no attribute can be misspelt


def test_repr_of_a_job(pq: PQ) -> None:
    moment = dt.datetime(2014, 2, 21, 16, 22, 6)
    job = Job(pq["a"], 77709, {"secret": 1}, 1, moment, None, None)
    assert repr(job) == (
        '<pq.Job id=77709 size=1 enqueued_at="2014-02-21T16:22:06.000000Z" schedule_at=None expected_at=None>'
    )
    job = Job(pq["a"], 1, 1, 1, moment, moment, moment)
    assert repr(job).endswith(
        'schedule_at="2014-02-21T16:22:06.000000Z" expected_at="2014-02-21T16:22:06.000000Z">'
    )


# -- getting


@pytest.mark.parametrize("kwargs", [{"block": False}, {"block": False, "timeout": 30}, {"timeout": 0}], ids=str)
def test_a_get_that_does_not_wait(pq: PQ, sql: Sql, kwargs: dict[str, Any]) -> None:
    queue = pq["a"]
    queue.timeout = 3600  # this test would not end
    assert queue.get(**kwargs) is None
    assert not waiters(sql)
    queue.put(1)
    assert queue.get(**kwargs) is not None


def test_a_timeout_is_not_remembered(pq: PQ) -> None:
    queue = pq["a"]
    queue.timeout = 0.01
    queue.put(1)
    queue.get(timeout=3600)
    assert queue.get() is None
    assert queue.timeout == 0.01


def test_without_timeout_get_waits_as_long_as_it_takes(pq: PQ, sql: Sql) -> None:
    queue = pq["a"]
    queue.timeout = None
    getting = Background(queue.get)
    wait_until(lambda: waiters(sql), "a waiter")
    queue.put(1)
    assert getting.result().data == 1


def test_iteration_gives_none_and_goes_on(pq: PQ) -> None:
    queue = pq["a"]
    queue.timeout = 0.01
    iterator = iter(queue)
    assert next(iterator) is None
    queue.put(1)
    assert next(iterator).data == 1
    assert next(iterator) is None
    iterator.timeout = 0
    assert next(iterator) is None
    assert iter(iterator) is iterator


# -- what cannot be decoded

POISON = [
    ("a", "1" * 5000),
    ("a/pickle", '"no pickle"'),
    ("a/pickle", '""'),
    ("a/pickle", "5"),
    ("a/pickle", '{"a": 1}'),
    ("a/pickle", '"\u2026"'),
    ("a/pickle", json.dumps("cnowhere\nThing\n.")),
]


def insert(sql: Sql, text: str, **columns: Any) -> int:
    columns = {"q_name": "a", "data": text, **columns}
    names, values = ", ".join(columns), ", ".join(f"%({name})s" for name in columns)
    return int(sql(f"insert into queue ({names}) values ({values}) returning id", columns)[0][0])


@pytest.mark.parametrize(("name", "text"), POISON, ids=text_of)
def test_a_row_that_cannot_be_decoded_stays_as_it_is(pq: PQ, sql: Sql, name: str, text: str) -> None:
    id = insert(sql, text)
    before = sql("select queue::text from queue")
    for _ in range(2):
        with pytest.raises(DecodeError, match=f"{id}") as caught:
            pq[name].get()
        assert (caught.value.job_id, caught.value.queue) == (id, "a")
        assert caught.value.__cause__ is not None
        assert type(caught.value.__cause__).__name__ in caught.value.reason
        assert sql("select queue::text from queue") == before
        assert len(pq[name]) == 1


@pytest.mark.parametrize("columns", [{"expected_at": "2001-01-01"}, {"schedule_at": "2001-01-01"}, {}], ids=str)
def test_it_keeps_its_place(pq: PQ, sql: Sql, columns: dict[str, Any]) -> None:
    id = insert(sql, "5", **columns)
    pq["a/pickle"].put("behind it")
    for _ in range(2):
        with pytest.raises(DecodeError) as caught:
            pq["a/pickle"].get()
        assert caught.value.job_id == id
    assert sql("select dequeued_at, q_name, data::text from queue where id = %s", (id,)) == [(None, "a", "5")]
    assert take(pq["a"]) == 5  # the right queue can read it


def test_it_can_be_repaired_by_update(pq: PQ, sql: Sql) -> None:
    insert(sql, "5")
    queue = pq["a/pickle"]
    with pytest.raises(DecodeError) as caught:
        queue.get()
    queue.update(caught.value.job_id, {"repaired"})
    assert take(queue) == {"repaired"}


def test_in_a_transaction_it_stays_too_and_the_rest_is_committed(pq: PQ, sql: Sql) -> None:
    id = insert(sql, "5")
    queue = pq["a/pickle"]
    with queue:
        pq["done"].put("before")
        with pytest.raises(DecodeError) as caught:
            queue.get()
        assert caught.value.job_id == id
        pq["done"].put("after")
    assert len(pq["done"]) == 2
    assert sql("select dequeued_at from queue where id = %s", (id,)) == [(None,)]


def test_a_decoder_of_ones_own_may_fail_in_any_way(dsn: str) -> None:
    def decode(text: str) -> Any:
        raise ZeroDivisionError

    with PQ(dsn, decode=decode) as broken, PQ(dsn) as pq:
        id = broken["a"].put(1)
        with pytest.raises(DecodeError, match="ZeroDivisionError") as caught:
            broken["a"].get()
        assert caught.value.job_id == id
        assert take(pq["a"]) == 1


@pytest.mark.parametrize("in_transaction", [False, True])
def test_a_job_whose_decoding_is_interrupted_stays(dsn: str, in_transaction: bool) -> None:
    def decode(text: str) -> Any:
        raise KeyboardInterrupt

    with PQ(dsn, decode=decode) as broken, PQ(dsn) as pq:
        broken["a"].put(1)
        with broken["a"] if in_transaction else nullcontext(), pytest.raises(KeyboardInterrupt):
            broken["a"].get()
        assert take(pq["a"]) == 1


def test_errors_survive_being_sent_to_another_process(pq: PQ, sql: Sql) -> None:
    insert(sql, "5")
    with pytest.raises(DecodeError) as caught:
        pq["a/pickle"].get()
    sent = pickle.loads(pickle.dumps(caught.value))
    assert (str(sent), sent.job_id, sent.queue) == (str(caught.value), caught.value.job_id, "a")


# -- signed pickles

KEYS = {"old": b"old key", "new": b"new key", "both": [b"new key", b"old key"], "none": None}


@pytest.mark.parametrize(
    ("put_with", "got_with"),
    [("old", "old"), ("old", "both"), ("both", "new"), ("both", "both"), ("old", "none"), ("none", "none")],
)
def test_pickles_that_are_accepted(dsn: str, put_with: str, got_with: str) -> None:
    with PQ(dsn, pickle_key=KEYS[put_with]) as producer, PQ(dsn, pickle_key=KEYS[got_with]) as consumer:
        producer["a/pickle"].put({1, "\ud800", "…"})
        assert take(consumer["a/pickle"]) == {1, "\ud800", "…"}


@pytest.mark.parametrize(
    ("put_with", "got_with", "reason"),
    [("none", "old", "not signed"), ("old", "new", "does not match"), ("both", "old", "does not match")],
)
def test_pickles_that_are_refused_stay(dsn: str, put_with: str, got_with: str, reason: str) -> None:
    with PQ(dsn, pickle_key=KEYS[put_with]) as producer, PQ(dsn, pickle_key=KEYS[got_with]) as consumer:
        id = producer["a/pickle"].put(1)
        with pytest.raises(DecodeError, match=reason) as caught:
            consumer["a/pickle"].get()
        assert caught.value.job_id == id
        assert take(producer["a/pickle"]) == 1


def test_a_signed_pickle_moved_to_another_queue_is_refused(dsn: str, sql: Sql) -> None:
    with PQ(dsn, pickle_key=b"key") as pq:
        pq["a/pickle"].put(1)
        sql("update queue set q_name = 'b'")
        with pytest.raises(DecodeError, match="does not match"):
            pq["b/pickle"].get()
        sql("update queue set q_name = 'a'")
        assert take(pq["a/pickle"]) == 1


def test_a_key_changes_nothing_for_json(dsn: str, sql: Sql) -> None:
    with PQ(dsn, pickle_key=b"key") as pq:
        pq["a"].put(1)
        assert sql("select data::text from queue") == [("1",)]


# -- options


def test_a_queue_by_itself(dsn: str, connect: Callable[..., Any]) -> None:
    queue = Queue("a/pickle", conn=connect(), timeout=0.01)
    with queue as cursor:
        queue.put({1})
        cursor.execute("select count(*) from %s", (queue.table,))
        assert cursor.fetchone() == (1,)
    assert take(queue) == {1}
    assert queue.get() is None
    queue.close()
    by_dsn = Queue("a", dsn)
    by_dsn.put(1)
    by_dsn.close()
    with PQ(dsn) as pq:
        assert take(pq["a"]) == 1


def test_the_options_of_a_pq_are_those_of_its_queues(dsn: str) -> None:
    converters = {"hex": (hex, lambda text: int(text, 16))}
    with PQ(dsn, timeout=0.02, converters=converters, encode=json.dumps, decode=json.loads) as pq:
        pq["a/hex"].put(255)
        assert take(pq["a"]) == "0xff"
        assert pq["a"].timeout == 0.02
        assert Queue.timeout == 1
        assert pq["a/pickle"].name == "a/pickle"  # no conversion of these any more


def test_all_queues_of_a_pq_share_its_connections(dsn: str, sql: Sql) -> None:
    with PQ(dsn, max_connections=1) as pq:
        with pq["a"]:
            pq["b"].put(1)
            assert len(pq["c"]) == 0  # with another connection this would wait for ever
            assert "b" in pq
        assert len(pq["b"]) == 1
