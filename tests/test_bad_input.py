"""Bad input is refused before anything is sent: the error names the value, no row changes, the connection is usable."""

from __future__ import annotations

import datetime as dt
import json
import pickle
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from support import execute
from support.driver import driver

import pq.tasks
from pq import PQ, JobNotFound, Queue, TableMissing

NAN, INFINITY = float("nan"), float("inf")
Call = Callable[[PQ], Any]
Sql = Callable[..., list[tuple[Any, ...]]]


class Untouched:
    """A PQ on a connection of the application's; `check` tells whether anything was done with it."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.conn = driver.connect(dsn)
        self.conn.autocommit = True
        self.pq = PQ(self.conn)
        self.pq["a"].clear()
        self.pq["a"].put("as it was")
        self.rows = self.table()
        self.mark()

    def mark(self) -> None:
        with self.conn.cursor() as cursor:
            cursor.execute("select 'nothing was sent after this'")

    def table(self) -> Any:
        return execute(self.dsn, "select queue::text from queue order by id")

    def check(self) -> None:
        activity = "select query, state from pg_stat_activity where pid = %s"
        last = execute(self.dsn, activity, (driver.pid(self.conn),))
        assert last == [("select 'nothing was sent after this'", "idle")]
        assert self.table() == self.rows
        job = self.pq["a"].get(block=False)
        assert job is not None
        assert job.data == "as it was"


@pytest.fixture
def untouched(shared_dsn: str) -> Iterator[Untouched]:
    made = Untouched(shared_dsn)
    with closing(made.conn):
        yield made
        made.check()


def refused(call: Callable[[], Any], error: type[Exception], *words: str) -> None:
    """The call raises exactly this error, with these words in its message."""
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    for word in words:
        assert word in str(caught.value)


# -- names


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("", ValueError, ["queue name", "empty"]),
        ("a\0b", ValueError, ["queue name", "NUL", r"'a\x00b'"]),
        ("a\ud800", ValueError, ["queue name", "lone surrogate", r"'a\ud800'"]),
        (None, TypeError, ["queue name", "str, not NoneType: None"]),
        (5, TypeError, ["queue name", "str, not int: 5"]),
        (b"a", TypeError, ["queue name", "str, not bytes: b'a'"]),
        (["a"], TypeError, ["queue name", "str, not list: ['a']"]),
        ("x" * 2677, ValueError, ["queue name", "'xxxx", "2677 bytes", "2676"]),
        ("é" * 1339, ValueError, ["queue name", "2678 bytes", "2676"]),
        ("x" * 2677 + "/text", ValueError, ["queue name", "2677 bytes", "2676"]),
    ],
)
def test_queue_names(untouched: Untouched, name: Any, error: type[Exception], words: list[str]) -> None:
    refused(lambda: untouched.pq[name], error, *words)
    refused(lambda: Queue(name, conn=untouched.conn), error, *words)
    assert name not in untouched.pq


@pytest.mark.parametrize("kind", ["table", "schema"])
@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("", ValueError, ["empty"]),
        ("a\0b", ValueError, ["NUL", r"'a\x00b'"]),
        ("a\ud800", ValueError, ["lone surrogate", r"'a\ud800'"]),
        ("x" * 64, ValueError, ["x" * 64, "63 bytes"]),
        ("é" * 32, ValueError, ["é" * 32, "63 bytes"]),
        (5, TypeError, ["str, not int: 5"]),
    ],
)
def test_names_of_table_and_schema(
    untouched: Untouched, kind: str, name: Any, error: type[Exception], words: list[str]
) -> None:
    refused(lambda: PQ(untouched.conn, **{kind: name}), error, kind, *words)
    refused(lambda: Queue("a", conn=untouched.conn, **{kind: name}), error, kind, *words)


@pytest.mark.parametrize("dotted", ["x" * 64 + ".queue", "app." + "x" * 64])
def test_both_halves_of_a_dotted_table_are_checked(untouched: Untouched, dotted: str) -> None:
    refused(lambda: PQ(untouched.conn, table=dotted), ValueError, "x" * 64, "63 bytes")


# -- what PQ is given


@pytest.mark.parametrize("conn", [5, b"dbname=a", object(), ["dbname=a"]])
def test_neither_a_connection_nor_a_dsn(conn: Any) -> None:
    refused(lambda: PQ(conn), TypeError, f"not {type(conn).__name__}")
    refused(lambda: PQ(pool=conn), TypeError, f"not {type(conn).__name__}")


def test_a_misspelt_option(untouched: Untouched) -> None:
    refused(lambda: PQ(untouched.conn, timout=5)["a"], TypeError, "timout")
    refused(lambda: Queue("a", conn=untouched.conn, timout=5), TypeError, "timout")


@pytest.mark.parametrize(
    "options",
    [{"max_connections": 0}, {"max_connections": -1}, {"poll_interval": 0}, {"poll_interval": -1.5}],
    ids=str,
)
def test_numbers_out_of_range(untouched: Untouched, options: dict[str, Any]) -> None:
    ((option, value),) = options.items()
    refused(lambda: PQ(untouched.dsn, **options), ValueError, option, repr(value))


@pytest.mark.parametrize("key", ["text", b"", [], [b"good", b""], [b"good", "text"], 5, {b"good": 1}])
def test_pickle_keys(untouched: Untouched, key: Any) -> None:
    refused(lambda: PQ(untouched.conn, pickle_key=key), TypeError, "pickle_key", "bytes")
    refused(lambda: Queue("a/pickle", conn=untouched.conn, pickle_key=key), TypeError, "pickle_key", "bytes")


# -- text and sizes

WRITES: list[Callable[[Queue, Any], Any]] = [
    lambda queue, data: queue.put(data),
    lambda queue, data: queue.put_many([data]),
    lambda queue, data: queue.update(1, data),
]


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("data", [None, 5, b"a", ["a"], {"a": 1}], ids=repr)
def test_what_is_no_text(untouched: Untouched, write: Callable[[Queue, Any], Any], data: Any) -> None:
    refused(lambda: write(untouched.pq["a/text"], data), TypeError, "str", f"not {type(data).__name__}: {data!r}")


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize(
    ("name", "data", "size"),
    [("a", "x" * 19, 21), ("a", ["x" * 20], 24), ("a/text", "é" * 4, 26), ("a/pickle", "x" * 30, 40)],
)
def test_what_is_too_large(
    untouched: Untouched, write: Callable[[Queue, Any], Any], name: str, data: Any, size: int
) -> None:
    queue = PQ(untouched.conn, max_size=20)[name]
    refused(lambda: write(queue, data), ValueError, f"{size} bytes", "max_size of 20")


@pytest.mark.parametrize(
    ("size", "error"), [(0, ValueError), (-1, ValueError), ("1", TypeError), (1.5, TypeError), (True, TypeError)]
)
def test_max_size_itself(untouched: Untouched, size: Any, error: type[Exception]) -> None:
    refused(lambda: PQ(untouched.conn, max_size=size)["a"], error, "max_size")


# -- times

FORM = "'30s', '5m', '2h', '1d' or '1h30m'"
TIMES = [
    *[(text, ValueError, [repr(text), FORM]) for text in ["5months", "5us", "-5m", "5 m", "٥s", "5m\n", ""]],
    ("m", ValueError, ["'m'", FORM]),
    ("1.5h", ValueError, ["'1.5h'", FORM]),
    ("9999999999d", ValueError, ["out of range", "9999999999d"]),
    ("2000001d", ValueError, ["out of range", "2000001d"]),
    ("9" * 5000 + "s", ValueError, ["out of range", "999"]),
    (dt.timedelta.max, ValueError, ["out of range", "999999999 days"]),
    (dt.timedelta.min, ValueError, ["out of range", "-999999999 days"]),
    (dt.datetime(1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1))), ValueError, ["out of range", "0001-01-01"]),
    (float("nan"), ValueError, ["out of range", "nan"]),
    (float("inf"), ValueError, ["out of range", "inf"]),
    (10**400, ValueError, ["out of range", "inf"]),
    (-(10**12), ValueError, ["out of range", "-1000000000000"]),
    ("5", ValueError, ["'5'", FORM]),
    (True, TypeError, ["str, timedelta or datetime, not bool: True"]),
    (dt.date(2030, 1, 2), TypeError, ["str, timedelta or datetime, not date: datetime.date(2030, 1, 2)"]),
    (dt.time(1, 2), TypeError, ["str, timedelta or datetime, not time"]),
    (b"5m", TypeError, ["str, timedelta or datetime, not bytes: b'5m'"]),
]


@pytest.mark.parametrize(("spec", "error", "words"), TIMES, ids=lambda value: repr(value)[:20] if value else "empty")
def test_times(untouched: Untouched, spec: Any, error: type[Exception], words: list[str]) -> None:
    queue = untouched.pq["a"]
    refused(lambda: queue.put(1, schedule_at=spec), error, "schedule_at", *words)
    refused(lambda: queue.put(1, expected_at=spec), error, "expected_at", *words)
    refused(lambda: queue.load([1], schedule_at=spec), error, "schedule_at", *words)
    refused(lambda: queue.put_many([1], expected_at=spec), error, "expected_at", *words)
    task_queue = pq.tasks.PQ(untouched.conn)["a"]
    refused(lambda: task_queue.task(schedule_at=spec), error, "schedule_at", *words)
    refused(lambda: task_queue.task(expected_at=spec), error, "expected_at", *words)


# -- data


def each_way_to_write(queue: Queue, job_id: int, data: Any) -> list[Callable[[], Any]]:
    """Put, update, assign."""
    job = pq.Job(queue, job_id, None, 4, dt.datetime(2030, 1, 1), None, None)
    return [lambda: queue.put(data), lambda: queue.update(job_id, data), lambda: setattr(job, "data", data)]


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (NAN, "NaN"),
        ([1, {"deep": [INFINITY]}], "Infinity"),
        ({"a": -INFINITY}, "-Infinity"),
        ({NAN: 1}, ""),
    ],
    ids=str,
)
def test_data_that_is_no_json(untouched: Untouched, data: Any, value: str) -> None:
    for write in each_way_to_write(untouched.pq["a"], 1, data):
        refused(write, ValueError, value, "not JSON compliant")


@pytest.mark.parametrize("data", [{1, 2}, b"bytes", object(), dt.datetime(2030, 1, 1), {(1, 2): 3}], ids=type)
def test_data_that_json_refuses_is_refused_in_its_words(untouched: Untouched, data: Any) -> None:
    with pytest.raises(TypeError) as json_says:
        json.dumps(data)
    for write in each_way_to_write(untouched.pq["a"], 1, data):
        refused(write, TypeError, str(json_says.value))


def test_data_that_pickle_refuses(untouched: Untouched) -> None:
    for write in each_way_to_write(untouched.pq["a/pickle"], 1, lambda: None):
        with pytest.raises(Exception, match="lambda"):
            write()


def test_an_encoder_that_returns_no_json(untouched: Untouched) -> None:
    """The server finds that out, but its message would quote the data."""
    with pytest.raises(ValueError, match="did not return valid JSON") as caught:
        PQ(untouched.conn, encode=lambda data: "{secret")["a"].put(1)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert untouched.table() == untouched.rows
    untouched.mark()


# -- timeouts


@pytest.mark.parametrize(
    ("timeout", "error", "words"),
    [
        (-1, ValueError, ["non-negative", "-1"]),
        (-0.001, ValueError, ["non-negative", "-0.001"]),
        (-INFINITY, ValueError, ["non-negative", "-inf"]),
        (NAN, ValueError, ["non-negative", "nan"]),
        pytest.param(10**400, ValueError, ["out of range", "10000"], id="huge"),
        pytest.param(Fraction(10**400), ValueError, ["out of range", "Fraction(1000"], id="a huge fraction"),
        ("1", ValueError, ["'1'", "'30s'"]),
        ("-1s", ValueError, ["'-1s'", "'30s'"]),
        (dt.timedelta(seconds=-1), ValueError, ["negative"]),
        (True, TypeError, ["number", "not bool: True"]),
        (1j, TypeError, ["number", "not complex"]),
    ],
    ids=str,
)
def test_timeouts(untouched: Untouched, timeout: Any, error: type[Exception], words: list[str]) -> None:
    queue = untouched.pq["a"]
    refused(lambda: queue.get(timeout=timeout), error, "timeout", *words)
    refused(lambda: queue.get(block=False, timeout=timeout), error, "timeout", *words)
    iterator = iter(queue)
    iterator.timeout = timeout
    refused(lambda: next(iterator), error, "timeout", *words)


# -- tasks


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"max_retries": -1}, ValueError, ["max_retries", "-1"]),
        ({"max_retries": "2"}, TypeError, ["max_retries", "not str: '2'"]),
        ({"max_retries": 1.5}, TypeError, ["max_retries", "not float: 1.5"]),
        ({"max_retries": True}, TypeError, ["max_retries", "not bool: True"]),
        ({"max_retries": None}, TypeError, ["max_retries", "not NoneType: None"]),
        ({"retry_in": "5months"}, ValueError, ["retry_in", "'5months'", FORM]),
        ({"retry_in": "-5s"}, ValueError, ["retry_in", "'-5s'", FORM]),
        ({"retry_in": "9999999999d"}, ValueError, ["retry_in", "out of range"]),
        ({"retry_in": dt.timedelta(seconds=-5)}, ValueError, ["retry_in", "negative"]),
        ({"lease": "1ms"}, ValueError, ["lease", "at least 100ms"]),
        ({"retry_in": dt.timedelta.max}, ValueError, ["retry_in", "out of range"]),
        ({"retry_in": -5}, ValueError, ["retry_in", "negative"]),
        ({"retry_in": True}, TypeError, ["retry_in", "not bool: True"]),
        ({"retry_in": dt.datetime(2030, 1, 1)}, TypeError, ["retry_in", "str or timedelta, not datetime"]),
    ],
    ids=str,
)
def test_retries_are_checked_when_decorating(
    untouched: Untouched, options: dict[str, Any], error: type[Exception], words: list[str]
) -> None:
    queue = pq.tasks.PQ(untouched.conn)["a"]
    refused(lambda: queue.task(**options), error, *words)


@pytest.mark.parametrize("name", ["max_connections", "poll_interval"])
def test_numbers_of_another_type(untouched: Untouched, name: str) -> None:
    refused(lambda: PQ(untouched.conn, **{name: [1]}), TypeError, name, "not list: [1]")


@pytest.mark.parametrize("wrong", [1, "job", None])
def test_what_is_no_job_under_a_lease(untouched: Untouched, wrong: Any) -> None:
    refused(lambda: untouched.pq["a"].done([wrong]), TypeError, "lease", type(wrong).__name__)


@pytest.mark.parametrize("what", [lambda pq: pq, lambda pq: pq["a"], lambda pq: pq["a"].list()[0]])
def test_nothing_can_be_pickled(dsn: str, what: Callable[[PQ], Any]) -> None:
    with PQ(dsn) as pq:
        pq["a"].put(1)
        refused(lambda: pickle.dumps(what(pq)), TypeError, "pickled", "DSN")


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (0, ValueError, ["max_attempts must be at least 1: 0"]),
        ("2", TypeError, ["max_attempts", "not str: '2'"]),
        (True, TypeError, ["max_attempts", "not bool: True"]),
    ],
    ids=str,
)
def test_attempts_of_a_queue(untouched: Untouched, value: Any, error: type[Exception], words: list[str]) -> None:
    refused(lambda: PQ(untouched.conn, max_attempts=value)["a"], error, *words)
    task_queue = pq.tasks.PQ(untouched.conn)["a"]
    refused(lambda: task_queue.task(max_attempts=value), error, *words)


# -- what only the server can know


@pytest.mark.parametrize("name", ["a", "a/pickle"])
def test_a_row_that_is_gone(pq: PQ, sql: Sql, name: str) -> None:
    queue = pq[name]
    id = queue.put("gone")
    stays = queue.put("stays")
    job = queue.get()
    assert job is not None
    sql("delete from queue where id = %s", (id,))
    for write in (lambda: setattr(job, "data", 1), lambda: queue.update(id, 1)):
        with pytest.raises(JobNotFound, match=f"{id}") as caught:
            write()
        assert isinstance(caught.value, LookupError)
        assert (caught.value.job_id, caught.value.queue) == (id, "a")
    assert (job.data, job.size) == ("gone", len(queue.encode(queue.dumps("gone"))))
    assert queue.get(block=False).id == stays


def test_update_reaches_no_job_of_another_queue(pq: PQ) -> None:
    id = pq["a"].put("as it was")
    with pytest.raises(JobNotFound):
        pq["b"].update(id, "changed")
    assert pq["a"].get().data == "as it was"


@pytest.mark.parametrize("job_id", ["x", None, [1], INFINITY, -INFINITY, NAN, Decimal("Infinity")], ids=str)
def test_an_id_that_is_no_number(untouched: Untouched, job_id: Any) -> None:
    queue = untouched.pq["a"]
    words = [] if job_id is None or isinstance(job_id, list) else ["job id", repr(job_id)]
    error = ValueError if words else TypeError
    for use in (lambda: queue.update(job_id, 1), lambda: queue.result(job_id), lambda: queue.progress(job_id)):
        refused(use, error, *words)


def test_ids_and_items_are_checked_first(untouched: Untouched) -> None:
    queue = untouched.pq["a"]
    for call in (lambda: queue.cancel("x"), lambda: queue.cancel([True]), lambda: queue.load(5)):  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            call()


@pytest.mark.parametrize("fraction", [0.5, Decimal("0.5")])
def test_an_id_with_a_fraction_is_not_that_of_the_job_below(pq: PQ, fraction: Any) -> None:
    queue = pq["a"]
    id = queue.put("as it was")
    for call in (lambda: queue.update(id + fraction, 1), lambda: queue.result(id + fraction)):
        with pytest.raises(JobNotFound):
            call()
    assert queue.update(str(id), "as 1.9.1 does") > 0  # type: ignore[arg-type]
    assert queue.get(timeout=0).data == "as 1.9.1 does"


USES: dict[str, Call] = {
    "put": lambda pq: pq["a"].put(1),
    "get": lambda pq: pq["a"].get(),
    "get in a transaction": lambda pq: get_in_transaction(pq["a"]),
    "iterate": lambda pq: next(iter(pq["a"])),
    "len": lambda pq: len(pq["a"]),
    "clear": lambda pq: pq["a"].clear(),
    "update": lambda pq: pq["a"].update(1, 1),
    "in": lambda pq: "a" in pq,
    "list": lambda pq: list(pq),
}


def get_in_transaction(queue: Queue) -> Any:
    with queue:
        return queue.get()


@pytest.mark.parametrize("use", USES)
def test_a_missing_table(empty_dsn: str, use: str) -> None:
    with PQ(empty_dsn) as pq:
        check_missing(pq, USES[use])


@pytest.mark.parametrize("source", ["connection", "autocommit", "pool"])
def test_a_missing_table_on_what_the_application_gave(empty_dsn: str, source: str) -> None:
    if source == "pool":
        pq = PQ(pool=driver.pool(1, 3, empty_dsn))
    else:
        conn = driver.connect(empty_dsn)
        conn.autocommit = source == "autocommit"
        pq = PQ(conn)
    with pq:
        check_missing(pq, *USES.values())


def check_missing(pq: PQ, *uses: Call) -> None:
    for use in uses:
        with pytest.raises(TableMissing, match=re.escape("create()")) as caught:
            use(pq)
        assert isinstance(caught.value, driver.ProgrammingError)
        assert '"queue"' in str(caught.value)
    pq.create()
    id = pq["a"].put("works right after that")
    job = pq["a"].get(block=False)
    assert job is not None
    assert job.id == id


# -- numbers that PostgreSQL can't hold

HUGE = [2**63, -(2**63) - 1, 10**30, -(10**30)]


@pytest.mark.parametrize("id", HUGE)
def test_an_id_that_no_row_can_have_is_one_of_no_job(pq: PQ, id: int) -> None:
    queue = pq["a"]
    stays = queue.put("stays")
    for find in (lambda: queue[id], lambda: queue.result(id), lambda: queue.update(id, 1), lambda: queue.dead.get(id)):
        with pytest.raises(JobNotFound):
            find()
    assert queue.find(id) is None
    assert queue.cancel([id]) == queue.dead.retry(id) == queue.dead.discard([id]) == 0
    assert not queue.move(id, "b")
    assert not queue.reschedule(id, expected_at="1s")
    assert [job.id for job in queue.list()] == [stays]


@pytest.mark.parametrize("limit", [2**63, 10**30])
def test_a_limit_that_is_larger_than_any_number_of_rows(pq: PQ, limit: int) -> None:
    queue = pq["a"]
    queue.put_many([1, 2])
    assert len(queue.list(limit=limit)) == 2
    assert queue.dead.list(limit=limit) == []
    assert len(queue.get_many(limit, block=False)) == 2
    assert pq.prune(limit) == 0
