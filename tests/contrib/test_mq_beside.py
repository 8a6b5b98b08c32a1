"""The same programs on psycopg2_mq and on pq.contrib.mq."""

from __future__ import annotations

import re
import signal
from email import message_from_string
from pathlib import Path
from typing import Any

import pytest
from support.mq import Package

#: Programs, and what they say.
PROGRAMS: dict[str, tuple[str, list[Any]]] = {}


def program(name: str, code: str, *said: Any) -> None:
    PROGRAMS[name] = (code, list(said))


program(
    "a job and its record",
    """
    class Queue:
        def execute_job(self, job):
            job.extend(tool="saw", args2=job.args)
            return [job.tool, job.queue, job.method, job.args, job.args2, job.cursor_key, job.cursor, job.trace,
                    job.listener_ids, job.schedule_ids]
    with Working({"a": Queue()}, name="joiner"):
        with source() as mq:
            id = mq.call("a", "cut", {"n": 1}, trace={"t": 5})
            none = mq.call("a", "cut", None)
            pending = mq.get_job(id)
            say([pending.state, pending.result, mq.query_jobs.count(), mq.query_jobs.filter_by(id=0).count()])
        found, other = ended(id, none)
    say([found.state, found.result, found.worker, found.lock_id, found.trace, found.cursor_key, found.collapsible])
    say([other.state, other.args])
    say([found.created_time == found.scheduled_time, found.scheduled_time <= found.start_time <= found.end_time])
    say(abs(datetime.now(timezone.utc).replace(tzinfo=None) - found.end_time) < timedelta(minutes=1))
    with source() as mq:
        say([mq.get_job(0, raises=False), mq.get_job(id, for_update=True).id == id])
        try:
            mq.get_job(0)
        except LookupError:
            say("no such job")
    """,
    ["pending", None, 2, 0],
    ["completed", ["saw", "a", "cut", {"n": 1}, {"n": 1}, None, None, {"t": 5}, None, None], "joiner", None, {"t": 5},
     None, False],
    ["completed", {}],
    [True, True],
    True,
    [None, True],
    "no such job",
)  # fmt: skip

program(
    "errors",
    """
    class Worker(MQWorker):
        def result_from_error(self, ex):
            return {**super().result_from_error(ex), "mine": True}
    MQWorker = Worker
    class Problem(Exception):
        pass
    def execute(job):
        if job.method == "exit":
            sys.exit(3)
        if job.method == "failed":
            raise FailedJobError({"code": 7})
        raise Problem("no wood", {1: [b"x"]})
    with Working({"a": calls(execute)}):
        with source() as mq:
            ids = [mq.call("a", method, {}) for method in ("raise", "exit", "failed")]
        for found in ended(*ids):
            result = found.result
            if "tb" in result:
                result["tb"] = [type(line).__name__ for line in result["tb"]][:1]
            say([found.state, result])
    """,
    ["failed", {"exc": "__main__.Problem", "message": "('no wood', {1: [b'x']})", "args": ["'no wood'", {"1": ["'x'"]}],
                "tb": ["str"], "mine": True}],
    ["failed", {"exc": "SystemExit", "message": "3", "args": ["3"], "tb": ["str"], "mine": True}],
    ["failed", {"code": 7}],
)  # fmt: skip

program(
    "when, and the order of jobs",
    """
    order = []
    with source() as mq:
        now = datetime.now(timezone.utc).replace(tzinfo=None) - timedelta(minutes=5)
        late = mq.call("a", "late", {}, when=now + timedelta(seconds=30))
        early = mq.call("a", "early", {}, when=now + timedelta(seconds=20))
        then = datetime.now(timezone.utc).replace(tzinfo=None) + timedelta(seconds=2)
        soon = mq.call("a", "soon", {}, now=now, when=then)
        say(mq.get_job(soon).created_time == now)
    with Working({"a": calls(lambda job: order.append(job.method))}, threads=1):
        ended(late, early)
        say([order, job(soon).state])
        found, = ended(soon)
        say([order, timedelta(0) <= found.start_time - found.scheduled_time < timedelta(seconds=2)])
    """,
    True,
    [["early", "late"], "pending"],
    [["early", "late", "soon"], True],
)

program(
    "one job of a cursor runs at a time, in all queues, and hands its state on",
    """
    running, most, order = [], [0], []
    def execute(job):
        running.append(job.id)
        most[0] = max(most[0], len(running))
        order.append(job.args["n"])
        time.sleep(0.01)
        job.cursor["sum"] = job.cursor.get("sum", 0) + job.args["n"]
        job.cursor.setdefault("queues", []).append(job.queue)
        running.remove(job.id)
        return job.cursor["sum"]
    with source() as mq:
        ids = []
        for n in range(5):
            ids.append(mq.call("ab"[n % 2], "add", {"n": n}, cursor_key="c", when=datetime(2026, 1, 1, 0, 0, n)))
    # psycopg2_mq looks for the next job of a cursor when it has nothing else to do, each `timeout`
    with Working({"a": calls(execute), "b": calls(execute)}, timeout=2):
        found = ended(*ids)
    say([most[0], order, [each.result for each in found], [each.cursor_snapshot for each in found][:2]])
    with source() as mq:
        cursor, = mq.dbsession.query(model.JobCursor)
        say([cursor.key, cursor.properties, cursor.updated_job_id == ids[-1], cursor.updated_job.id == ids[-1]])
    """,
    [1, [*range(5)], [sum(range(n + 1)) for n in range(5)], [None, {"sum": 0, "queues": ["a"]}]],
    ["c", {"sum": 10, "queues": ["a", "b", "a", "b", "a"]}, True, True],
)

program(
    "the cursor of a job that failed",
    """
    def execute(job):
        job.cursor["n"] = job.cursor.get("n", 0) + job.args["n"]
        if job.method == "raise":
            raise ValueError
        if job.method != "done":
            raise FailedJobError("oh", update_cursor=job.method == "kept")
        return job.cursor["n"]
    with Working({"a": calls(execute)}, threads=1):
        for n, method in enumerate(["done", "raise", "failed", "kept", "done"]):
            with source() as mq:
                id = mq.call("a", method, {"n": 10 ** n}, cursor_key="c")
            found, = ended(id)
            say([found.state, found.cursor_snapshot])
        say(found.result)
    """,
    ["completed", None],
    ["failed", {"n": 1}],
    ["failed", {"n": 1}],
    ["failed", {"n": 1}],
    ["completed", {"n": 1001}],
    11001,
)

program(
    "collapsing",
    """
    def resolve(job):
        job.args = {"ids": job.args["ids"] + [9]}
    far = datetime.now(timezone.utc).replace(tzinfo=None) + timedelta(hours=1)
    def call(method="sync", key="c", when=far, queue="a", **options):
        with source() as mq:
            return mq.call(queue, method, {"ids": [1]}, cursor_key=key, collapse_on_cursor=True, when=when, **options)
    id = call(trace={"t": 1})
    later = far + timedelta(hours=1)
    say([call() == id, call(conflict_resolver=resolve, when=later) == id, call(trace={"t": 2}) == id])
    say([call("other") == id, call(key="d") == id, call(queue="b") == id])
    found = job(id)
    say([found.args, found.collapsible, found.trace, found.scheduled_time == far])
    with Working({"a": calls(lambda job: job.args)}):
        say(call(when=datetime(2026, 1, 1)) == id)
        found, = ended(id)
        say([found.result, found.scheduled_time.isoformat()])
    say(call() == id)
    with source() as mq:
        try:
            mq.call("a", "sync", {}, collapse_on_cursor=True)
        except ValueError:
            say("no key")
    """,
    [True, True, True],
    [False, False, False],
    [{"ids": [1, 9]}, True, {"t": 1}, True],
    True,
    [{"ids": [1, 9]}, "2026-01-01T00:00:00"],
    False,
    "no key",
)

program(
    "retry_job and cancel_job",
    """
    def tried(function, *args):
        try:
            function(*args)
        except RuntimeError:
            return "RuntimeError"
    def execute(job):
        if job.method == "raise":
            raise ValueError
    with source() as mq:
        gone = mq.call("a", "gone", {})
        mq.cancel_job(gone)
    found = job(gone)
    say([found.state, found.end_time is not None, found.start_time])
    with Working({"a": calls(execute)}, threads=1):
        with source() as mq:
            failed = mq.call("a", "raise", {"n": 1}, cursor_key="c", trace={"t": 1})
            done = mq.call("a", "done", {})
        ended(failed, done)
        with source() as mq:
            say([tried(mq.cancel_job, done), tried(mq.fail_lost_job, failed), tried(mq.cancel_job, failed)])
        say([job(failed).state, job(gone).state])
        with source() as mq:
            again = mq.retry_job(failed)
            later = mq.retry_job(gone)
        say(again == failed)
        ended(again, later)
    found = job(again)
    say([found.state, found.args, found.cursor_key, found.collapsible])
    say(found.trace == {"t": 1, "mq_source_job_id": failed})
    say([job(later).state, job(later).scheduled_time == job(gone).scheduled_time])
    """,
    ["canceled", True, None],
    ["RuntimeError", "RuntimeError", None],
    ["canceled", "canceled"],
    False,
    ["failed", {"n": 1}, "c", False],
    True,
    ["completed", True],
)

program(
    "listeners",
    """
    def execute(job):
        if job.method == "raise":
            raise FailedJobError("oh")
        return [job.args, len(job.listener_ids or [])]
    def stripped(event):
        now = event.pop("now")
        assert datetime.fromisoformat(now).utcoffset() == timedelta(0)
        assert event.pop("listener_id") in (one.id, two.id, three.id)
        return event
    with source() as mq:
        one = mq.add_listener("mq.job_finished.completed.a.done", "b", "heard", {"x": 1})
        two = mq.add_listener("mq.job_finished.failed.a.raise", "b", "failed", None, context_arg_key="why")
        three = mq.add_listener("rain", "later", "wet", {"y": 2}, cursor_key="w", collapse_on_cursor=True,
                                when=timedelta(hours=1))
        say([mq.get_listener(one.id).id == one.id, mq.query_listeners.count(), one.is_enabled, one.context_arg_key,
             two.context_arg_key, three.context_arg_key])
        mq.dbsession.flush()
        for each in (one, two, three):
            mq.dbsession.expunge(each)
    with Working({"a": calls(execute), "b": calls(execute)}):
        with source() as mq:
            ids = [mq.call("a", "done", {"n": 1}), mq.call("a", "raise", {})]
        ended(*ids)
        for id, listener, key in ((ids[0], one, "event"), (ids[1], two, "why")):
            with source() as mq:
                heard = mq.query_jobs.join(model.JobListenerLink).filter_by(listener_id=listener.id).one().id
            found, = ended(heard)
            args, count = found.result
            event = stripped(args.pop(key))
            record = job(id)
            assert event["data"].pop("id") == id
            assert event["data"].pop("start_time") == record.start_time.isoformat()
            assert event["data"].pop("end_time") == record.end_time.isoformat()
            say([found.method, args, event, count, found.trace == {"mq_listener_ids": [listener.id]}])
    with source() as mq:
        mq.disable_listener(one.id)
        say(mq.emit_event("mq.job_finished.completed.a.done", {}))
        mq.enable_listener(one.id)
        say([len(mq.emit_event("mq.job_finished.completed.a.done", {})), mq.emit_event("sun", {})])
        wet = [mq.emit_event("rain", {"mm": n})[0] for n in range(3)]
        say(len(set(wet)))
        found = mq.get_job(wet[0])
        say([found.args["y"], [stripped(dict(event)) for event in found.args["events"]], found.cursor_key,
             found.collapsible, found.state])
        say([link.listener_id == three.id for link in found.listener_links])
    """,
    [True, 3, True, "event", "why", "events"],
    ["heard", {"x": 1}, {"name": "mq.job_finished.completed.a.done",
                         "data": {"queue": "a", "method": "done", "result": [{"n": 1}, 0]}}, 1, True],
    ["failed", {}, {"name": "mq.job_finished.failed.a.raise",
                    "data": {"queue": "a", "method": "raise", "result": "oh"}}, 1, True],
    [],
    [1, []],
    1,
    [2, [{"name": "rain", "data": {"mm": n}} for n in range(3)], "w", True, "pending"],
    [True],
)  # fmt: skip

program(
    "schedules",
    """
    def times(id):
        with source() as mq:
            jobs = mq.query_jobs.join(model.JobScheduleLink).filter_by(schedule_id=id).order_by(model.Job.id).all()
            return [each.scheduled_time for each in jobs]
    start = datetime(2026, 1, 1, 12, 0, 0)
    with Working({"a": calls(lambda job: [job.args, len(job.schedule_ids)])}, timeout=2):
        with source() as mq:
            fast = mq.add_schedule("a", "fast", {"f": 1}, rrule="FREQ=SECONDLY").id
            never = mq.add_schedule("a", "never", None, rrule="FREQ=SECONDLY", is_enabled=False).id
            daily = mq.add_schedule("a", "daily", {}, rrule="FREQ=DAILY;BYHOUR=3;BYMINUTE=30;BYSECOND=0", now=start)
            zoned = mq.add_schedule("a", "z", {}, now=start,
                                    rrule="DTSTART:20260101T080000Z\\nRRULE:FREQ=DAILY;COUNT=3", reload=False)
            say([daily.next_execution_time.isoformat(), daily.created_time == start, daily.args,
                 zoned.next_execution_time.isoformat()])
            daily, zoned = daily.id, zoned.id
        until(lambda: len(times(fast)) >= 3)
        with source() as mq:
            mq.disable_schedule(fast)
            say([mq.get_schedule(fast).is_enabled, mq.get_schedule(fast).next_execution_time])
        seen = times(fast)
        say([len(seen) == len(set(seen)), all(time.microsecond == seen[0].microsecond for time in seen), times(never)])
        say(abs(seen[1] - seen[0]) >= timedelta(seconds=1))
        with source() as mq:
            mq.enable_schedule(fast, now=start)
            say((mq.get_schedule(fast).next_execution_time - start) <= timedelta(seconds=3600 * 24 * 365))
            mq.disable_schedule(fast)
            id = mq.call_schedule(daily, now=start + timedelta(days=1))
            say(mq.get_schedule(daily).next_execution_time.isoformat())
            say([mq.get_job(id).scheduled_time.isoformat(), mq.query_schedules.count()])
        found, = ended(id)
        say([found.result, found.trace == {"mq_schedule_ids": [daily]}])
        with source() as mq:
            say([each.id == daily for each in mq.get_job(id).schedules])
        say(len(times(fast)) - len(seen))
    """,
    ["2026-01-02T03:30:00", True, {}, "2026-01-02T08:00:00"],
    [False, None],
    [True, True, []],
    True,
    True,
    "2026-01-03T03:30:00",
    ["2026-01-02T12:00:00", 4],
    [[{}, 1], True],
    [True],
    0,
)

program(
    "status",
    """
    go = threading.Event()
    with Working({"a": calls(lambda job: go.wait(60))}, name="w", threads=2) as worker:
        say(worker.get_status()["active_jobs"])
        with source() as mq:
            id = mq.call("a", "m", {"n": 1}, cursor_key="c")
        until(lambda: worker.get_status()["active_jobs"])
        status = worker.get_status()
        status["active_jobs"][0]["id"] -= id
        say(status)
        say(job(id).state)
        worker.shutdown_gracefully()
        go.set()
    found, = ended(id)
    say([found.state, worker.get_status()["running"]])
    """,
    [],
    {"name": "w", "running": True, "total_threads": 2, "idle_threads": 1,
     "active_jobs": [{"id": 0, "queue": "a", "method": "m", "args": {"n": 1}, "cursor_key": "c"}]},
    "running",
    ["completed", False],
)  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_says_the_same_on_both(name: str, ours: Package, real: Package) -> None:
    code, expected = PROGRAMS[name]
    assert real.run(code) == expected, "this is not what psycopg2_mq does"
    assert ours.run(code) == expected


@pytest.fixture(scope="session")
def readme(real_folder: Path) -> list[str]:
    """The programs of its README: a worker and a source."""
    (metadata,) = real_folder.glob("psycopg2_mq-*.dist-info/METADATA")
    text = message_from_string(metadata.read_text("utf-8")).get_payload()
    found = re.findall(r"code-block:: python\n\n((?:    .*\n|\n)+)", str(text) + "\n")
    return [re.sub("^    ", "", block, flags=re.M) for block in found]


@pytest.mark.parametrize("package", ["real", "ours"])
def test_the_programs_of_its_readme(package: str, readme: list[str], request: pytest.FixtureRequest) -> None:
    """Unchanged but for the import, and for what the second one leaves out."""
    chosen: Package = request.getfixturevalue(package)
    worker, source = (text.replace("from psycopg2_mq import", "from PACKAGE import") for text in readme)
    imports = """
import sys
from PACKAGE import MQSource, make_default_model
from sqlalchemy import MetaData, create_engine
from sqlalchemy.orm import sessionmaker
"""
    source = source.replace("'postgresql+psycopg2://...'", "sys.argv[1]").replace("begin():", "begin() as dbsession:")
    (line,) = chosen.start(source, prelude=imports).communicate(timeout=60)[0].splitlines()
    id = int(line.removeprefix("queued job="))
    running = chosen.start(worker, prelude="")
    said = """
    found, = ended(int(sys.argv[2]))
    say([found.state, found.result])
    """
    assert chosen.run(said, str(id)) == [["completed", 'hello, Andy from method="hello"']]
    running.send_signal(signal.SIGTERM)
    assert running.wait(30) == 0, running.communicate()
