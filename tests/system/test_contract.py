"""What pq 1.9.1 documents and what programs for it rely on, one statement each.

The first part follows its documentation section by section, with the examples as they stand there; the second what is
not written down but used. Each docstring says in other words what is promised. Not here: the figure of about a
thousand operations a second, which is a measurement and no promise.
"""

from __future__ import annotations

import datetime as dt
import inspect
import json
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import psycopg2
import psycopg2.extensions
import psycopg2.extras
import pytest
from psycopg2.pool import SimpleConnectionPool, ThreadedConnectionPool
from support import Background, wait_until
from support.driver import driver, only_psycopg2

import pq.tasks
import pq.utils
from pq import PQ, Queue
from pq.tasks import PQ as TaskPQ
from pq.tasks import Queue as TaskQueue

Sql = Callable[..., list[tuple[Any, ...]]]
Connect = Callable[..., Any]
HOUR = dt.timedelta(hours=1)


@pytest.fixture
def manager(connect: Connect) -> PQ:
    """As the documentation makes it: on a connection."""
    return PQ(connect())


@pytest.fixture
def queue(manager: PQ) -> Queue:
    return manager["apples"]


@pytest.fixture
def pooled(dsn: str) -> Iterator[Callable[..., Any]]:
    """Makes a PQ on a pool of eight connections."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(PQ(pool=driver.pool(1, 8, dsn), **options))


def pass_time(sql: Sql, seconds: int) -> None:
    """Make everything that is planned happen sooner."""
    sql(
        "update queue set schedule_at = schedule_at - %(by)s * interval '1s', due_at = due_at - %(by)s * interval '1s',"
        " expected_at = expected_at - %(by)s * interval '1s'",
        {"by": seconds},
    )


def data_of(job: Any) -> Any:
    assert job is not None
    return job.data


# -- introduction


def test_intro_items_are_pushed_and_popped(queue: Queue) -> None:
    """A queue takes items and hands them out."""
    queue.put("pushed")
    assert data_of(queue.get()) == "pushed"


def test_intro_one_table_holds_all_queues(manager: PQ, sql: Sql) -> None:
    """The jobs of all queues are rows of a single table."""
    manager["apples"].put(1)
    manager["pears"].put(2)
    assert sql("select q_name from queue order by id") == [("apples",), ("pears",)]


def test_intro_the_table_has_its_columns(manager: PQ, sql: Sql) -> None:
    """The specifics can be customised, so the columns are known to others."""
    manager["apples"].put({"kind": "Cox"}, expected_at="1h")
    columns = "q_name, data->>'kind', schedule_at, dequeued_at, expected_at > enqueued_at"
    assert sql(f"select {columns} from queue") == [("apples", "Cox", None, None, True)]


def test_intro_skip_locked(dsn: str, connect: Connect) -> None:
    """Consumers step over jobs that others are working on."""
    first, second = PQ(connect())["apples"], PQ(connect())["apples"]
    first.put(1)
    first.put(2)
    with first:
        assert data_of(first.get()) == 1
        assert data_of(second.get()) == 2


# -- getting started


def test_start_the_arguments_and_their_order() -> None:
    """The arguments are conn, pool, table, schema; by default there are none, and the table is called queue."""
    parameters = list(inspect.signature(PQ).parameters.values())[:4]
    assert [(p.name, p.default) for p in parameters] == [
        ("conn", None),
        ("pool", None),
        ("table", "queue"),
        ("schema", None),
    ]
    assert all(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters)


def test_start_arguments_by_position(connect: Connect, sql: Sql) -> None:
    """They may be given by position."""
    pq = PQ(connect(), None, "jobs", "public")
    pq.create()
    pq["apples"].put(1)
    assert sql("select count(*) from public.jobs") == [(1,)]


@pytest.mark.parametrize("options", [{"schema": "public"}, {"schema": "public", "table": "queue"}])
def test_start_the_table_can_be_qualified_by_a_schema(connect: Connect, sql: Sql, options: dict[str, str]) -> None:
    """A schema can be named."""
    conn = connect(options="-c search_path=pg_catalog")
    pq = PQ(conn, **options)
    pq.create()
    pq["apples"].put(1)
    assert data_of(pq["apples"].get()) == 1
    assert sql("select count(*) from public.queue") == [(1,)]


def test_start_the_example(empty_dsn: str) -> None:
    """A connection is made, a PQ of it, and the table created by `create`."""
    from psycopg2 import connect

    from pq import PQ

    conn = connect(empty_dsn)
    pq = PQ(conn)
    pq.create()
    pq["apples"].put(1)
    assert len(pq["apples"]) == 1
    pq.close()
    assert conn.closed


def test_start_create_may_be_called_again(manager: PQ) -> None:
    """An existing table is left alone."""
    manager["apples"].put(1)
    manager.create()
    assert len(manager["apples"]) == 1


@pytest.mark.parametrize("kind", [SimpleConnectionPool, ThreadedConnectionPool])
def test_start_a_pool(dsn: str, kind: type) -> None:
    """A pool of connections can be given, by keyword or as the second argument."""
    pool = kind(1, 2, dsn)
    queue = PQ(pool=pool)["apples"]
    queue.put(1)
    assert data_of(PQ(None, pool)["apples"].get()) == 1
    queue.close()
    assert pool.closed


# -- queues


def test_queues_are_had_by_their_name(manager: PQ) -> None:
    """The PQ is indexed like a dictionary."""
    queue = manager["apples"]
    assert isinstance(queue, Queue)
    assert queue.name == "apples"


def test_queues_are_context_managers_with_a_cursor(queue: Queue) -> None:
    """In a with statement a queue gives a cursor."""
    with queue as cursor:
        cursor.execute("select 1")
        assert cursor.fetchone() == (1,)


def test_queues_commit_what_is_inside_as_a_whole(queue: Queue, sql: Sql) -> None:
    """Job and result are written together."""
    sql("create table results (id bigint)")
    queue.put({"kind": "Cox"})
    with queue as cursor:
        job = queue.get()
        assert job is not None
        cursor.execute("insert into results values (%s)", (job.id,))
        assert sql("select * from results") == []
        assert sql("select dequeued_at from queue") == [(None,)]
    assert sql("select * from results") == [(job.id,)]
    assert len(queue) == 0


def test_queues_reject_what_is_inside_as_a_whole(queue: Queue, sql: Sql) -> None:
    """An exception undoes the writes and returns the job."""
    sql("create table results (id bigint)")
    queue.put({"kind": "Cox"})
    with pytest.raises(ZeroDivisionError), queue as cursor:
        job = queue.get()
        assert job is not None
        cursor.execute("insert into results values (%s)", (job.id,))
        queue.put("another")
        raise ZeroDivisionError
    assert sql("select * from results") == []
    assert len(queue) == 1
    assert data_of(queue.get()) == {"kind": "Cox"}


# -- methods


def eat(kind: str) -> None:
    print(f"umm, {kind} apples taste good.")


def test_methods_put_takes_what_json_can_hold(queue: Queue) -> None:
    """Items are JSON documents, such as dicts; they come in the order of their puts."""
    queue.put({"kind": "Cox"})
    queue.put({"kind": "Arthur Turner"})
    queue.put({"kind": "Golden Delicious"})
    assert [data_of(queue.get())["kind"] for _ in range(3)] == ["Cox", "Arthur Turner", "Golden Delicious"]


def test_methods_get_pulls_an_item_whose_data_are_arguments(queue: Queue, capsys: pytest.CaptureFixture[str]) -> None:
    """The data is an attribute of the job."""
    queue.put({"kind": "Cox"})
    job = queue.get()
    assert job is not None
    eat(**job.data)
    assert capsys.readouterr().out == "umm, Cox apples taste good.\n"


def test_methods_get_has_block_as_its_argument(queue: Queue) -> None:
    """The first argument is block, true by default."""
    parameter = list(inspect.signature(Queue.get).parameters.values())[1]
    assert (parameter.name, parameter.default) == ("block", True)
    queue.timeout = 3600
    assert queue.get(False) is None
    assert queue.get(block=False) is None
    queue.put(1)
    assert data_of(queue.get(False)) == 1


def test_methods_get_blocks_until_there_is_an_item(manager: PQ, dsn: str) -> None:
    """A get that finds nothing waits for a put."""
    manager["apples"].timeout = 60
    getting = Background(manager["apples"].get)
    with PQ(dsn) as producer:
        assert getting.is_alive()
        producer["apples"].put(1)
        assert data_of(getting.result()) == 1


def test_methods_get_gives_up_after_a_second(queue: Queue, sql: Sql) -> None:
    """After one second without an item the value is None."""
    assert Queue.timeout == 1
    (before,) = sql("select clock_timestamp()")[0]
    assert queue.get() is None
    (after,) = sql("select clock_timestamp()")[0]
    assert after - before > dt.timedelta(seconds=0.95)


def test_methods_a_job_shows_its_metadata(queue: Queue, sql: Sql) -> None:
    """Its representation has id, size and times."""
    id = queue.put("x")
    sql("update queue set enqueued_at = '2014-02-21 16:22:06+00'")
    assert repr(queue.get()) == (
        f'<pq.Job id={id} size=3 enqueued_at="2014-02-21T16:22:06.000000Z" schedule_at=None expected_at=None>'
    )


def test_methods_a_job_has_the_metadata_as_attributes(queue: Queue) -> None:
    """Id, size and times are attributes."""
    id = queue.put("x", expected_at=dt.datetime(2030, 1, 2, 3))
    job = queue.get()
    assert job is not None
    assert (job.id, job.size, job.schedule_at, job.expected_at) == (id, 3, None, dt.datetime(2030, 1, 2, 3))
    assert abs(job.enqueued_at - dt.datetime.now(dt.timezone.utc).replace(tzinfo=None)) < HOUR


def test_methods_a_queue_can_be_iterated(queue: Queue, capsys: pytest.CaptureFixture[str]) -> None:
    """Iteration gets items, and None when there are no more."""
    queue.put({"kind": "Cox"})
    queue.put({"kind": "Arthur Turner"})

    for job in queue:
        if job is None:
            break

        eat(**job.data)

    assert capsys.readouterr().out == "umm, Cox apples taste good.\numm, Arthur Turner apples taste good.\n"


def test_methods_iteration_blocks(manager: PQ, dsn: str) -> None:
    """An iterator waits for an item, too."""
    manager["apples"].timeout = 60
    getting = Background(next, iter(manager["apples"]))
    with PQ(dsn) as producer:
        producer["apples"].put(1)
        assert data_of(getting.result()) == 1


def test_methods_iteration_gives_none_after_a_second(queue: Queue, sql: Sql) -> None:
    """Its timeout is one second, too."""
    (before,) = sql("select clock_timestamp()")[0]
    assert next(iter(queue)) is None
    (after,) = sql("select clock_timestamp()")[0]
    assert after - before > dt.timedelta(seconds=0.95)


def test_methods_iteration_can_go_on_after_none(queue: Queue) -> None:
    """The loop may wait again, without end."""
    queue.timeout = 0.01
    seen = []
    for job in queue:
        if job is not None:
            seen.append(job.data)
        if len(seen) == 2:
            break
        if job is None:
            queue.put(len(seen))
    assert seen == [0, 1]


def test_methods_data_can_be_written(queue: Queue, sql: Sql) -> None:
    """A job's data can be assigned, which writes the row (since 1.1)."""
    queue.put({"foo": "bar"})
    job = queue.get()
    assert job is not None
    job.data = {"foo": "boo"}
    assert sql("select data, length(data::text) from queue") == [({"foo": "boo"}, job.size)]


# -- scheduling


@pytest.mark.parametrize("five_minutes", ["5m", dt.timedelta(minutes=5), "a datetime"])
def test_scheduling_an_item_is_not_pulled_before_its_time(queue: Queue, sql: Sql, five_minutes: Any) -> None:
    """The second argument of put is when: as text, timedelta or datetime."""
    if five_minutes == "a datetime":
        five_minutes = dt.datetime.now(dt.timezone.utc) + dt.timedelta(minutes=5)
    queue.put({"kind": "Cox"}, five_minutes)
    pass_time(sql, 240)
    assert queue.get(block=False) is None
    pass_time(sql, 60)
    assert data_of(queue.get(block=False)) == {"kind": "Cox"}


def test_scheduling_a_naive_datetime_is_utc(queue: Queue) -> None:
    """As 1.9.1 computed it, with utcnow()."""
    utcnow = dt.datetime.now(dt.timezone.utc).replace(tzinfo=None)
    queue.put("later", utcnow + HOUR)
    queue.put("sooner", utcnow - HOUR)
    assert data_of(queue.get(block=False)) == "sooner"
    assert queue.get(block=False) is None


@pytest.mark.parametrize("unit", ["s", "m", "h", "d"])
def test_scheduling_the_units(queue: Queue, sql: Sql, unit: str) -> None:
    """Seconds, minutes, hours and days."""
    queue.put(1, f"3{unit}")
    seconds = {"s": 3, "m": 180, "h": 10800, "d": 259200}[unit]
    assert sql("select extract(epoch from schedule_at - enqueued_at)::int from queue") == [(seconds,)]


def test_scheduling_get_wakes_up_when_an_item_becomes_due(queue: Queue) -> None:
    """A get that waits does so until the next item is due, if that is sooner than the timeout."""
    queue.put({"kind": "Cox"}, dt.timedelta(milliseconds=200))
    assert data_of(queue.get(timeout=60)) == {"kind": "Cox"}


def test_scheduling_len_does_not_count_what_is_not_due(queue: Queue, sql: Sql) -> None:
    """The length of a queue is what can be got now."""
    assert len(queue) == 0
    queue.put({"foo": "bar"})
    queue.put({"foo": "bar"}, schedule_at="1h")
    assert len(queue) == 1
    pass_time(sql, 3600)
    assert len(queue) == 2
    queue.get()
    assert len(queue) == 1


# -- priority


def test_priority_the_earliest_expected_is_preferred(queue: Queue) -> None:
    """An item expected earlier is pulled first, one that is not expected last."""
    queue.put({"kind": "whenever"})
    queue.put({"kind": "later"}, expected_at="10m")
    queue.put({"kind": "Cox"}, expected_at="5m")
    assert [data_of(queue.get())["kind"] for _ in range(3)] == ["Cox", "later", "whenever"]


@pytest.mark.parametrize("spec", ["4s", dt.timedelta(seconds=4), dt.datetime(2030, 1, 1)])
def test_priority_takes_the_same_forms(queue: Queue, spec: Any) -> None:
    """It is the third argument, in any of the forms of the second."""
    queue.put(1, None, spec)
    job = queue.get()
    assert job is not None
    assert job.expected_at is not None


def test_priority_and_schedule_combined(queue: Queue, sql: Sql) -> None:
    """Not before its time; after that, by its priority."""
    queue.put({"kind": "Cox"}, "1h", "2h")
    pass_time(sql, 3540)
    assert queue.get(block=False) is None
    pass_time(sql, 60)
    queue.put("before it", expected_at="30m")
    queue.put("after it", expected_at="90m")
    queue.put("last")
    assert [data_of(queue.get()) for _ in range(4)] == ["before it", {"kind": "Cox"}, "after it", "last"]


# -- encoding


def test_encoding_is_that_of_the_json_module(queue: Queue, sql: Sql) -> None:
    """By default the built-in json encodes and decodes."""
    data = {"kind": "Cox", "n": [1, 2.5, None, True], "text": "…æøå"}
    queue.put(data)
    assert sql("select data::text from queue") == [(json.dumps(data),)]
    assert data_of(queue.get()) == json.loads(json.dumps(data))


def test_encoding_encode_and_decode_can_be_given(connect: Connect) -> None:
    """Both are arguments of PQ; each may be given alone."""

    class Encoder(json.JSONEncoder):
        def default(self, o: Any) -> Any:
            return {"date": o.isoformat()}

    def hook(data: dict[str, Any]) -> Any:
        return dt.date.fromisoformat(data["date"]) if "date" in data else data

    pq = PQ(connect(), encode=partial(json.dumps, cls=Encoder), decode=partial(json.loads, object_hook=hook))
    pq["trips"].put({"on": dt.date(2030, 1, 1)})
    assert data_of(pq["trips"].get()) == {"on": dt.date(2030, 1, 1)}
    pq = PQ(connect(), encode=lambda data: json.dumps(data, default=str))
    pq["trips"].put({"on": dt.date(2030, 1, 1)})
    assert data_of(pq["trips"].get()) == {"on": "2030-01-01"}
    pq = PQ(connect(), decode=lambda text: ["decoded", text])
    pq["trips"].put(1)
    assert data_of(pq["trips"].get()) == ["decoded", "1"]


# -- pickles


class Apple:
    def __init__(self, kind: str) -> None:
        self.kind = kind


def test_pickles_the_example(manager: PQ) -> None:
    """A queue whose name ends in /pickle takes almost any object."""
    queue = manager["apples/pickle"]
    queue.put(Apple("Cox"))
    apple = data_of(queue.get())
    assert isinstance(apple, Apple)
    assert apple.kind == "Cox"


def test_pickles_are_of_protocol_0_in_a_json_string(manager: PQ, sql: Sql) -> None:
    """The database holds a JSON string of ASCII characters, in which is the oldest protocol."""
    manager["apples/pickle"].put({"text": "…æøå!"})
    ((kind, text, raw),) = sql("select json_typeof(data), data#>>'{}', data::text from queue")
    assert kind == "string"
    assert raw.isascii()
    assert text.startswith("(dp0\n")


def test_pickles_are_in_the_queue_of_that_name(manager: PQ, sql: Sql) -> None:
    """The suffix is no part of the name."""
    manager["apples/pickle"].put(1)
    assert sql("select q_name from queue") == [("apples",)]


# -- tasks

handled: list[Any] = []


@pytest.fixture
def tasks(connect: Connect) -> TaskQueue:
    handled.clear()
    queue = TaskPQ(connect())["default"]
    assert isinstance(queue, TaskQueue)
    queue.timeout = 0.01
    return queue


def test_tasks_the_example(tasks: TaskQueue, sql: Sql) -> None:
    """A call of a decorated function puts a job; a worker calls the function, with the job's id in front."""

    @tasks.task(schedule_at="1h")
    def eat(job_id: int, kind: str) -> None:
        handled.append((job_id, f"umm, {kind} apples taste good."))

    id = eat("Cox")
    tasks.work(burst=True)
    assert handled == []
    pass_time(sql, 3600)
    tasks.work(burst=True)
    assert handled == [(id, "umm, Cox apples taste good.")]


def test_tasks_work_goes_on_without_end(tasks: TaskQueue) -> None:
    """Without burst, a worker goes on when there was nothing to do."""

    @tasks.task()
    def last(job_id: int) -> None:
        handled.append("last")
        signal.raise_signal(signal.SIGTERM)

    tasks.timeout = 0.01
    putting = threading.Timer(0.1, last)  # much later than that
    putting.start()
    tasks.work()
    putting.join()
    assert handled == ["last"]


def test_tasks_are_put_again_when_they_fail(tasks: TaskQueue, sql: Sql) -> None:
    """As often as max_retries says, retry_in later."""

    @tasks.task(schedule_at="1h", max_retries=2, retry_in="10s")
    def eat(job_id: int, kind: str) -> None:
        handled.append(kind)
        raise ValueError

    eat("Cox")
    pass_time(sql, 3600)
    for attempts in (1, 2, 3, 3):
        tasks.work(burst=True)
        assert len(handled) == attempts
        pass_time(sql, 5)
        tasks.work(burst=True)
        assert len(handled) == attempts
        pass_time(sql, 5)


def test_tasks_times_can_be_overridden_at_the_call(tasks: TaskQueue, sql: Sql) -> None:
    """By _expected_at and _schedule_at."""

    @tasks.task(schedule_at="1h", expected_at="2h")
    def eat(job_id: int, kind: str) -> None:
        pass

    eat("Cox", _expected_at="2m", _schedule_at="1m")
    eat("Cox")
    times = "extract(epoch from schedule_at - enqueued_at)::int, extract(epoch from expected_at - enqueued_at)::int"
    assert sql(f"select {times} from queue order by id") == [(60, 120), (3600, 7200)]


def test_tasks_the_first_argument_is_the_primary_key(tasks: TaskQueue, sql: Sql) -> None:
    """It is the id of the row."""

    @tasks.task()
    def eat(job_id: int) -> None:
        handled.append(job_id)

    eat()
    tasks.work(burst=True)
    assert sql("select id from queue") == [(handled[0],)]


# -- thread safety


def test_threads_may_share_all_objects_on_a_pool(pooled: Callable[..., Any]) -> None:
    """Each thread works on a connection of its own."""
    queue = pooled()["apples"]
    together = threading.Barrier(4, timeout=30)

    def work(number: int) -> int:
        with queue as cursor:
            queue.put(number)
            cursor.execute("select pg_backend_pid()")
            together.wait()  # all four transactions are open now
            return int(cursor.fetchone()[0])

    assert len({thread.result() for thread in [Background(work, i) for i in range(4)]}) == 4
    assert sorted(data_of(queue.get()) for _ in range(4)) == [0, 1, 2, 3]


def test_threads_produce_and_consume_each_job_once(pooled: Callable[..., Any]) -> None:
    """No job is lost, and none is got twice."""
    queue = pooled()["apples"]
    numbers = [(producer, i) for producer in range(4) for i in range(25)]

    def produce(producer: int) -> None:
        for i in range(25):
            queue.put((producer, i))

    def consume() -> list[Any]:
        got = []
        while len(got) < 25:
            job = queue.get(timeout=60)
            assert job is not None
            got.append(tuple(job.data))
        return got

    consumers = [Background(consume) for _ in range(4)]
    for thread in [Background(produce, i) for i in range(4)]:
        thread.result()
    assert sorted(job for thread in consumers for job in thread.result()) == numbers
    assert len(queue) == 0


# == what is used without being documented


def test_used_names() -> None:
    """What programs import, and the loggers they configure."""
    from pq import Job, QueueIterator  # noqa: F401
    from pq.utils import Literal, convert_time_spec, logger, utc_format  # noqa: F401

    assert logger is Queue.logger is logging.getLogger("pq")
    assert TaskQueue.logger is logging.getLogger("pq.tasks")
    assert isinstance(pq.__version__, str)
    assert issubclass(TaskPQ, PQ)
    assert issubclass(TaskQueue, Queue)


def test_used_table_as_a_query_parameter(queue: Queue) -> None:
    """`queue.table` stands for the table's name in a query's parameters, and in text."""
    id = queue.put({"foo": "bar"})
    with queue as cursor:
        cursor.execute("SELECT data FROM %s WHERE id = %s", (queue.table, id))
        assert cursor.fetchone() == ({"foo": "bar"},)
        cursor.execute(f"SELECT data FROM {queue.table} WHERE id = %s", (id,))
        assert cursor.fetchone() == ({"foo": "bar"},)


def test_used_literal(queue: Queue) -> None:
    """`Literal` makes such a parameter of any text."""
    with queue as cursor:
        cursor.execute("select %s + %s", (pq.utils.Literal("40"), 2))
        assert cursor.fetchone() == (42,)


def test_used_transaction(queue: Queue, sql: Sql) -> None:
    """`queue._transaction()` is a transaction of its own, and a savepoint inside a transaction."""
    with queue._transaction() as cursor:
        cursor.execute("create table results ()")
    assert sql("select to_regclass('results') is not null") == [(True,)]
    with queue:
        with pytest.raises(ZeroDivisionError), queue._transaction() as cursor:
            cursor.execute("drop table results")
            raise ZeroDivisionError
        with pytest.raises(driver.Error), queue._transaction() as cursor:
            cursor.execute("select nonsense")
        queue.put(1)
    assert sql("select to_regclass('results') is not null") == [(True,)]
    assert len(queue) == 1


def test_used_iterator_timeout(queue: Queue) -> None:
    """An iterator has a timeout of its own."""
    queue.timeout = 3600
    iterator = iter(queue)
    assert iterator.timeout is None
    iterator.timeout = 0.01
    assert next(iterator) is None
    assert queue.timeout == 3600


def test_used_get_by_position(queue: Queue) -> None:
    """get(block, timeout)."""
    assert queue.get(True, 0.01) is None
    assert queue.get(False, 5) is None


def test_used_put_by_keyword(queue: Queue) -> None:
    """put(data=, schedule_at=, expected_at=)."""
    assert queue.put(data=1, schedule_at=-HOUR, expected_at="1h") == data_of_row_id(queue)


def data_of_row_id(queue: Queue) -> int:
    job = queue.get()
    assert job is not None
    return job.id


def test_used_ids_are_consecutive(queue: Queue) -> None:
    """Of one producer."""
    assert queue.put(1) + 1 == queue.put(2)


def test_used_long_names(queue: Queue, manager: PQ) -> None:
    """Names over 63 characters work, waiting included (since 1.8.2)."""
    queue = manager["a" * 64]
    assert queue.get(timeout=0.01) is None
    queue.put(1)
    assert data_of(queue.get()) == 1


def test_used_a_queue_by_itself(connect: Connect) -> None:
    """`Queue(name, conn=…)`, without a PQ."""
    queue = pq.Queue("apples", conn=connect())
    queue.put(1)
    assert data_of(queue.get()) == 1
    assert queue.conn is not None
    assert queue.pool is None


def test_used_a_pool_gets_its_connections_back(pooled: Callable[..., Any]) -> None:
    """After each call and each transaction, a failed one, too."""
    queue = pooled()["apples"]
    pool = queue.pool
    queue.put(1)
    queue.get()
    assert not driver.lent(pool)
    with pytest.raises(ZeroDivisionError), queue:
        assert driver.lent(pool)
        raise ZeroDivisionError
    assert not driver.lent(pool)
    assert queue.conn is None


def test_used_one_pool_for_several_pq(pooled: Callable[..., Any]) -> None:
    """A pool can be shared (since 1.1)."""
    queue = pooled()["apples"]
    PQ(pool=queue.pool)["apples"].put(1)
    assert data_of(queue.get()) == 1


@pytest.mark.parametrize("close", [PQ.close, lambda pq: pq["apples"].close()], ids=["PQ", "Queue"])
def test_used_close(dsn: str, connect: Connect, close: Callable[[PQ], None]) -> None:
    """It closes the connection or the pool that was given."""
    conn, pool = connect(), driver.pool(1, 2, dsn)
    close(PQ(conn))
    assert conn.closed
    close(PQ(pool=pool))
    assert pool.closed


FACTORIES = [
    psycopg2.extras.NamedTupleCursor,
    psycopg2.extras.DictCursor,
    psycopg2.extras.RealDictCursor,
    psycopg2.extras.LoggingCursor,
]


@only_psycopg2
@pytest.mark.parametrize("factory", FACTORIES[:3], ids=lambda factory: factory.__name__)
@pytest.mark.parametrize("given", ["connection", "pool"])
def test_used_cursor_factories(dsn: str, factory: type, given: str) -> None:
    """The connection's cursor_factory is that of `with queue as cursor`, and does not disturb pq."""
    if given == "pool":
        pq = PQ(pool=driver.pool(1, 3, dsn, cursor_factory=factory))
    else:
        pq = PQ(driver.connect(dsn, cursor_factory=factory))
    with pq:
        pq.create()
        queue = pq["apples"]
        id = queue.put(1, expected_at="1h")
        queue.update(id, 2)
        assert len(queue) == 1
        assert list(pq) == ["apples"]
        with queue as cursor:
            assert isinstance(cursor, factory)
            assert data_of(queue.get()) == 2
        assert queue.get(timeout=0.01) is None


class Timed(Queue):
    """A subclass as applications have it: with attributes of its own."""

    timeout = 0.02
    cursor_kwargs = driver.dict_rows
    converters = {**Queue.converters, "upper": (str.upper, str.lower)}
    encode = staticmethod(lambda data: json.dumps({"wrapped": data}))
    decode = staticmethod(lambda text: json.loads(text)["wrapped"])


class OwnPQ(PQ):
    queue_class = Timed


@pytest.mark.parametrize("make", [partial(PQ, queue_class=Timed), OwnPQ], ids=["argument", "class attribute"])
def test_used_subclasses_of_queue(connect: Connect, sql: Sql, make: Callable[[Any], PQ]) -> None:
    """Given to PQ or set on a subclass of it; with their own settings."""
    pq = make(connect())
    queue = pq["apples/upper"]
    assert type(queue) is Timed
    queue.put("cox")
    assert sql("select data from queue") == [({"wrapped": "COX"},)]
    assert data_of(queue.get()) == "cox"
    assert queue.get() is None
    with queue as cursor:
        cursor.execute("select 1 as one")
        assert cursor.fetchone()["one"] == 1


def test_used_methods_as_encoders(connect: Connect) -> None:
    """encode and decode may be ordinary methods of a subclass."""

    class Secret(Queue):
        key = 3

        def encode(self, data: Any) -> str:
            return json.dumps(data + self.key)

        def decode(self, text: str) -> Any:
            return json.loads(text) - self.key

    queue = PQ(connect(), queue_class=Secret)["apples"]
    queue.put(4)
    assert data_of(queue.get()) == 4


class PassingOn(Queue):
    def __init__(self, name: str, *args: Any, **kwargs: Any) -> None:
        self.given = (args, kwargs)
        super().__init__(name, *args, **kwargs)


class Explicit(Queue):
    def __init__(
        self,
        name: str,
        conn: Any = None,
        pool: Any = None,
        table: str = "queue",
        schema: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.given = (conn, pool, table, schema)
        super().__init__(name, conn, pool, table, schema, **kwargs)


class ByKeyword(Explicit):
    def __init__(self, name: str, pool: Any = None, **kwargs: Any) -> None:
        super().__init__(name, pool=pool, **kwargs)


class OnlyConn(Queue):
    def __init__(self, name: str, conn: Any) -> None:
        self.given = conn
        super().__init__(name, conn=conn)


@pytest.mark.parametrize("kind", [PassingOn, Explicit, OnlyConn])
def test_used_constructors_of_subclasses_on_a_connection(connect: Connect, kind: Any) -> None:
    """They get what PQ was given, and the queue is one of that PQ."""
    conn = connect()
    pq = PQ(conn, queue_class=kind)
    queue = pq["apples"]
    assert queue.given == {PassingOn: ((conn,), {}), Explicit: (conn, None, "queue", None), OnlyConn: conn}[kind]
    with queue:
        pq["pears"].put(1)
        assert data_of(pq["pears"].get()) == 1


@pytest.mark.parametrize("kind", [PassingOn, Explicit, ByKeyword])
def test_used_constructors_of_subclasses_on_a_pool(pooled: Callable[..., Any], kind: Any) -> None:
    pq = pooled(table="queue", queue_class=kind, schema="public")
    queue = pq["apples"]
    pool = queue.pool
    if kind is PassingOn:
        assert queue.given == ((), {"pool": pool, "schema": "public"})
    else:
        assert queue.given == (None, pool, "queue", "public")
    with queue:
        pq["pears"].put(1)  # on the same connection, so in the same transaction
        assert data_of(pq["pears"].get()) == 1
        assert driver.lent(pool) == 1


def test_used_options_of_a_subclass(connect: Connect) -> None:
    """A subclass can be given attributes that PQ knows nothing of."""

    class Shop(Queue):
        def price(self) -> Any:
            return self.__dict__["currency"]

    queue = PQ(connect(), queue_class=Shop, currency="EUR", timeout=0.01)["apples"]
    assert isinstance(queue, Shop)
    assert queue.price() == "EUR"
    assert queue.get() is None


def test_used_a_factory(connect: Connect) -> None:
    """queue_class may be any callable that makes queues."""
    pq = PQ(connect(), queue_class=partial(Queue, timeout=0.02))  # type: ignore[arg-type]
    assert pq["apples"].timeout == 0.02


def test_used_the_pool_of_upstreams_tests(pooled: Callable[..., Any]) -> None:
    """All that its tests construct at once."""
    pq = pooled(table="queue", queue_class=TaskQueue, schema="public")
    pq.create()
    queue = pq["jobs"]
    assert isinstance(queue, TaskQueue)
    queue.clear()
    assert not driver.lent(queue.pool)


def test_used_debug_is_accepted(connect: Connect) -> None:
    """An argument of old."""
    assert PQ(connect(), debug=True)["apples"].get(block=False) is None


def job(job_id: int, increment: int) -> None:
    handled.append(increment)


def test_used_the_registry_of_tasks(tasks: TaskQueue) -> None:
    """A task has a path, under which it is registered; without an entry it is found by that path."""
    decorated: Any = tasks.task()(job)
    assert decorated._path == f"{__name__}.job"
    assert decorated._path in tasks.handler_registry
    tasks.handler_registry.pop(decorated._path)
    decorated(12)
    assert handled == []
    assert len(tasks) == 1
    assert tasks.perform(tasks.get()) is True
    assert handled == [12]


def test_used_a_removed_task_does_not_stop_the_worker(tasks: TaskQueue) -> None:
    @tasks.task()
    def local(job_id: int) -> None:
        pass

    del tasks.handler_registry[local._path]  # type: ignore[attr-defined]
    local()
    tasks.work(True)
    assert len(tasks) == 0


def test_used_loggers(tasks: TaskQueue, caplog: pytest.LogCaptureFixture) -> None:
    """Workers log to pq.tasks: a failure with its traceback."""

    @tasks.task(max_retries=1, retry_in=None)
    def fails(job_id: int) -> None:
        raise ZeroDivisionError

    caplog.set_level(logging.WARNING, "pq.tasks")
    fails()
    tasks.work(True)
    assert [(record.name, record.levelname) for record in caplog.records] == [
        ("pq.tasks", "WARNING"),  # tried again
        ("pq.tasks", "ERROR"),
    ]
    for record in caplog.records:
        assert record.exc_info is not None
        assert record.exc_info[0] is ZeroDivisionError


def test_used_waiting_in_many_threads_on_a_pool(pooled: Callable[..., Any], dsn: str) -> None:
    """Consumers that wait leave the pool's connections to others."""
    queue = pooled()["apples"]
    consumers = [Background(queue.get, timeout=60) for _ in range(10)]  # two more than the pool has
    wait_until(lambda: not driver.lent(queue.pool), "the return of all connections")
    for i in range(10):
        queue.put(i)
    assert sorted(data_of(thread.result()) for thread in consumers) == list(range(10))
