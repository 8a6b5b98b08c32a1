"""Workers that die, signals, and the take-over of psycopg2_mq's tables: programs in processes of their own."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support import execute, wait_until
from support.mq import Package

#: A worker whose jobs run until they are told to end, by a row.
WORKER = """
    def told():
        with engine.connect() as db:
            return db.execute(sa.text("select n from go")).scalar()
    def execute(job):
        say("begun")
        until(told)
        return job.args
    MQWorker(engine=engine, model=model, queues={"a": calls(execute)}, timeout=1, jitter=0, threads=2, name="w").run()
"""

#: What a program sees after a worker was killed.
AFTERWARDS = """
    def execute(job):
        return job.args
    with source() as mq:
        id, = [each.id for each in mq.query_jobs]
        mq.add_listener("mq.job_finished.lost.a.m", "a", "heard", {})
        mq.add_listener("mq.job_finished.failed.a.m", "a", "heard", {})
        next = mq.call("a", "next", {}, cursor_key="c")
    with Working({"a": calls(execute)}, timeout=1):
        until(lambda: job(id).state == "lost")
        def heard():
            with source() as mq:
                return [each.args["event"] for each in mq.query_jobs.filter_by(method="heard").order_by(model.Job.id)]
        until(heard)
        event, = heard()
        record = job(id)
        say([record.result, record.end_time is not None, job(next).state])
        say([event["name"], event["data"] == {"job": id, "queue": "a", "method": "m", "start_time":
             record.start_time.isoformat(), "end_time": record.end_time.isoformat()}])
        with source() as mq:
            try:
                mq.cancel_job(id)
            except RuntimeError:
                say("lost jobs can't be cancelled")
        with source() as mq:
            again = mq.retry_job(id)
        with source() as mq:
            mq.fail_lost_job(id, result={"why": "killed"})
        found = ended(next, again)
        say([job(id).state, job(id).result, [each.state for each in found], found[1].result])
        until(lambda: len(heard()) == 2)
        event = heard()[1]
        say([event["name"], event["data"]["id"] == id, event["data"]["result"]])
"""


def begun(package: Package, *calls: str) -> tuple[Any, list[int]]:
    """A worker, and jobs that it runs."""
    put = f"""
    with source() as mq:
        mq.dbsession.execute(sa.text("create table go (n int)"))
        for options in ({", ".join(calls)},):
            say(mq.call("a", "m", {{"n": 1}}, **options))
    """
    ids = package.run(put)
    worker = package.start(WORKER)
    assert [worker.stdout.readline() for _ in ids] == ['"begun"\n'] * len(ids)
    return worker, ids


@pytest.mark.parametrize("package", ["real", "ours"])
def test_the_job_of_a_worker_that_was_killed_is_lost(package: str, request: pytest.FixtureRequest) -> None:
    """It does not run again, and keeps its cursor until a program has decided."""
    chosen: Package = request.getfixturevalue(package)
    worker, _ = begun(chosen, "dict(cursor_key='c')")
    worker.kill()
    assert chosen.run(AFTERWARDS) == [
        [None, True, "pending"],
        ["mq.job_finished.lost.a.m", True],
        "lost jobs can't be cancelled",
        ["failed", {"why": "killed"}, ["completed", "completed"], {"n": 1}],
        ["mq.job_finished.failed.a.m", True, {"why": "killed"}],
    ]


def status_of(worker: Any) -> Any:
    """What a worker prints at SIGUSR1."""
    worker.send_signal(signal.SIGUSR1)
    lines: list[str] = []
    while not lines or lines[-1] != "}\n":
        lines.append(worker.stderr.readline())
    return json.loads("".join(lines))


@pytest.mark.parametrize("package", ["real", "ours"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals(package: str, number: signal.Signals, request: pytest.FixtureRequest) -> None:
    chosen: Package = request.getfixturevalue(package)
    worker, (id,) = begun(chosen, "{}")
    status = wait_until(lambda: (found := status_of(worker))["active_jobs"] and found)
    assert (status["name"], status["idle_threads"], status["active_jobs"][0]["id"]) == ("w", 1, id)
    worker.send_signal(number)
    if number == signal.SIGTERM:
        worker.send_signal(number)  # counts once
    with pytest.raises(subprocess.TimeoutExpired):
        worker.wait(1.5)  # longer than its lease: the job that runs is waited for, and stays the worker's
    execute(chosen.dsn, "insert into go values (1)")
    assert worker.wait(30) == 0
    assert chosen.run("say([job(int(sys.argv[2])).state, job(int(sys.argv[2])).result])", str(id)) == [
        ["completed", {"n": 1}]
    ]


def test_a_second_interrupt_ends_the_worker_and_its_job_is_lost(ours: Package) -> None:
    worker, (id,) = begun(ours, "{}")
    worker.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        worker.wait(0.5)
    worker.send_signal(signal.SIGINT)
    assert worker.wait(30) != 0
    seen = """
    with Working({"a": calls(print)}, timeout=1):
        until(lambda: job(int(sys.argv[2])).state == "lost")
    """
    assert ours.run(seen, str(id)) == []


def test_jobs_of_a_cursor_run_one_at_a_time_in_whatever_worker(ours: Package) -> None:
    """Nothing waits for the upkeep, which comes each minute; and whoever is alone is in order."""
    work = """
    def execute(job):
        with engine.begin() as db:
            db.execute(sa.text("insert into runs (key, id, began) values (:key, :id, clock_timestamp())"),
                       {"key": job.cursor_key, "id": job.id})
        time.sleep(job.id % 3 * 0.002)
        with engine.begin() as db:
            db.execute(sa.text("update runs set ended = clock_timestamp() where id = :id"), {"id": job.id})
        job.cursor["n"] = job.cursor.get("n", 0) + 1
    MQWorker(engine=engine, model=model, queues={name: calls(execute) for name in sys.argv[2]}, threads=3).run()
    """
    ours.run("""
    with source() as mq:
        columns = "key text, id int primary key, began timestamptz, ended timestamptz"
        mq.dbsession.execute(sa.text(f"create table runs ({columns})"))
    """)
    workers = [ours.start(work, queues) for queues in ("ab", "b", "ac")]
    ours.run("""
    for n in range(40):
        with source() as mq:
            for key in "xyz":
                mq.call("abc"[(n + ord(key)) % 3], "m", {}, cursor_key=key)
    """)
    ours.run("""
    with source() as mq:
        ids = [each.id for each in mq.query_jobs]
    ended(*ids)
    """)
    for worker in workers:
        worker.terminate()
    errors = [worker.communicate(timeout=30)[1] for worker in workers]
    assert "Traceback" not in "".join(errors)
    overlaps = """
        select a.id, b.id from runs a join runs b using (key)
        where a.id < b.id and a.began < b.ended and b.began < a.ended
    """
    assert execute(ours.dsn, overlaps) == []
    assert execute(ours.dsn, "select count(*), count(distinct id) from runs where ended is not null") == [(120, 120)]
    assert execute(ours.dsn, "select key, properties->>'n' from mq_job_cursor order by key") == [
        (key, "40") for key in "xyz"
    ]


def test_the_take_over_of_its_tables(real: Package, ours: Package) -> None:
    """Pending jobs, a cursor, a schedule, a listener, and the job of a worker that is gone."""
    ours.use(real)
    worker, (lost,) = begun(real, "dict(cursor_key='l')")
    put = """
    with source() as mq:
        say(mq.call("b", "m", {"n": 2}, cursor_key="c", trace={"t": 1}))
        say(mq.call("b", "m", {"n": 3}, when=datetime.now(timezone.utc).replace(tzinfo=None) + timedelta(hours=1)))
        mq.call("b", "other", {"n": 4}, cursor_key="d", collapse_on_cursor=True)
        mq.add_schedule("b", "tick", {}, rrule="FREQ=SECONDLY")
        mq.add_listener("mq.job_finished.completed.b.m", "b", "heard", {})
        mq.dbsession.add(model.JobCursor(key="c", properties={"seen": 7}))
    """
    pending, later = real.run(put)
    command = ["-m", "pq.contrib.mq", ours.url]
    refused = ours.command(*command)
    assert (refused.returncode, refused.stderr) == (
        1, f"worker w still runs job {lost}: stop the workers of psycopg2_mq first\n",
    )  # fmt: skip
    worker.kill()
    worker.wait()
    wait_until(lambda: not execute(real.dsn, "select from pg_locks where locktype = 'advisory'"))
    done = ours.command(*command)
    assert (done.stdout, done.stderr) == ("3 pending jobs, 1 schedules, 1 jobs of dead workers lost\n", "")
    deliveries = "select q_name, count(*) from queue group by 1 order by 1"
    assert execute(ours.dsn, deliveries) == [("mq_b", 4)]
    again = ours.command(*command)
    assert again.stdout == "3 pending jobs, 1 schedules, 0 jobs of dead workers lost\n"
    assert execute(ours.dsn, deliveries) == [("mq_b", 4)]
    seen = """
    pending, later, lost = map(int, sys.argv[2:])
    def execute(job):
        return [job.args, job.cursor, job.trace]
    with Working({"a": calls(execute), "b": calls(execute)}):
        found, = ended(pending)
        say([found.state, found.result, job(lost).state, job(later).state])
        def count(**which):
            with source() as mq:
                return mq.query_jobs.filter_by(state="completed", **which).count()
        until(lambda: count(method="tick") >= 2 and count(method="heard") and count(method="other"))
    with source() as mq:
        mq.fail_lost_job(lost)
    """
    assert ours.run(seen, str(pending), str(later), str(lost)) == [
        ["completed", [{"n": 2}, {"seen": 7}, {"t": 1}], "lost", "pending"]
    ]


def test_the_take_over_refuses_tables_of_an_older_version(ours: Package) -> None:
    execute(ours.dsn, "create table mq_job (id bigint primary key, queue text, method text)")
    refused = ours.command("-m", "pq.contrib.mq", ours.url)
    assert refused.returncode == 1
    assert refused.stderr.startswith("table mq_job lacks args, collapsible, created_time")
    assert execute(ours.dsn, "select relname from pg_class where relname in ('queue', 'mq_job_cursor')") == []


@pytest.mark.parametrize(
    "url", ["nonsense", "postgresql+nosuch://x/y", "postgresql://localhost:abc/y", "postgresql+psycopg2://127.0.0.1:1/y"]
)
def test_what_the_take_over_can_not_reach_is_a_message(ours: Package, url: str) -> None:
    refused = ours.command("-m", "pq.contrib.mq", url)
    assert refused.returncode == 1
    assert refused.stderr.strip()
    assert "Traceback" not in refused.stderr


def test_a_session_that_zope_commits_is_marked_as_changed(real_folder: Path, ours: Package) -> None:
    ours.add_path(real_folder)
    code = """
    import transaction, zope.sqlalchemy
    Session = orm.sessionmaker(engine)
    def call(**options):
        db = Session()
        zope.sqlalchemy.register(db)
        MQSource(dbsession=db, model=model, **options).call("a", "m", {})
        transaction.commit()
        with source() as mq:
            say(mq.query_jobs.count())
    call(transaction_manager=transaction.manager)
    """
    assert ours.run(code) == [1]


def test_psycopg_3(ours: Package) -> None:
    pytest.importorskip("psycopg")
    ours.url = ours.url.replace("psycopg2", "psycopg")
    code = """
    with Working({"a": calls(lambda job: [job.args, job.cursor])}):
        with source() as mq:
            mq.add_schedule("a", "tick", {}, rrule="FREQ=SECONDLY")
            id = mq.call("a", "m", {"n": 1}, cursor_key="c", when=timedelta(seconds=0.1))
            mq.call("a", "m", {"n": 1}, cursor_key="c", collapse_on_cursor=True)
        say(ended(id)[0].result)
        def ticks():
            with source() as mq:
                return mq.query_jobs.filter_by(method="tick", state="completed").count()
        until(ticks)
    """
    assert ours.run(code) == [[{"n": 1}, {}]]
