"""pq.contrib.mq by itself: what becomes of records, step by step, and what its worker does with what it is given."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest
from support import Background, wait_until
from support.mq import url_of

sa = pytest.importorskip("sqlalchemy", minversion="1.4")
orm = pytest.importorskip("sqlalchemy.orm")
pytest.importorskip("dateutil")

from pq.contrib import mq  # noqa: E402
from pq.contrib.mq.delivery import pq_of, put_missing  # noqa: E402
from pq.contrib.mq.model import Model  # noqa: E402
from pq.contrib.mq.records import Holder, begin, finish, wake_next  # noqa: E402
from pq.contrib.mq.upkeep import fire, missing  # noqa: E402

Sql = Callable[..., list[tuple[Any, ...]]]

PAST = datetime(2026, 1, 1)
MINUTE = timedelta(minutes=1)


class World:
    """A model on a database."""

    def __init__(self, engine: Any, model: Any, sql: Sql) -> None:
        self.engine, self.model, self.sql = engine, model, sql

    @contextmanager
    def source(self, **options: Any) -> Iterator[Any]:
        """A source, in a transaction that is committed."""
        with orm.Session(self.engine) as db, db.begin():
            yield mq.MQSource(dbsession=db, model=self.model, **options)

    def call(self, method: str = "m", queue: str = "a", **options: Any) -> int:
        with self.source() as source:
            return source.call(queue, method, {}, **{"when": PAST, **options})

    def begin(self, job_id: int, delivery: int = 1, queues: str = "ab") -> Any:
        with self.source() as source:
            return begin(source, Holder("w", list(queues)), job_id, delivery)

    def finish(self, job: Any, delivery: int = 1, **options: Any) -> None:
        with self.source() as source:
            finish(source, job, delivery, "completed", None, **options)

    def job(self, job_id: int) -> Any:
        with orm.Session(self.engine) as db:
            return mq.MQSource(dbsession=db, model=self.model).get_job(job_id)

    def deliveries(self) -> list[tuple[Any, ...]]:
        """Those that wait: queue, kind, of what; taken away."""
        return self.sql(
            "with gone as (delete from queue where dequeued_at is null returning *) "
            "select q_name, data->>'function', data->'args'->0 from gone order by id"
        )

    def due(self) -> list[tuple[Any, ...]]:
        """Whether the deliveries that wait are due."""
        return self.sql("select due_at is null or due_at <= now() from queue where dequeued_at is null order by id")

    @contextmanager
    def working(self, execute: Callable[[Any], Any], queues: str = "a", **options: Any) -> Iterator[Any]:
        kind = options.pop("kind", mq.MQWorker)
        queue = type("Queue", (), {"execute_job": staticmethod(execute)})()
        given = {"engine": self.engine, "model": self.model, "threads": 2, "jitter": 0, "capture_signals": False}
        worker = kind(queues=dict.fromkeys(queues, queue), **{**given, **options})
        thread = Background(worker.run)
        try:
            yield worker
        finally:
            worker.shutdown_gracefully()
            thread.result()

    def look_after(self) -> None:
        """What a worker of queue ``a`` does once a minute."""
        with self.source() as source:
            found = missing(source, Holder("w", ["a"]), MINUTE)
        with pq_of(self.engine, None) as pq:
            put_missing(pq, self.model, found)

    def ended(self, *ids: int) -> list[Any]:
        wait_until(lambda: all(self.job(id).state not in ("pending", "running") for id in ids))
        return [self.job(id) for id in ids]


@pytest.fixture
def engine(dsn: str) -> Iterator[Any]:
    engine = sa.create_engine(url_of(dsn))
    yield engine
    engine.dispose()


@pytest.fixture
def world(engine: Any, sql: Sql) -> World:
    metadata = sa.MetaData()
    model = mq.make_default_model(metadata)
    metadata.create_all(engine)
    return World(engine, model, sql)


# -- cursors: who begins a job, and who ends one


def test_whoever_finds_the_cursor_busy_is_woken_by_its_end(world: World) -> None:
    first, second = world.call(cursor_key="c"), world.call(cursor_key="c", queue="b")
    world.deliveries()
    running = world.begin(first)
    assert world.begin(second, 2) is None
    assert world.deliveries() == []
    world.finish(running)
    assert world.deliveries() == [("mq_b", "mq.job", second)]
    assert world.begin(second, 2).id == second


def test_who_comes_while_a_job_of_the_cursor_ends_comes_again(world: World) -> None:
    first, second, other = world.call(cursor_key="c"), world.call(cursor_key="c"), world.call(cursor_key="d")
    running = world.begin(first)
    world.deliveries()
    with world.source() as source:
        finish(source, running, 1, "completed", None)
        assert world.begin(second, 2) is None
        assert world.due() == [(False,)]  # a second later
        assert world.begin(other, 3).id == other
    assert world.deliveries() == [("mq_a", "mq.job", second)] * 2
    assert world.begin(second, 2).id == second


def test_the_end_waits_for_who_just_finds_the_cursor_busy(world: World) -> None:
    """Otherwise it could miss that one, which has not dropped its delivery yet."""
    first = world.call(cursor_key="c")
    running = world.begin(first)
    world.deliveries()
    with world.source() as source:
        with world.source() as other:
            late = other.call("a", "m", {}, cursor_key="c", when=PAST)
        world.deliveries()
        assert begin(source, Holder("w", ["a"]), late, 2) is None
        end = Background(world.finish, running)
        waits = "select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
        wait_until(lambda: world.sql(waits), "the end waits")
    end.result()
    assert world.deliveries() == [("mq_a", "mq.job", late)]


def test_the_jobs_of_a_cursor_begin_in_order(world: World) -> None:
    """Of the queues that the worker serves: others may have no worker at all."""
    order = [PAST + timedelta(seconds=seconds) for seconds in (2, 1, 0, 1)]
    third, second, other, after = [
        world.call(cursor_key="c", when=when, queue=queue) for when, queue in zip(order, "abcb", strict=True)
    ]
    world.deliveries()
    assert world.begin(third) is None
    assert world.deliveries() == [("mq_b", "mq.job", second)]
    assert world.begin(after) is None
    assert world.deliveries() == [("mq_b", "mq.job", second)]
    running = world.begin(second, 5)
    world.finish(running, 5)
    assert world.deliveries() == [("mq_a", "mq.job", third), ("mq_b", "mq.job", after), ("mq_c", "mq.job", other)]


def test_a_job_that_is_being_changed_begins_once_that_is_committed(world: World) -> None:
    id = world.call(cursor_key="c", collapse_on_cursor=True)
    with world.source() as source:
        assert source.call("a", "m", {}, cursor_key="c", collapse_on_cursor=True) == id
        world.deliveries()
        assert world.begin(id) is None
        assert world.due() == [(False,)]
    assert world.begin(id).id == id


def test_the_resolver_may_make_a_job_earlier(world: World) -> None:
    def resolve(job: Any) -> None:
        job.scheduled_time = PAST

    options: dict[str, Any] = {"cursor_key": "c", "collapse_on_cursor": True, "when": timedelta(hours=1)}
    id = world.call(**options)
    assert world.due() == [(False,)]
    assert world.call(conflict_resolver=resolve, **options) == id
    assert world.due() == [(False,), (True,)]
    assert world.begin(id).id == id


def test_a_delivery_too_many_changes_nothing(world: World) -> None:
    id = world.call()
    job = world.begin(id)
    assert world.begin(id, 2) is None
    assert world.job(id).state == "running"
    world.finish(job)
    assert world.begin(id) is None
    assert world.job(id).state == "completed"
    assert world.begin(id + 99) is None
    later = world.call(when=timedelta(hours=1))
    world.deliveries()
    assert world.begin(later) is None
    assert world.due() == [(False,)]


def test_a_job_that_is_cancelled_lets_the_next_one_begin(world: World) -> None:
    first, second = world.call(cursor_key="c"), world.call(cursor_key="c", when=PAST + MINUTE)
    world.deliveries()
    assert world.begin(second) is None  # since the first is before it
    world.deliveries()
    with world.source() as source:
        source.cancel_job(first)
    assert world.deliveries() == [("mq_a", "mq.cursor", "c")]
    with world.source() as source:
        wake_next(source, "c")
    assert world.deliveries() == [("mq_a", "mq.job", second)]


# -- jobs that are lost


def test_a_lost_job_that_ends_after_all_is_completed(world: World) -> None:
    id, next = world.call(cursor_key="c"), world.call(cursor_key="c")
    job = world.begin(id)
    assert world.begin(id) is None  # the same delivery, again
    assert world.job(id).state == "lost"
    assert world.begin(next, 2) is None
    world.deliveries()
    world.finish(job, cursor={"n": 1})
    assert world.job(id).state == "completed"
    assert world.deliveries() == [("mq_a", "mq.job", next)]
    assert world.begin(next, 2).cursor == {"n": 1}


def test_after_fail_lost_job_its_end_changes_nothing(world: World, caplog: pytest.LogCaptureFixture) -> None:
    id, next = world.call(cursor_key="c"), world.call(cursor_key="c")
    job = world.begin(id)
    world.begin(id)
    with world.source() as source:
        source.fail_lost_job(id)
    running = world.begin(next, 2)
    world.finish(job, cursor={"n": 1})
    assert "this changes nothing" in caplog.text
    assert (world.job(id).state, running.cursor) == ("failed", {})
    world.finish(running, 2, cursor={"n": 2})
    assert world.sql("select properties from mq_job_cursor") == [({"n": 2},)]


def test_a_lost_job_that_a_program_has_run_again_is_ended_by_that_run_alone(world: World) -> None:
    id = world.call(cursor_key="c")
    job = world.begin(id)
    world.begin(id)
    world.sql("update mq_job set state = 'pending' where id = %s", (id,))
    again = world.begin(id, 2)
    world.finish(job, cursor={"n": 1})
    assert world.job(id).state == "running"
    world.finish(again, 2, cursor={"n": 2})
    assert world.job(id).state == "completed"
    assert world.sql("select properties from mq_job_cursor") == [({"n": 2},)]


# -- the upkeep


def test_a_record_that_nobody_told_of_is_found(world: World, caplog: pytest.LogCaptureFixture) -> None:
    overdue = "2 minutes"
    for key, queue, when in ((None, "a", overdue), (None, "b", overdue), (None, "a", "0"), ("c", "a", "1 hour")):
        world.sql(
            "insert into mq_job (state, created_time, scheduled_time, queue, method, args, cursor_key) "
            "values ('pending', now(), now() at time zone 'utc' - %s::interval, %s, 'm', '{}', %s)",
            (when, queue, key),
        )
    busy = world.call(cursor_key="c")
    world.begin(busy)
    world.sql("update mq_job set state = 'lost', end_time = now() where id = %s", (busy,))
    world.deliveries()
    world.look_after()
    world.look_after()
    assert world.deliveries() == [("mq_a", "mq.job", 1)]
    assert f"job {busy} is lost since" in caplog.text
    world.sql("update mq_job set state = 'failed' where id = %s", (busy,))
    world.look_after()
    assert world.deliveries() == [("mq_a", "mq.job", 4), ("mq_a", "mq.job", 1)]


def schedule(world: World, rule: str = "FREQ=SECONDLY", since: str = "1 hour", due: str = "-1 second") -> int:
    """A schedule that a program has written by itself."""
    ((id,),) = world.sql(
        "insert into mq_job_schedule (created_time, is_enabled, rrule, queue, method, args, next_execution_time) "
        "values (now() at time zone 'utc' - %s::interval, true, %s, 'a', 's', '{}', "
        "now() at time zone 'utc' + %s::interval) returning id",
        (since, rule, due),
    )
    return int(id)


def test_a_schedule_that_nobody_told_of_is_found(world: World) -> None:
    soon, _later = schedule(world, due="30 seconds"), schedule(world, due="1 hour")
    for _ in range(2):
        world.look_after()
    assert world.deliveries() == [("mq_a", "mq.schedule", soon)]


def fired(world: World, id: int) -> tuple[int, datetime | None]:
    """Fire a schedule; return how many jobs there are, and the next time."""
    with world.source() as source:
        fire(source, id, MINUTE)
        return source.query_jobs.count(), source.get_schedule(id).next_execution_time


def test_a_schedule_fires_once_for_each_time(world: World) -> None:
    id = schedule(world)
    count, next = fired(world, id)
    assert count == 1
    assert next is not None
    assert [kind for _, kind, _ in world.deliveries()] == ["mq.job", "mq.schedule"]
    world.sql("update mq_job_schedule set next_execution_time = now() at time zone 'utc' + interval '1 hour'")
    assert fired(world, id)[0] == 1
    assert world.due() == [(False,)]
    world.sql("update mq_job_schedule set is_enabled = false, next_execution_time = %s", (PAST,))
    assert fired(world, id) == (1, PAST)
    with world.source() as source:
        fire(source, id + 99, MINUTE)


def test_times_that_were_missed_for_long_are_passed_over(world: World, caplog: pytest.LogCaptureFixture) -> None:
    id = schedule(world, "FREQ=DAILY;COUNT=2", since="30 hours", due="-6 hours")
    assert fired(world, id) == (0, None)
    assert f"schedule {id} was due at" in caplog.text
    id = schedule(world, "FREQ=SECONDLY", due="-1 hour")
    assert fired(world, id)[0] == 1


def test_a_schedule_whose_rule_can_not_be_read_stands_still(world: World, caplog: pytest.LogCaptureFixture) -> None:
    id = schedule(world, "FREQ=SOMETIMES")
    assert fired(world, id) == (0, None)
    assert f"schedule {id} stands still" in caplog.text


def test_a_schedule_that_is_being_changed_fires_later(world: World) -> None:
    id = schedule(world)
    with world.source() as source:
        source.get_schedule(id, for_update=True)
        with world.source() as other:
            fire(other, id, MINUTE)
        assert world.due() == [(False,)]
    assert world.sql("select from mq_job") == []


# -- the worker


@pytest.mark.parametrize("bad", [object(), "\0", float("nan"), {1: {2}}], ids=["object", "NUL", "NaN", "set"])
def test_a_result_that_can_not_be_stored_makes_the_job_fail(world: World, bad: Any) -> None:
    def execute(job: Any) -> Any:
        if job.method == "cursor":
            job.cursor["bad"] = bad
            return "good"
        return bad

    ids = [world.call(), world.call("cursor", cursor_key="c"), world.call(cursor_key="c")]
    with world.working(execute):
        for job in world.ended(*ids):
            assert job.state == "failed"
            assert set(job.result) == {"args", "exc", "message", "tb"}
    assert world.sql("select from mq_job_cursor") == []


def test_an_error_can_have_any_text(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL")  # xdist can't pass such a text on
    class Odd(Exception):
        def __str__(self) -> str:
            return "\0\ud800"

    def execute(job: Any) -> Any:
        deep: list[Any] = []
        deep.append(deep)
        raise Odd(deep, b"\0", {"\0": Odd})

    id = world.call()
    with world.working(execute):
        (job,) = world.ended(id)
    assert (job.state, job.result["message"]) == ("failed", "\ufffd?")


def test_the_end_of_a_job_is_written_again(world: World) -> None:
    class Source(mq.MQSource):
        def emit_event(self, name: str, *rest: Any, **options: Any) -> list[int]:
            told.append(name)
            if len(told) < 3:
                raise sa.exc.IntegrityError("insert", {}, ValueError())
            return super().emit_event(name, *rest, **options)

    told: list[str] = []
    id = world.call()
    with world.working(lambda job: 1, mq_source_factory=Source, retry_intervals=[0.01, timedelta(seconds=0.01)]):
        (job,) = world.ended(id)
    assert (job.result, told) == (1, ["mq.job_finished.completed.a.m"] * 3)


def test_a_connection_that_breaks_before_the_end_is_written_loses_nothing(world: World) -> None:
    def execute(job: Any) -> int:
        world.sql(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where datname = current_database() and pid <> pg_backend_pid()"
        )
        return 7

    def over() -> bool:
        return world.sql("select count(*) from mq_job where state = 'completed'") == [(3,)]

    ids = [world.call(cursor_key="c") for _ in range(3)]
    with world.working(execute, retry_intervals=[0.01] * 9):
        wait_until(over)
    world.engine.dispose()  # the pool may hold connections that were ended
    assert [world.job(id).result for id in ids] == [7] * 3


def test_two_workers_in_one_process_can_be_run_again(world: World) -> None:
    started = threading.Barrier(2, timeout=30)
    queue = type("Queue", (), {"execute_job": staticmethod(lambda job: started.wait())})()
    given = {"engine": world.engine, "queues": {"a": queue}, "model": world.model, "threads": 1}
    workers = [mq.MQWorker(capture_signals=False, **given) for _ in range(2)]
    for _ in range(2):
        threads = [Background(worker.run) for worker in workers]
        world.ended(world.call(), world.call())
        for worker, thread in zip(workers, threads, strict=True):
            worker.shutdown_gracefully()
            thread.result()
            assert worker.get_status()["running"] is False


def test_a_worker_that_is_started_before_there_are_tables_waits_for_them(
    engine: Any, sql: Sql, caplog: pytest.LogCaptureFixture
) -> None:
    metadata = sa.MetaData()
    world = World(engine, mq.make_default_model(metadata), sql)
    with world.working(lambda job: 1):
        wait_until(lambda: "can't look for missing deliveries yet" in caplog.text, "the warning")
        metadata.create_all(engine)
        id = world.call()
        wait_until(lambda: world.job(id).state == "completed", "the job")
    assert "Traceback" not in caplog.text
    assert caplog.text.count("can't look") == 1


# -- what programs give


def test_bad_input(world: World) -> None:
    with world.source() as source:
        for call, error in [
            (lambda: source.call("a", "m", {}, when="soon"), TypeError),
            (lambda: source.call("a", "m", {}, collapse_on_cursor=True), ValueError),
            (lambda: source.call(7, "m", {}), TypeError),
            (lambda: source.call("a", "", {}), ValueError),
            (lambda: source.call("a", "m\0", {}), ValueError),
            (lambda: source.call("a", "m", {}, cursor_key=7), TypeError),
            (lambda: source.call("a", "m", {"at": PAST}), TypeError),
            (lambda: source.call("a", "m", {"x": float("nan")}), ValueError),
            (lambda: source.call("a", "m", {"x": "\0"}), ValueError),
            (lambda: source.call("a", "m", {"x": "\ud800"}), ValueError),
            (lambda: source.call("a", "m", {}, trace={1, 2}), TypeError),
            (lambda: source.call("a", "m", {}, job_kwargs={"colour": 1}), TypeError),
            (lambda: source.add_listener("e", "a", "m", {1}), TypeError),
            (lambda: source.add_schedule("a", "m", {1}, rrule="FREQ=DAILY"), TypeError),
            (lambda: source.add_schedule("a", "m", {}, rrule="SOMETIMES"), ValueError),
            (lambda: source.add_schedule("a", "m", {}, rrule="FREQ=DAILY", collapse_on_cursor=True), ValueError),
            (lambda: source.add_listener("e", "a", "m", {}, collapse_on_cursor=True), ValueError),
        ]:
            with pytest.raises(error):
                call()
        good = source.call("a", "m", {"x": "\\u0000"}, when=PAST)  # nothing was sent: the transaction goes on
    assert world.job(good).args == {"x": "\\u0000"}
    assert world.sql("select id from mq_job union all select id from mq_job_schedule") == [(good,)]


def test_times_with_a_zone_and_times_from_now(world: World) -> None:
    zoned = datetime.fromisoformat("2026-01-01T02:00:00+02:00")
    assert world.job(world.call(when=zoned)).scheduled_time == PAST
    assert world.job(world.call(when=MINUTE, now=zoned)).scheduled_time == PAST + MINUTE
    job = world.job(world.call(when=MINUTE))
    assert job.scheduled_time - job.created_time == MINUTE


def test_tables_in_a_schema(engine: Any, sql: Sql) -> None:
    sql("create schema jobs")
    metadata = sa.MetaData(schema="jobs")
    world = World(engine, mq.make_default_model(metadata), sql)
    metadata.create_all(engine)
    id = world.call(cursor_key="c", trace={})
    with world.working(lambda job: job.cursor):
        assert world.ended(id)[0].result == {}
    assert sql("select distinct data->>'args' from jobs.queue") == [(f"[{id}]",)]
    assert sql("select from queue") == []


def test_classes_of_ones_own(engine: Any, sql: Sql) -> None:
    """With one more column, and another with another name."""
    metadata = sa.MetaData()
    Base = orm.declarative_base(metadata=metadata)
    made = mq.make_default_model(sa.MetaData())

    class Job(Base):  # type: ignore[misc, valid-type]
        __table__ = made.Job.__table__.to_metadata(metadata)
        __table__.append_column(sa.Column("tenant", sa.Text))
        __table__.c.method.key = "method"

    metadata.create_all(engine)
    others = {name: getattr(made, name) for name in ("JobCursor", "JobListener", "JobSchedule")}
    for each in others.values():
        each.__table__.create(engine)
    world = World(engine, Model(Job=Job, Lock=None, **others), sql)
    id = world.call(job_kwargs={Job.tenant: "t"}, schedule_ids=[1])
    world.call(job_kwargs={"tenant": "t"})
    with world.working(lambda job: 1):
        assert world.ended(id)[0].result == 1
    assert sql("select tenant from mq_job") == [("t",)] * 2


def test_it_logs_what_it_does(world: World, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "pq.contrib.mq"):
        id = world.call(cursor_key="c", collapse_on_cursor=True)
        world.call(cursor_key="c", collapse_on_cursor=True)
    assert caplog.messages == [f"put job {id} in queue a: m", f"joined job {id} in queue a: m"]
