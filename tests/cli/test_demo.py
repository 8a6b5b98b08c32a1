"""The demo: the real one, in processes of its own, on a server of its own; and its proof, on the test's server."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from support import wait_until

from pq import PQ, Queue
from pq._cli import demo

ROOT = Path(demo.__file__).parents[2]
COMMAND = [sys.executable, "-m", "pq", "demo"]
CLAIMS = ["nothing lost", "nothing twice", "urgent job", "scheduled job", "failed job", "killed worker"]
PATIENCE = 150  # seconds; longer than the demo's own

# Makes the terminal its controlling one, so that ^C there means SIGINT, and becomes the demo.
ON_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)
COLUMNS = 40


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    """A folder that anybody may enter, as the server must where we are root."""
    base = Path(tempfile.mkdtemp(prefix="pqd-", dir=os.path.realpath(tempfile.gettempdir())))
    base.chmod(0o755)
    yield base
    shutil.rmtree(base)


@pytest.fixture
def scratch(base: Path) -> Iterator[Path]:
    """The folder for temporary files; the demo leaves none there, and nothing that runs."""
    folder = Path(tempfile.mkdtemp(dir=base))
    folder.chmod(0o755)
    yield folder
    nothing_runs_in(folder)
    assert list(folder.iterdir()) == []


def environment(scratch: Path, **given: str) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(scratch), "LC_ALL": "C.UTF-8", "COLUMNS": str(COLUMNS), **given}


def nothing_runs_in(folder: Path) -> None:
    """No process has the folder among its arguments, or works in it, as those of PostgreSQL do."""

    def concerned(process: Any) -> bool:
        try:
            return any(str(folder) in text for text in process.cmdline()) or str(folder) in process.cwd()
        except psutil.Error:
            return False

    wait_until(lambda: not any(map(concerned, psutil.process_iter())), "the end of all processes", patience=15)


class Terminal:
    """The demo on a terminal of its own."""

    def __init__(self, *args: str, env: dict[str, str]) -> None:
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", ON_TERMINAL, *COMMAND, *args],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env=env,
            cwd=ROOT,
        )
        os.close(slave)
        self.output = ""

    def read_until(self, text: str | None) -> None:
        """Read until the text appears; None: to the end."""
        deadline = time.monotonic() + PATIENCE
        while text is None or text not in self.output:
            ready, _, _ = select.select([self._master], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"only this within {PATIENCE} s: {self.output!r}"
            try:
                chunk = os.read(self._master, 65536)
            except OSError:  # what Linux says at the end
                chunk = b""
            self.output += chunk.decode()
            if not chunk:
                assert text is None, f"ended without {text!r}: {self.output!r}"
                return

    def press(self, key: bytes) -> None:
        os.write(self._master, key)

    def end(self) -> int:
        self.read_until(None)
        os.close(self._master)
        return self.process.wait(PATIENCE)

    @property
    def lines(self) -> list[str]:
        """What is to be seen in the end: in each line, what was written last."""
        return [line.rstrip("\r").rsplit("\r", 1)[-1].rstrip() for line in self.output.split("\n")]


# -- the whole


@pytest.fixture(scope="module")
def kept(base: Path) -> Path:
    return base / "kept"


@pytest.fixture(scope="module")
def first(base: Path, kept: Path) -> subprocess.CompletedProcess[str]:
    """A run in a folder that stays, not on a terminal."""
    return subprocess.run(
        [*COMMAND, str(kept)], env=environment(base), cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE
    )


def test_all_holds(first: subprocess.CompletedProcess[str]) -> None:
    assert (first.returncode, first.stderr) == (0, "")
    assert re.findall(r"^  (ok|FAILED) +(\w+ \w+)", first.stdout, re.M) == [("ok", claim) for claim in CLAIMS]


def test_it_is_plain_text_where_there_is_no_terminal(first: subprocess.CompletedProcess[str]) -> None:
    assert first.stdout.isascii()
    assert first.stdout.replace("\n", "").isprintable()
    assert re.search(r"^ +\d\.\d s  [\d,]+ worked, [\d,]+ waiting, [\d,]+ jobs/s$", first.stdout, re.M)


def test_nothing_is_left_running(first: subprocess.CompletedProcess[str], kept: Path) -> None:
    nothing_runs_in(kept)


def test_the_data_stay(first: subprocess.CompletedProcess[str], kept: Path) -> None:
    (put,) = re.findall(r"([\d,]+) jobs put", first.stdout)
    with PQ.embedded(kept) as pq, pq["any"] as cursor:
        cursor.execute(
            "select count(*), count(distinct job) from demo_log where event = 'done' group by run order by min(at)"
        )
        assert cursor.fetchone() == (int(put.replace(",", "")),) * 2


def test_the_lines_to_go_on_with_work(first: subprocess.CompletedProcess[str], kept: Path) -> None:
    lines = re.findall(r"^    (.*)$", first.stdout, re.M)
    assert len(lines) == 3
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"\d+ hello\n", done.stdout)
    nothing_runs_in(kept)


def test_a_second_run_in_the_folder_on_a_terminal(
    first: subprocess.CompletedProcess[str], kept: Path, scratch: Path
) -> None:
    terminal = Terminal(str(kept), env=environment(scratch))
    assert terminal.end() == 0
    assert [claim for claim in CLAIMS if any(line.startswith(f"  ✓ {claim}") for line in terminal.lines)] == CLAIMS
    assert "\x1b" not in terminal.output
    live = re.findall(r"\r( +\d+\.\d s  [\d,]+ worked[^\r\n]*)", terminal.output)
    assert len(live) > 10
    assert max(map(len, live)) < COLUMNS
    assert not any(" waiting" in line for line in terminal.lines)
    nothing_runs_in(kept)


# -- the end before the end


@pytest.mark.parametrize("moment", ["PostgreSQL", "waiting"], ids=["while it starts", "while it works"])
def test_ctrl_c_ends_it_all(scratch: Path, moment: str) -> None:
    terminal = Terminal(env=environment(scratch))
    terminal.read_until(moment)
    terminal.press(b"\x03")
    assert terminal.end() == 128 + signal.SIGINT
    assert [line for line in terminal.lines if line][-1] == "interrupted"
    assert "Traceback" not in terminal.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_ends_it_all(scratch: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        COMMAND, env=environment(scratch), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        assert any("waiting" in line for line in process.stdout)
        process.send_signal(number)
        process.wait(PATIENCE)
    nothing_runs_in(scratch)
    if number == signal.SIGKILL:
        assert process.returncode == -number
        for folder in scratch.iterdir():  # nobody was left to remove it
            shutil.rmtree(folder)
    else:
        assert process.returncode == 128 + number


def test_without_postgresql_it_says_so(scratch: Path) -> None:
    env = environment(scratch, PQ_PG_BIN=str(scratch))
    done = subprocess.run(COMMAND, env=env, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1
    assert done.stderr == f"pq: PQ_PG_BIN is {scratch}, which lacks the programs postgres, initdb\n"


# -- the proof

PUT = 7


@pytest.fixture
def played(pq: PQ) -> Queue:
    """A queue whose jobs were all worked as the demo claims, worker 1 being killed."""
    queue = pq["demo"]
    with queue as cursor:
        cursor.execute(demo.TABLE)
    for kind in ("plain", "plain", "plain", "fails", "hangs"):
        queue.put({"kind": kind})
    queue.put({"kind": "scheduled"}, schedule_at="0s")
    queue.put({"kind": "urgent"}, expected_at="0s")
    with queue as cursor:
        while job := queue.get(block=False):
            kind = job.data["kind"]
            if kind in demo.TROUBLES:
                cursor.execute(demo.LOG, (queue.name, job.id, 1, demo.TROUBLES[kind]))
            cursor.execute(demo.LOG, (queue.name, job.id, 2, "done"))
    return queue


def wrong(queue: Queue, put: int = PUT, killed: int | None = 1) -> list[str]:
    """The claims that do not hold."""
    return [claim for claim, holds, _ in demo.check(queue, put, killed) if not holds]


def test_what_holds_is_found_to_hold(played: Queue) -> None:
    assert [claim for claim, _, _ in demo.check(played, PUT, 1)] == CLAIMS
    assert wrong(played) == []


@pytest.mark.parametrize(
    ("claim", "fault"),
    [
        ("nothing lost", "delete from demo_log where job = (select min(id) from queue)"),
        ("nothing lost", "delete from queue where id = (select min(id) from queue)"),
        ("nothing twice", "insert into demo_log select * from demo_log where job = (select min(id) from queue)"),
        ("urgent job", "update queue set dequeued_at = now() + interval '1 h' where data->>'kind' = 'urgent'"),
        ("scheduled job", "update queue set schedule_at = dequeued_at + interval '1 ms' where schedule_at is not null"),
        ("failed job", "delete from demo_log where event = 'failed'"),
        ("killed worker", "delete from demo_log where event = 'begun'"),
        ("killed worker", "update demo_log set worker = 1"),
        ("killed worker", "update demo_log set worker = 3 where event = 'begun'"),
    ],
)
def test_what_does_not_hold_is_found_out(played: Queue, claim: str, fault: str) -> None:
    with played as cursor:
        cursor.execute(fault)
        assert cursor.rowcount > 0
    assert wrong(played) == [claim]


def test_a_job_that_the_producer_put_but_the_database_lacks_is_lost(played: Queue) -> None:
    assert wrong(played, put=PUT + 1) == ["nothing lost"]


def test_where_nothing_happened_nothing_is_claimed(pq: PQ) -> None:
    with pq["demo"] as cursor:
        cursor.execute(demo.TABLE)
    assert wrong(pq["demo"], put=0, killed=None) == [claim for claim in CLAIMS if claim != "nothing twice"]


@pytest.mark.parametrize(("put", "code"), [(PUT, 0), (PUT + 1, 1)])
def test_the_exit_code_says_whether_all_held(
    played: Queue, capsys: pytest.CaptureFixture[str], put: int, code: int
) -> None:
    show = demo.Demo()
    show.name, show.killed = played.name, 1
    assert show.summary(played, put) == code
    output = capsys.readouterr().out
    assert ("FAILED nothing lost" in output) == (code != 0)
    assert ("This did not hold: nothing lost." in output) == (code != 0)
    assert ("Go on with" in output) == (code == 0)
