"""How pq 1.9.1 lost, delayed or dropped jobs, found in its source: none of it happens any more.

Each test runs one program with this version and with the real 1.9.1, and knows what both print: so it shows the fault,
and that it is gone. ``docs/reference/losses.rst`` lists them, and those that other tests prove.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from psycopg2.extensions import make_dsn
from support import execute
from support.versions import Forks

import pq as package
from pq.tasks import PQ, Queue

ROOT = Path(__file__).parents[2]

#: Beside what `Forks` gives.
HELPERS = """
import logging, os, signal, threading
import pq.tasks as tasks
from contextlib import suppress
from psycopg2.extensions import connection, cursor
from psycopg2.pool import ThreadedConnectionPool

logging.disable(logging.CRITICAL)
dsn, is_old = sys.argv[1], library.__version__ == "1.9.1"
aside = psycopg2.connect(dsn)
aside.autocommit = True
with suppress(psycopg2.errors.DuplicateTable):
    pq.create()
    aside.cursor().execute("create table done (what text)")


def sql(statement, params=None):
    with aside.cursor() as cursor:
        cursor.execute(statement, params)
        return cursor.fetchall() if cursor.description else []


def put_elsewhere(data=1, queue="a", table="queue"):
    sql(f"insert into {table} (q_name, data) values (%s, %s)", (queue, json.dumps(data)))


def kept(id):
    # ready, or running under a lease, or dead: in any case somebody will see it again
    keeps = "dequeued_at is null or coalesce(to_jsonb(q)->>'due_at', to_jsonb(q)->>'error') is not null"
    return sql(f"select {keeps} from queue as q where id = %s", (id,)) == [(True,)]


def chores(name="a"):
    queue = tasks.PQ(conn)[name]
    queue.timeout = 0.05
    return queue


def in_thread(act):
    thread = threading.Thread(target=act)
    thread.start()
    thread.join()


def when_waiting(act):
    # call it in a thread, once the connection has looked for a job and become idle
    state = "select state_change::text, state from pg_stat_activity where pid = %s"
    pid = conn.get_backend_pid()
    before = sql(state, (pid,))[0][0]
    def wait():
        while (now := sql(state, (pid,))[0])[1] != "idle" or now[0] == before:
            time.sleep(0.01)
        act()
    threading.Thread(target=wait).start()


# 1.9.1 waits for all of it when it is not woken. Here nothing but a wake-up comes before it is over.
timeout = 1 if is_old else 30


def patient_on(conn):
    return PQ(conn, **({} if is_old else {"poll_interval": 60}))


def woken(queue):
    began = time.monotonic()
    job = queue.get(timeout=timeout)
    return job is not None and time.monotonic() - began < 0.9 * timeout


def say(what):
    print(json.dumps(what))


def say_whether(act, errors=psycopg2.Error):
    try:
        act()
        say("fine")
    except errors:
        say("an error")
"""


class Trial:
    """A version of pq, and a schema for it."""

    def __init__(self, forks: Forks, dsn: str, home: Path) -> None:
        self._forks = forks
        self.dsn = dsn
        self.home = home
        self.is_old = forks.version == "1.9.1"

    def prints(self, code: str, *args: Any, here: Any, in_1_9_1: Any) -> None:
        """The program says this."""
        status, output, errors = self._forks.run(self.dsn, self.home, HELPERS + dedent(code), *args)
        assert status == 0, errors
        assert json.loads(output) == (in_1_9_1 if self.is_old else here)

    def runs(self, code: str) -> None:
        """The program ends, however it does."""
        self._forks.run(self.dsn, self.home, HELPERS + dedent(code))

    def expire_leases(self) -> None:
        if not self.is_old:
            execute(self.dsn, "update queue set due_at = now() where due_at is not null")


@pytest.fixture(scope="module")
def database(server: str) -> Iterator[str]:
    """The DSN of a database for all of them."""
    name = f"pq_losses_{uuid.uuid4().hex[:8]}"
    execute(server, f"create database {name} template template0")
    yield make_dsn(server, dbname=name, options="-c search_path=trial")
    execute(server, f"drop database {name} with (force)")


@pytest.fixture(scope="module")
def forks_here() -> Iterator[Forks]:
    forks = Forks(package.__version__, ROOT)
    yield forks
    forks.close()


@pytest.fixture(scope="module")
def forks_in_1_9_1(downloaded: Path) -> Iterator[Forks]:
    forks = Forks("1.9.1", downloaded)
    yield forks
    forks.close()


@pytest.fixture(params=["here", "in_1_9_1"])
def trial(request: pytest.FixtureRequest, database: str, tmp_path: Path) -> Trial:
    execute(database, "drop schema if exists trial cascade")
    execute(database, "create schema trial")
    return Trial(request.getfixturevalue(f"forks_{request.param}"), database, tmp_path)


# -- a job is taken


NOTE = """
queue = chores()

@queue.task()
def note(job_id):
    if not sql("select 1 from done"):
        sql("insert into done values ('begun')")
        os.kill(os.getpid(), signal.%s)
    sql("insert into done values ('ended')")
"""

ENDED = "say(sql(\"select count(*) from done where what = 'ended'\")[0][0])"


def test_the_job_of_a_killed_worker_runs_again(trial: Trial) -> None:
    killed = NOTE % "SIGKILL"
    trial.runs(killed + "note(); queue.work(burst=True)")
    trial.expire_leases()
    trial.prints(killed + "queue.work(burst=True);" + ENDED, here=1, in_1_9_1=0)


def test_the_job_of_a_worker_that_is_told_to_stop_is_ended(trial: Trial) -> None:
    told = NOTE % "SIGTERM"
    trial.runs(told + "note(); queue.work()")
    trial.prints(told + "queue.work(burst=True);" + ENDED, here=1, in_1_9_1=0)


FAILING = """
queue, done = chores(), []

@queue.task()
def after(job_id):
    done.append(job_id)

@queue.task()
def fail(job_id):
    raise ValueError

@queue.task(max_retries=1, retry_in="0s")
def spoil(job_id, arguments):
    arguments.append({1, 2})
    raise ValueError

@queue.task()
def leave(job_id):
    sys.exit()

@queue.task()
def interrupt(job_id):
    raise KeyboardInterrupt

def call(function, **more):
    return {"function": function, "args": [], "kwargs": {}, "retried": 0, "retry_in": "1h", "max_retries": 0, **more}

outcome = {}
for put in args:
    done.clear()
    id = eval(put)
    after()
    with suppress(BaseException):
        queue.work(burst=True)
    outcome[put] = [kept(id), bool(done)]
    sql("delete from queue")
say(outcome)
"""

#: How they are put, and whether a worker of 1.9.1 went on with the next job.
HOPELESS = {
    "fail()": True,  # out of attempts
    "leave()": False,
    "interrupt()": False,
    "spoil([])": False,  # the arguments could not be put again
    "queue.put(call('nowhere.eat'))": True,
    "queue.put(call('broken.eat'))": False,  # the import fails
    "queue.put(call('nowhere.eat', max_retries=1, retry_in='soon'))": False,
    "queue.put({'function': 'nowhere.eat'})": False,
    "queue.put({})": False,
    "queue.put(5)": False,
}


def test_what_cannot_be_performed_is_kept_and_the_worker_goes_on(trial: Trial) -> None:
    (trial.home / "broken.py").write_text("1 / 0")
    trial.prints(
        FAILING,
        *HOPELESS,
        here={put: [True, True] for put in HOPELESS},
        in_1_9_1={put: [False, goes_on] for put, goes_on in HOPELESS.items()},
    )


def test_a_job_that_cannot_be_decoded_is_kept(trial: Trial) -> None:
    code = """
    queue = pq["a/pickle"]
    id = pq["a"].put("no pickle")
    with suppress(Exception):
        queue.get(block=False)
    say(kept(id))
    """
    trial.prints(code, here=True, in_1_9_1=False)


def test_a_worker_goes_on_after_a_job_that_cannot_be_decoded(trial: Trial) -> None:
    code = """
    queue, done = chores("a/pickle"), []
    id = pq["a"].put("no pickle")

    @queue.task()
    def after(job_id):
        done.append(job_id)

    after()
    with suppress(Exception):
        queue.work(burst=True)
    say([kept(id), bool(done)])
    """
    trial.prints(code, here=[True, True], in_1_9_1=[False, False])


def test_a_retry_that_cannot_be_written_is_not_lost(trial: Trial) -> None:
    """The connection breaks between the handler's failure and what is written because of it."""
    code = """
    queue = chores()
    sql("create function cut() returns trigger language plpgsql as $$ begin "
        "perform pg_terminate_backend(pg_backend_pid()); return new; end $$")

    @queue.task(max_retries=3, retry_in="0s")
    def fail(job_id):
        sql("create trigger cut before insert or update on queue for each row execute function cut()")
        raise ValueError

    id = fail()
    job = queue.get(**({} if is_old else {"lease": "1h"}))
    with suppress(Exception):
        queue.perform(job)
    say([kept(id), sql("select count(*) from queue")])
    """
    trial.prints(code, here=[True, [[1]]], in_1_9_1=[False, [[1]]])


ORCHARD = """
import os, psycopg2
from pq.tasks import PQ

queue, eaten = PQ(psycopg2.connect(os.environ["PQ_TEST_CHORES"]))["a"], []

@queue.task()
def eat(job_id):
    eaten.append(job_id)
"""


def test_a_task_that_was_missing_once_is_found_when_it_is_there(trial: Trial) -> None:
    (trial.home / "planted.py").write_text(ORCHARD)
    code = """
    import importlib
    queue = chores()
    call = {"function": "orchard.eat", "args": [], "kwargs": {}, "retried": 0, "retry_in": "0s", "max_retries": 0}
    queue.put(call)
    queue.work(burst=True)
    os.rename("planted.py", "orchard.py")
    importlib.invalidate_caches()
    queue.put(call)
    queue.work(burst=True)
    import orchard
    say(len(orchard.eaten))
    """
    trial.prints(code, here=1, in_1_9_1=0)


def test_a_task_that_is_imported_by_its_path_is_performed_and_not_put_again(trial: Trial) -> None:
    (trial.home / "orchard.py").write_text(ORCHARD)
    trial.runs("import orchard; orchard.eat()")
    code = """
    queue = chores()
    queue.perform(queue.get(block=False))
    import orchard
    say([len(orchard.eaten), len(queue)])
    """
    trial.prints(code, here=[1, 0], in_1_9_1=[0, 1])


def test_a_retry_keeps_its_place(trial: Trial) -> None:
    code = """
    queue = chores()

    @queue.task(expected_at="1s", max_retries=1)
    def fail(job_id):
        raise ValueError

    fail()
    queue.work(burst=True)
    say(sql("select expected_at is not null from queue where schedule_at > now()"))
    """
    trial.prints(code, here=[[True]], in_1_9_1=[[False]])


# -- a consumer waits


def test_a_put_between_the_look_and_listen_wakes(trial: Trial) -> None:
    code = """
    puts, connect = [1], psycopg2.connect

    class Connection(connection):
        def cursor(self, *args, cursor_factory=cursor, **options):
            class Cursor(cursor_factory):
                def execute(self, query, params=None):
                    if "listen" in str(query).lower() and puts:
                        put_elsewhere(puts.pop())
                    super().execute(query, params)
            return super().cursor(*args, cursor_factory=Cursor, **options)

    # also of connections that pq opens
    psycopg2.connect = lambda *args, **options: connect(*args, connection_factory=Connection, **options)
    patient = patient_on(psycopg2.connect(dsn))
    say([woken(patient["a"]), puts])
    """
    trial.prints(code, here=[True, []], in_1_9_1=[False, []])


@pytest.mark.parametrize(
    ("before", "put"),
    [
        pytest.param("queue.put('later', '3599s')", "put_elsewhere()", id="while another job is scheduled"),
        pytest.param("PQ(conn, table='second').create()", "put_elsewhere()", id="with a second table in the schema"),
    ],
)
def test_a_put_wakes(trial: Trial, before: str, put: str) -> None:
    code = """
    queue = patient_on(conn)["a"]
    %s
    when_waiting(lambda: %s)
    say(woken(queue))
    """
    trial.prints(code % (before, put), here=True, in_1_9_1=False)


@pytest.mark.parametrize("act", ["holder.rollback()", "sql('update queue set dequeued_at = null')"])
def test_a_job_that_comes_back_is_found_by_who_waits_already(trial: Trial, act: str) -> None:
    """Nobody is notified of that, so 1.9.1 slept until its timeout, however long."""
    code = """
    put_elsewhere()
    holder = psycopg2.connect(dsn)
    if "rollback" in args[0]:
        holder.cursor().execute("select from queue for update")
    else:
        pq["a"].get()
    when_waiting(lambda: eval(args[0]))
    say(woken(pq["a"]))
    """
    trial.prints(code, act, here=True, in_1_9_1=False)


def test_a_timeout_is_for_one_call(trial: Trial) -> None:
    code = """
    queue = pq["a"]
    queue.get(timeout=0.01)
    first = queue.timeout
    began = time.monotonic()
    other = pq["b"]
    other.timeout = timeout
    other.get(timeout=0)
    say([first, time.monotonic() - began < 0.9 * timeout])
    """
    trial.prints(code, here=[1, True], in_1_9_1=[0.01, False])


def test_a_wait_does_not_end_early_for_a_job_that_is_not_due(trial: Trial) -> None:
    """1.9.1 took the seconds of "1 hour, 0 minutes, 2 seconds" for all of it."""
    code = """
    queue = pq["a"]
    queue.put("later", "3602s")
    began = time.monotonic()
    queue.get(timeout=3.5)
    say(time.monotonic() - began >= 3.4)
    """
    trial.prints(code, here=True, in_1_9_1=False)


@pytest.mark.parametrize(
    ("name", "act"),
    [("é" * 40, "queue.put(1)"), ('the "best" ones', "queue.get(timeout=0.01)")],
    ids=["long in bytes", "quoted"],
)
def test_any_name_can_be_used(trial: Trial, name: str, act: str) -> None:
    code = f"""
    queue = pq[args[0]]
    say_whether(lambda: {act}, Exception)
    """
    trial.prints(code, name, here="fine", in_1_9_1="an error")


def test_a_program_with_many_open_files_can_wait(trial: Trial) -> None:
    """select() takes no file descriptor from 1024 on."""
    code = """
    import resource
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (2048, hard))
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        say(PQ(psycopg2.connect(dsn))["a"].get(timeout=0.05))
    except ValueError:
        say("an error")
    """
    trial.prints(code, here=None, in_1_9_1="an error")


# -- transactions


@pytest.mark.parametrize("act", ["put", "get"])
def test_other_threads_are_not_part_of_a_block(trial: Trial, act: str) -> None:
    """A put was lost though its id had been returned, and a job that was got came again."""
    code = """
    pool = ThreadedConnectionPool(1, 5, dsn)
    queue = PQ(pool=pool)["a"]
    queue.put("first")
    acts = {"put": lambda: queue.put("second"), "get": lambda: queue.get(block=False)}
    with suppress(ZeroDivisionError), queue:
        in_thread(acts[args[0]])
        1 / 0
    say(len(queue))
    """
    here, in_1_9_1 = {"put": (2, 1), "get": (0, 1)}[act]
    trial.prints(code, act, here=here, in_1_9_1=in_1_9_1)


def test_a_put_to_another_queue_does_not_commit_the_block(trial: Trial) -> None:
    """The job that was taken was lost when the block failed after that."""
    code = """
    a, b = pq["a"], pq["b"]
    a.put("order")
    with suppress(ZeroDivisionError), a:
        a.get()
        b.put("invoice")
        1 / 0
    say([len(a), len(b)])
    """
    trial.prints(code, here=[1, 0], in_1_9_1=[0, 1])


def test_a_refused_put_to_another_queue_does_not_roll_back_the_block(trial: Trial) -> None:
    code = """
    a, b = pq["a"], pq["b"]
    with a:
        a.put("order")
        with suppress(TypeError):
            b.put(object())
    say(len(a))
    """
    trial.prints(code, here=1, in_1_9_1=0)


def test_a_refused_put_of_another_thread_does_not_roll_back_the_block(trial: Trial) -> None:
    """All of them on one connection."""
    code = """
    a, b = pq["a"], pq["b"]
    def refused():
        with suppress(TypeError):
            b.put(object())
    with a:
        a.put("order")
        thread = threading.Thread(target=refused)
        thread.start()
        thread.join(None if is_old else 0.1)  # here it waits until the block has ended
    thread.join()
    say(len(a))
    """
    trial.prints(code, here=1, in_1_9_1=0)


def test_a_block_that_could_not_be_committed_says_so(trial: Trial) -> None:
    code = """
    queue = pq["a"]
    said = False
    try:
        with queue as cursor:
            queue.put(1)
            with suppress(psycopg2.Error):
                cursor.execute("select 1 / 0")
    except psycopg2.Error:
        said = True
    say([len(queue), said])
    """
    trial.prints(code, here=[0, True], in_1_9_1=[0, False])


def test_a_block_is_a_transaction_on_a_connection_in_autocommit_mode(trial: Trial) -> None:
    code = """
    conn.autocommit = True
    with suppress(ZeroDivisionError), pq["a"] as cursor:
        cursor.execute("insert into done values ('half')")
        1 / 0
    say(sql("select count(*) from done"))
    """
    trial.prints(code, here=[[0]], in_1_9_1=[[1]])


def test_a_block_may_be_inside_of_another(trial: Trial) -> None:
    code = """
    queue = pq["a"]
    with suppress(Exception):
        with queue:
            queue.put("outer")
            with queue:
                queue.put("inner")
    say(len(queue))
    """
    trial.prints(code, here=2, in_1_9_1=0)


def test_a_job_that_cannot_be_decoded_is_kept_though_the_block_is_committed(trial: Trial) -> None:
    code = """
    id = pq["a"].put("no pickle")
    queue = pq["a/pickle"]
    with queue, suppress(Exception):
        queue.get()
    say(kept(id))
    """
    trial.prints(code, here=True, in_1_9_1=False)


# -- the connection


def test_a_statement_that_failed_once_can_succeed_later(trial: Trial) -> None:
    """1.9.1 noted that it had prepared it before it tried to."""
    code = """
    queue = PQ(conn, table="later")["a"]
    with suppress(psycopg2.Error):
        queue.put(1)
    conn.rollback()
    sql("create table later (like queue including all)")
    say_whether(lambda: queue.put(2))
    """
    trial.prints(code, here="fine", in_1_9_1="an error")


def test_after_discard_all_it_goes_on(trial: Trial) -> None:
    code = """
    queue = pq["a"]
    queue.put(1)
    conn.autocommit = True
    conn.cursor().execute("discard all")
    conn.autocommit = False
    say_whether(lambda: queue.put(2))
    """
    trial.prints(code, here="fine", in_1_9_1="an error")


def test_a_put_goes_to_its_own_table_whatever_the_names_are(trial: Trial) -> None:
    """Table "jobs" and queue "old_mail" had the prepared statement of table "jobs_old" and queue "mail"."""
    code = """
    sql("create table jobs (like queue including all)")
    sql("create table jobs_old (like queue including all)")
    first, second = PQ(conn, table="jobs")["old_mail"], PQ(conn, table="jobs_old")["mail"]
    first.put("to jobs")
    second.put("to jobs_old")
    say([sql("select count(*) from jobs"), sql("select count(*) from jobs_old")])
    """
    trial.prints(code, here=[[[1]], [[1]]], in_1_9_1=[[[2]], [[0]]])


def test_a_connection_that_the_server_has_closed_is_no_error(trial: Trial) -> None:
    code = """
    pool = ThreadedConnectionPool(1, 5, dsn)
    queue = PQ(pool=pool)["a"]
    queue.put(1)
    sql("select pg_terminate_backend(pid, 30000) from pg_stat_activity "
        "where datname = current_database() and pid not in (pg_backend_pid(), %s)", (conn.get_backend_pid(),))
    say_whether(lambda: queue.put(2))
    """
    trial.prints(code, here="fine", in_1_9_1="an error")


# -- time and order


def test_a_job_that_has_become_due_is_not_passed_over(trial: Trial) -> None:
    """1.9.1 came to it, and so to each retry, when no other job was left: never, in a queue that is always busy."""
    code = """
    queue = pq["a"]
    queue.put("due", schedule_at=dt.datetime(2000, 1, 1), expected_at=dt.datetime(2000, 1, 1))
    queue.put("plain")
    say(queue.get(block=False).data)
    """
    trial.prints(code, here="due", in_1_9_1="plain")


@pytest.mark.parametrize(("spec", "here", "in_1_9_1"), [("1h30m", 5400, 3600), ("5months", "refused", 300)])
def test_a_time_is_read_whole(trial: Trial, spec: str, here: Any, in_1_9_1: Any) -> None:
    """A job ran earlier than it was told to."""
    code = """
    try:
        pq["a"].put(1, args[0])
        say(sql("select round(extract(epoch from schedule_at - now()) / 100)::int * 100 from queue")[0][0])
    except ValueError:
        say("refused")
    """
    trial.prints(code, spec, here=here, in_1_9_1=in_1_9_1)


def test_no_time_in_a_row_blocks_the_queue(trial: Trial) -> None:
    """A time that Python does not have made each get fail, at the same job."""
    code = """
    queue, got = pq["a"], []
    sql("insert into queue (q_name, enqueued_at, data) values ('a', '4000-01-01 BC', '1'), ('a', now(), '2')")
    for attempt in range(3):
        with suppress(Exception):
            got.append(queue.get(block=False).data)
    say(got)
    """
    trial.prints(code, here=[1, 2], in_1_9_1=[])


def test_update_reaches_no_job_of_another_queue(trial: Trial) -> None:
    code = """
    id = pq["a"].put("mine")
    with suppress(LookupError):
        pq["b"].update(id, "yours")
    say(pq["a"].get(block=False).data)
    """
    trial.prints(code, here="mine", in_1_9_1="yours")


# -- what looking for these has brought up here


@pytest.fixture
def tasks(dsn: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[PQ]:
    monkeypatch.setattr(Queue, "handler_registry", {})
    with PQ(dsn, timeout=0.05) as pq:
        yield pq


def nested() -> list[Any]:
    found: list[Any] = []
    for _ in range(100_000):
        found = [found]
    return found


@pytest.mark.parametrize(
    ("queue", "make"),
    [("a", set), ("a", nested), ("a/pickle", lambda: lambda: None)],
    ids=["TypeError", "RecursionError", "PicklingError"],
)
def test_a_result_that_cannot_be_encoded_is_a_failure(tasks: PQ, queue: str, make: Any) -> None:
    """Else its lease would expire, and it would run again and again, with no word of why."""
    id = tasks[queue].task(name="give", result=True)(lambda job_id: make())()
    tasks[queue].work(burst=True)
    assert [job.id for job in tasks[queue].dead] == [id]


def test_a_task_that_asks_for_a_retry_gets_it_however_often(tasks: PQ) -> None:
    attempts: list[int] = []

    @tasks["a"].task()
    def poll(job_id: int) -> None:
        attempts.append(job_id)
        if len(attempts) < 8:
            raise package.Retry(in_="0s")

    poll()
    tasks["a"].work(burst=True)
    assert len(attempts) == 8
    assert len(tasks["a"].dead) == 0


def test_a_task_that_loses_the_lease_of_another_job_fails(tasks: PQ) -> None:
    @tasks["a"].task()
    def settle_twice(job_id: int) -> None:
        tasks["b"].put(1)
        other: Any = tasks["b"].get(lease="1h")
        other.done()
        other.done()

    id = settle_twice()
    tasks["a"].work(burst=True)
    assert [job.id for job in tasks["a"].dead] == [id]


# -- the list of all


def test_the_list_names_all_of_these() -> None:
    text = (ROOT / "docs" / "reference" / "losses.rst").read_text("utf-8")
    tests = re.findall(r"^def (test_\w+)\(trial: ", Path(__file__).read_text("utf-8"), re.MULTILINE)
    assert [name for name in tests if f"test_losses.py::{name}``" not in text] == []
