"""The hook `PQ.instrument`: what it is told, what becomes of headers, and that it does no harm."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
from support import wait_until
from support.tasks import working
from support.versions import Library

from pq import PQ, After, Discard, Limit, NewJob, Retry, Schedule, Unique, Worker, tasks
from pq._schedules import ticker
from pq._table import instruments
from pq._table.instruments import MOST_BYTES
from pq.errors import CommitUnknown, DecodeError, QueueFull
from pq.tasks import current
from pq.worker import Event

Sql = Callable[..., list[tuple[Any, ...]]]

HEADERS = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "note": 'ä "q" \\ \t\n %s'}


class Recorder:
    """An instrument that notes all that it is told."""

    def __init__(self, headers: Any = HEADERS) -> None:
        self.given = headers
        self.asked: list[str] = []
        self.put: list[Any] = []
        self.ran: list[Any] = []
        self.told: list[tuple[str, str]] = []

    def headers(self, queue: str) -> Any:
        self.asked.append(queue)
        return self.given

    @contextmanager
    def sending(self, queue: str) -> Iterator[Callable[[int, int | None], None]]:
        note = [queue, None, None, None]

        def sent(count: int, id: int | None) -> None:
            note[1:3] = count, id

        try:
            yield sent
        except BaseException as error:
            note[3] = type(error).__name__
            raise
        finally:
            self.put.append(tuple(note))

    @contextmanager
    def around(self, job: Any, task: str) -> Iterator[None]:
        error = None
        try:
            yield
        except BaseException as found:
            error = type(found).__name__
            raise
        finally:
            self.ran.append((job.id, task, job.attempts, error, threading.current_thread().name))

    def event(self, event: Event) -> None:
        self.told.append((event.name, event.task))


@pytest.fixture
def pq(dsn: str) -> Iterator[PQ]:
    """Its tasks are forgotten after each test."""
    with tasks.PQ(dsn) as made:
        yield made


@pytest.fixture
def recorder(pq: PQ) -> Recorder:
    made = Recorder()
    pq.instrument(made)
    return made


def stored(sql: Sql) -> list[Any]:
    return [headers for (headers,) in sql("select headers from queue order by id")]


# -- puts

#: Each way to put a job into the queue "q": by a PQ and a connection of the application's.
WAYS: dict[str, Callable[[PQ, Any], Any]] = {
    "put": lambda pq, conn: pq["q"].put(1),
    "none": lambda pq, conn: pq["q"].put(None),
    "text": lambda pq, conn: pq["q/text"].put("a"),
    "time": lambda pq, conn: pq["q"].put(1, "0s"),
    "priority": lambda pq, conn: pq["q"].put(1, expected_at="1h"),
    "key": lambda pq, conn: pq["q"].put(1, key="k"),
    "unique": lambda pq, conn: pq["q"].put(1, unique="t"),
    "unique with a window": lambda pq, conn: pq["q"].put(1, unique=Unique("t", window="1h")),
    "unique until done": lambda pq, conn: pq["q"].put(1, key="k", unique=Unique("t", "done")),
    "replace": lambda pq, conn: pq["q"].put(1, unique=Unique("t", on_duplicate="replace")),
    "merge": lambda pq, conn: pq["q"].put([1], unique=Unique("t", on_duplicate="merge")),
    "after": lambda pq, conn: pq["q"].put(1, key="k", after=After([1], on_failed="run")),
    "conn": lambda pq, conn: pq["q"].put(1, conn=conn),
    "unique, conn": lambda pq, conn: pq["q"].put(1, unique="t", conn=conn),
    "bind": lambda pq, conn: pq.bind(conn)["q"].put(1),
    "put_many": lambda pq, conn: pq["q"].put_many([1, 2]),
    "put_many, times": lambda pq, conn: pq["q"].put_many([1, NewJob(2, "0s")], expected_at="1h"),
    "put_many, keys": lambda pq, conn: pq["q"].put_many([1, NewJob(2, key="k")]),
    "put_many, tokens": lambda pq, conn: pq["q"].put_many([1, NewJob(2, unique="t"), NewJob(3, unique="t")]),
    "put_many, conn": lambda pq, conn: pq["q"].put_many([1, 2], conn=conn),
    "several statements": lambda pq, conn: pq["q"].put_many(range(1100)),
    "load": lambda pq, conn: pq["q"].load([1, NewJob(2, "0s", key="k")]),
    "task": lambda pq, conn: pq["q"].task(name="t")(lambda job_id: None)(),
    "task, many": lambda pq, conn: pq["q"].task(name="t")(lambda job_id, n: None).put_many([(1,), (2,)]),
    "task, load": lambda pq, conn: pq["q"].task(name="t")(lambda job_id, n: None).load([(1,), (2,)]),
}


@pytest.mark.parametrize("way", WAYS)
def test_headers_stand_in_the_rows(pq: PQ, sql: Sql, connect: Any, way: str) -> None:
    first = pq["other"].put(0) if way == "after" else 0
    recorder = Recorder()
    pq.instrument(recorder)
    assert first in (0, 1)
    conn = connect()
    returned = WAYS[way](pq, conn)
    conn.commit()
    found = stored(sql)[first:]
    assert found == [HEADERS] * len(found)
    if isinstance(returned, list):  # a duplicate was not put
        assert recorder.put == [("q", len(set(returned)), None, None)]
    elif way.endswith("load"):
        assert recorder.put == [("q", len(found), None, None)] and returned == len(found) == 2
    else:
        assert recorder.put == [("q", 1, returned, None)]
    assert recorder.asked == ["q"], "once for each put"


@pytest.mark.parametrize("many", [False, True])
def test_headers_of_puts_into_a_bounded_queue(pq: PQ, sql: Sql, recorder: Recorder, many: bool) -> None:
    queue = pq["q"]
    queue.max_ready = 1
    put: Callable[[], Any] = (lambda: queue.put_many([1])) if many else (lambda: queue.put(1))
    put()
    with pytest.raises(QueueFull):
        put()
    assert stored(sql) == [HEADERS]
    assert [error for *_, error in recorder.put] == [None, "QueueFull"]


def test_a_duplicate_keeps_the_headers_of_the_first(pq: PQ, sql: Sql, recorder: Recorder) -> None:
    first = pq["q"].put(1, unique="t")
    recorder.given = {"traceparent": "other"}
    for unique in ("t", Unique("t", on_duplicate="replace"), Unique("t", on_duplicate="merge", time="keep")):
        pq["q"].put(1 if unique == "t" else [2], unique=unique)
    assert stored(sql) == [HEADERS]
    assert recorder.put == [("q", 1, first, None)] + [("q", 0, first, None)] * 3


def test_a_schedule(pq: PQ, sql: Sql, recorder: Recorder) -> None:
    pq.schedules["s"] = Schedule("q", 1, every="100ms")
    id = pq.schedules["s"].fire()
    assert recorder.put == [("q", 1, id, None)]
    with working(Worker(pq, ["other"])):
        wait_until(lambda: len(stored(sql)) >= 3, "jobs of the schedule")
    assert stored(sql) == [HEADERS] * len(stored(sql))
    assert len(recorder.asked) >= 3 and set(recorder.asked) == {"q"}
    assert ("q", 1, None, None) in recorder.put


def test_followers_and_groups(pq: PQ, sql: Sql, recorder: Recorder) -> None:
    with pq["q"].group(then=(pq["then"], "last")) as group:
        group.put(1)
        group.put_many([2, 3])
    assert recorder.asked == ["q", "q", "then"] and stored(sql) == [HEADERS] * 4


def test_without_an_instrument_the_statements_are_those_of_before(pq: PQ, statements: list[str]) -> None:
    def put_all() -> list[str]:
        del statements[:]
        parent = pq["q"].put(1)
        pq["q"].put(1, "0s", key="k")
        pq["q"].put_many([1, 2])
        pq["q"].put_many([1, 2], "0s")
        pq["q"].put(1, unique="t")
        pq["q"].put(1, after=parent)
        return list(statements)

    plain = put_all()
    assert not any("headers" in sql for sql in plain)
    pq.instrument(Recorder(None))
    assert put_all() == plain, "an instrument without headers changes nothing"
    pq.instrument(Recorder())
    assert all("headers" in sql for sql in put_all())


def test_without_an_instrument_none_of_its_code_runs(pq: PQ) -> None:
    """Neither for a put, nor where jobs are taken, run and settled."""
    eat = pq["q"].task(name="apple")(lambda job_id: None)
    called: set[str] = set()

    def note(frame: Any, event: str, arg: Any) -> None:
        if event == "call" and frame.f_code.co_filename == instruments.__file__:
            caller = frame.f_back.f_code.co_filename
            if caller != ticker.__file__:  # which looks for schedules when a worker starts
                called.add(frame.f_code.co_name)

    def work() -> None:
        eat()
        pq["q"].put(1)
        assert pq["q"].get(timeout=0) is not None
        job = pq["q"].get(timeout=0, lease="1m")
        assert job is not None
        job.done()
        eat()
        Worker(pq, burst=True).run()

    work()  # what is made only once
    threading.setprofile(note)  # for the threads of the worker
    sys.setprofile(note)
    try:
        work()
        without = set(called)
        pq.instrument(Recorder())
        work()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    assert without == set()
    assert called > {"sending", "call"}, "this would see it"


def test_several_instruments(pq: PQ, sql: Sql) -> None:
    pq.instrument(Recorder({"a": "1", "both": "1", "baggage": "x=1"}))
    pq.instrument(Recorder({"b": "2", "both": "2", "baggage": "y=2"}))
    pq["q"].put(1)
    assert stored(sql) == [{"a": "1", "b": "2", "both": "2", "baggage": "x=1,y=2"}]


def test_queues_that_exist_already_and_views_have_it_too(pq: PQ, sql: Sql, connect: Any) -> None:
    queue, view = pq["q"], pq.bind(connect(autocommit=True))
    pq.instrument(Recorder())
    queue.put(1)
    view["q"].put(2)
    assert stored(sql) == [HEADERS] * 2


BAD: list[tuple[Any, type[Exception], str]] = [
    ([("a", "b")], TypeError, "must be a dict of str, not list"),
    ("traceparent", TypeError, "must be a dict of str, not str"),
    ({1: "a"}, TypeError, "the name of a header must be a str, not int"),
    ({"": "a"}, ValueError, "the name of a header must not be empty"),
    ({"a": 1}, TypeError, "header 'a' must be a str, not int"),
    ({"a": None}, TypeError, "header 'a' must be a str, not NoneType"),
    ({"a": b"b"}, TypeError, "header 'a' must be a str, not bytes"),
    ({"a": "\0"}, ValueError, "header 'a' must not have a NUL"),
    ({"a": "\ud800"}, ValueError, "header 'a' must not have a lone surrogate"),
    ({"pq.about": "x"}, ValueError, "begins with 'pq.', which is reserved"),
    ({"a": "x" * MOST_BYTES}, ValueError, "can have 16,384 bytes of JSON, and these have 16,393 (a 16,384)"),
]


@pytest.mark.parametrize("put", ["put", "put_many", "load"])
@pytest.mark.parametrize(("headers", "error", "words"), BAD, ids=range(len(BAD)))
def test_bad_headers(
    pq: PQ, sql: Sql, statements: list[str], put: str, headers: Any, error: type[Exception], words: str
) -> None:
    recorder = Recorder(headers)
    pq.instrument(recorder)
    with pytest.raises(error) as caught:
        getattr(pq["q"], put)([1])
    assert words in str(caught.value)
    assert statements == [], "before any SQL"
    assert stored(sql) == []
    assert recorder.put == [("q", None, None, error.__name__)]
    recorder.given = {"a": "x" * (MOST_BYTES - len('{"a": ""}'))}
    getattr(pq["q"], put)([1])
    assert stored(sql) == [recorder.given]


@pytest.mark.parametrize("bad", [None, 1, object(), Recorder, lambda: None])
def test_bad_instruments(pq: PQ, bad: Any) -> None:
    with pytest.raises(TypeError, match="an object with at least one of the methods headers, sending, around, event"):
        pq.instrument(bad)


# -- reading


def test_headers_can_be_read(pq: PQ, recorder: Recorder) -> None:
    queue = pq["q"]
    id = queue.put(1)
    assert queue[id].headers == queue.find(id).headers == queue.list()[0].headers == HEADERS  # type: ignore[union-attr]
    hash(queue[id])
    job = queue.get(lease="1m")
    assert job is not None and job.headers == HEADERS
    job.release()
    with queue, queue.item() as item:
        assert item is not None and item.headers == HEADERS
        item.release()
    (job,) = queue.get_many(1, lease="1m")
    job.fail("bad")
    assert queue.dead.get(id).headers == queue.dead.list()[0].headers == HEADERS
    queue.dead.retry(id)
    job = queue.get()
    assert job is not None and job.headers is None, "it was taken without a lease"


@pytest.mark.parametrize("limit", [None, Limit(running=100), Limit(rate="1000/s")], ids=["free", "places", "tokens"])
@pytest.mark.parametrize("retain", ["7d", 0])
@pytest.mark.parametrize("open", [False, True])
def test_each_form_of_a_claim_reads_them(pq: PQ, recorder: Recorder, limit: Any, retain: Any, open: bool) -> None:
    """There are several statements: which of them is used depends on what the last claims have found."""
    pq.create(retain=retain)
    queue = pq["q"]
    if limit is not None:
        pq.limits["q"] = limit
    queue.put_many(range(40))
    queue.put_many([NewJob(n, "0s") for n in range(5)])
    with queue if open else nullcontext():
        for number in (1, 1, 1, 1, 1, 3, 3, 3, 3, 3, 1, 1, 1, 1, 10, 10):
            for job in queue.get_many(number, lease="1m", timeout=0):
                assert job.headers == HEADERS


def test_a_job_that_cannot_be_decoded_keeps_them(dsn: str, sql: Sql, recorder: Recorder) -> None:
    """Where finished jobs are not kept, its row was deleted, and is put back."""
    with tasks.PQ(dsn, pickle_key=b"k" * 32) as pq:
        pq.create(retain=0)
        sql("insert into queue (q_name, data, headers) values ('q', '\"junk\"', %s)", (json.dumps(HEADERS),))
        for get in (lambda: pq["q/pickle"].get(), lambda: pq["q/pickle"].get_many(3)):
            for _ in range(4):
                with pytest.raises(DecodeError):
                    get()
                assert stored(sql) == [HEADERS]


def test_jobs_without(pq: PQ) -> None:
    id = pq["q"].put(1)
    assert pq["q"][id].headers is None
    job = pq["q"].get(lease="1m")
    assert job is not None and job.headers is None


@pytest.mark.parametrize(
    ("text", "found"),
    [("[1]", None), ("null", None), ('"a"', None), ('{"a": 1, "b": "x"}', {"b": "x"}), ("[" * 5000 + "]" * 5000, None)],
    ids=["array", "null", "text", "number", "deep"],
)
def test_what_others_have_written(pq: PQ, sql: Sql, text: str, found: Any) -> None:
    id = pq["q"].put(1)
    sql("set max_stack_depth = '7MB'; update queue set headers = %s", (text,))
    assert pq["q"][id].headers == found
    job = pq["q"].get(lease="1m")
    assert job is not None and job.headers == found


def test_they_go_with_the_job(pq: PQ, sql: Sql, recorder: Recorder) -> None:
    """Whatever becomes of it."""
    queue = pq["q"]
    id = queue.put({"n": 1})
    for end in (lambda job: job.retry("0s"), lambda job: job.release(), lambda job: job.fail("bad")):
        job = queue.get(lease="1m")
        assert job is not None and job.headers == HEADERS
        end(job)
    queue.dead.retry(id)
    queue.update(id, 2)
    queue.reschedule(id, "0s")
    queue.move(id, "other")
    job = pq["other"].get(lease="1m")
    assert job is not None and job.headers == HEADERS
    job.done("result")
    assert pq["other"][id].headers == HEADERS
    recorder.given = None
    queue.put(2)
    assert stored(sql) == [HEADERS, None]


# -- calls


@pytest.mark.parametrize("transactional", [False, True])
def test_around_a_call(pq: PQ, recorder: Recorder, transactional: bool) -> None:
    seen: list[Any] = []

    @pq["q"].task(name="apple", transactional=transactional, max_retries=1, retry_in="0s")
    def eat(job_id: int) -> None:
        seen.append((current().headers, threading.current_thread().name))
        if current().attempts == 1:
            raise KeyError("first")

    id = eat()
    Worker(pq, burst=True, name="w").run()
    (first, second) = recorder.ran
    assert first[:4] == (id, "apple", 1, "KeyError") and second[:4] == (id, "apple", 2, None)
    assert seen == [(HEADERS, first[4]), (HEADERS, second[4])], "in the thread of the handler"
    assert sorted(name for name, _ in recorder.told) == ["done", "retry", "start", "start"]


def test_the_commit_is_inside(pq: PQ, recorder: Recorder, sql: Sql) -> None:
    """Of a transactional task: so what is told as done is done."""
    sql("create table apple (id int primary key deferrable initially deferred)")

    @pq["q"].task(name="apple", transactional=True)
    def eat(job_id: int) -> None:
        current().cursor.execute("insert into apple values (1), (1)")

    eat()
    Worker(pq, burst=True).run()
    assert [ran[3] for ran in recorder.ran] == ["UniqueViolation"]
    assert len(pq["q"].dead) == 1


def test_a_transaction_that_the_database_breaks_off_is_seen(pq: PQ, recorder: Recorder, sql: Sql) -> None:
    @pq["q"].task(name="apple", transactional=True)
    def eat(job_id: int) -> None:
        if not recorder.ran:
            cursor = current().cursor
            cursor.execute("select pg_backend_pid()")
            sql("select pg_terminate_backend(%s)", cursor.fetchone())

    eat()
    worker = Worker(pq)
    with working(worker):
        wait_until(lambda: len(recorder.ran) == 2, "the second attempt")
    assert recorder.ran[0][3] is not None and recorder.ran[1][3] is None
    assert ("retry", "apple") in recorder.told and len(pq["q"].dead) == 0


@pytest.mark.parametrize("error", [Retry("0s"), Discard("bad"), SystemExit(1)], ids=lambda error: type(error).__name__)
def test_other_ends_of_a_call(pq: PQ, recorder: Recorder, error: BaseException) -> None:
    @pq["q"].task(name="apple")
    def eat(job_id: int) -> None:
        if not recorder.ran:
            raise error

    eat()
    Worker(pq, burst=True).run()
    assert recorder.ran[0][3] == type(error).__name__


def test_what_has_no_handler_is_told_as_an_event(pq: PQ, recorder: Recorder) -> None:
    pq["q"].put({"function": "nobody.knows", "args": [], "kwargs": {}})
    worker = Worker(pq, ["q"])
    assert worker.run_once()
    assert recorder.ran == [] and recorder.told == [("start", "nobody.knows"), ("retry", "nobody.knows")]


@pytest.mark.parametrize("lease", [None, "1m"])
def test_perform(pq: PQ, recorder: Recorder, lease: Any) -> None:
    eat = pq["q"].task(name="apple")(lambda job_id: None)
    id = eat()
    recorder_of = Named()
    pq.instrument(recorder_of)
    job = pq["q"].get(lease=lease)
    assert job is not None and pq["q"].perform(job)
    assert recorder_of.ran == [(id, "apple", HEADERS if lease else None)]


class Named:
    def __init__(self) -> None:
        self.ran: list[Any] = []

    @contextmanager
    def around(self, job: Any, task: str) -> Iterator[None]:
        yield
        self.ran.append((job.id, task, job.headers))


def test_the_first_is_the_outermost(pq: PQ) -> None:
    seen: list[str] = []

    class Each:
        def __init__(self, name: str) -> None:
            self.name = name

        @contextmanager
        def around(self, job: Any, task: str) -> Iterator[None]:
            seen.append(f"{self.name} begins")
            yield
            seen.append(f"{self.name} ends")

    pq.instrument(Each("a"))
    pq.instrument(Each("b"))
    pq["q"].task(name="t")(lambda job_id: seen.append("runs"))()
    Worker(pq, burst=True).run()
    assert seen == ["a begins", "b begins", "runs", "b ends", "a ends"]


# -- instruments that misbehave


class Broken:
    """Fails at each of these points."""

    def __init__(self, *points: str) -> None:
        self.points = points

    def fail(self, point: str) -> None:
        if point in self.points:
            raise LookupError(point)

    def manager(self, name: str) -> Any:
        self.fail(name)

        class Manager:
            def __enter__(inner) -> Any:
                self.fail(f"{name} enter")
                return lambda count, id: self.fail("told")

            def __exit__(inner, *error: Any) -> bool:
                self.fail(f"{name} exit")
                return "swallow" in self.points

        return Manager()

    def sending(self, queue: str) -> Any:
        return self.manager("sending")

    def around(self, job: Any, task: str) -> Any:
        return self.manager("around")

    def event(self, event: Event) -> None:
        self.fail("event")


@pytest.mark.parametrize("transactional", [False, True])
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize(
    "point",
    ["sending", "sending enter", "sending exit", "told", "around", "around enter", "around exit", "event", "swallow"],
)
def test_what_fails_is_logged_and_changes_nothing(
    pq: PQ, caplog: pytest.LogCaptureFixture, point: str, fails: bool, transactional: bool
) -> None:
    recorder = Recorder()
    pq.instrument(recorder)
    pq.instrument(Broken(point))
    ran: list[int] = []

    @pq["q"].task(name="apple", transactional=transactional)
    def eat(job_id: int) -> None:
        ran.append(job_id)
        if fails:
            raise KeyError("mine")

    with caplog.at_level(logging.ERROR, "pq"):
        id = eat()
        Worker(pq, burst=True).run()
    assert ran == [id]
    assert [job.id for job in pq["q"].dead] == ([id] if fails else [])
    assert [each[3] for each in recorder.ran] == ["KeyError" if fails else None]
    assert recorder.put == [("q", 1, id, None)]
    told = [record for record in caplog.records if record.exc_info and isinstance(record.exc_info[1], LookupError)]
    assert bool([record for record in told if not isinstance(record.exc_info[1], KeyError)]) == (point != "swallow")  # type: ignore[index]


@pytest.mark.parametrize("put", ["put", "put_many", "load"])
def test_what_headers_raises_the_put_raises(pq: PQ, sql: Sql, put: str) -> None:
    class Bad:
        def headers(self, queue: str) -> Any:
            raise LookupError("mine")

    pq.instrument(Bad())
    with pytest.raises(LookupError, match="mine"):
        getattr(pq["q"], put)([1])
    assert stored(sql) == []


def test_a_commit_that_is_unknown_is_seen(pq: PQ, recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise CommitUnknown("gone")

    queue = pq["q"]
    monkeypatch.setattr(queue._table.database, "execute", fail)
    with pytest.raises(CommitUnknown):
        queue.put(1)
    assert recorder.put == [("q", None, None, "CommitUnknown")]


# -- pq 1.9.1


def test_pq_1_9_1_beside(pq: PQ, dsn: str, old: Library, recorder: Recorder) -> None:
    """It takes jobs with headers, and what it puts has none."""
    pq["q"].put("new")
    code = "q = pq['q']; job = q.get(block=False); q.put('old'); conn.commit(); print(json.dumps(job.data))"
    taken = old.run(dsn, code)
    assert taken == "new"
    job = pq["q"].get(lease="1m")
    assert job is not None and (job.data, job.headers) == ("old", None)


def test_the_longest_headers_survive_a_copy_of_the_row(pq: PQ, sql: Sql) -> None:
    """As JSON that the server accepts, letter by letter."""
    headers = {"a": "".join(map(chr, range(1, 0x250))), "b": "\U0001f34e", "baggage": ""}
    pq.instrument(Recorder(headers))
    pq["q"].put(1)
    pq["q"].load([2])
    assert stored(sql) == [headers] * 2
    assert json.loads(sql("select headers::text from queue limit 1")[0][0]) == headers
