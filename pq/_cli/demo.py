"""The demo, ``python -m pq demo``: a few seconds of real work to watch.

One process puts jobs and two others work on them, on a PostgreSQL that is started for the demo. One job fails, and one
worker is killed in the middle of a transaction. At the end the database says whether each job took effect exactly once.

`produce` and `work` are what an application would have; the rest is the proof and the show.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

from .._jobs.job import Job
from .._version import __version__
from ..embedded import Embedded
from ..errors import PQError
from ..tasks.queue import PQ, Queue

AHEAD = 500  # jobs put before the urgent one
SECONDS = 1.5  # of putting jobs, twice
PATIENCE, TICK = 120.0, 0.1  # seconds until the demo gives up, and between two looks at the progress

# Jobs write here. There is no unique constraint: the demo must detect a job that takes effect twice, not prevent it.
TABLE = "create table if not exists demo_log (run text, job bigint, worker int, event text, at timestamptz)"
LOG = "insert into demo_log (run, job, worker, event, at) values (%s, %s, %s, %s, clock_timestamp())"
TROUBLES = {"fails": "failed", "hangs": "begun"}  # kind of job: what its first attempt writes


# -- what the processes do


def produce(queue: Queue) -> int:
    """Put jobs for a while, as fast as possible; return their number."""
    with queue:  # one transaction: all of these jobs appear at once
        for _ in range(AHEAD):
            queue.put({"kind": "plain"})
        queue.put({"kind": "scheduled"}, schedule_at="2s")
        queue.put({"kind": "urgent"}, expected_at="0s")
    count = AHEAD + 2
    for kind in TROUBLES:
        queue.put({"kind": kind})
        count += 1
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            queue.put({"kind": "plain"})
            count += 1
    return count


def work(queue: Queue, outside: Queue, worker: int) -> None:
    """Perform jobs without end: a job and what it writes are committed together, or not at all."""
    while True:
        try:
            with queue as cursor:
                job = queue.get()  # None: there was no job for a second
                if job is not None:
                    cursor.execute(LOG, (queue.name, job.id, worker, "done"))
                    if job.data["kind"] in TROUBLES:
                        make_trouble(job, outside, worker)
        except Trouble:
            pass  # rolled back: nothing was written, and the job is in the queue again


class Trouble(Exception): ...


def make_trouble(job: Job, outside: Queue, worker: int) -> None:
    """Fail or hang at the job's first attempt.

    :param outside: a queue of another PQ, whose transactions are separate: what they write stays.
    """
    kind = job.data["kind"]
    with outside as cursor:
        cursor.execute("select count(*) from demo_log where job = %s", (job.id,))
        if cursor.fetchone() != (0,):
            return
        cursor.execute(LOG, (outside.name, job.id, worker, TROUBLES[kind]))
    if kind == "fails":
        raise Trouble
    sys.stdin.read()  # until this process is killed, or the one that started it


def main(role: str, dsn: str, name: str) -> None:
    """Run a process of the demo: the producer, or the worker with that number."""
    try:
        with PQ(dsn) as pq, PQ(dsn) as other:
            if role == "producer":
                print(produce(pq[name]))
            else:
                work(pq[name], other[name], int(role))
    except Exception as error:  # the server is gone because the demo was killed, for example
        sys.exit(f"pq demo, {role}: {' '.join(str(error).split())}")


# -- the proof

COUNTS = """
    select count(distinct id), count(job), count(distinct job)
    from queue left join demo_log on job = id and event = 'done' where q_name = %(name)s
"""
URGENT = """
    select count(*), count(*) filter (where other.dequeued_at >= urgent.dequeued_at)
    from queue as urgent join queue as other on other.q_name = urgent.q_name and other.id < urgent.id
    where urgent.q_name = %(name)s and urgent.data->>'kind' = 'urgent' and other.data->>'kind' = 'plain'
"""
LATENESS = """
    select extract(epoch from min(dequeued_at - schedule_at))::float
    from queue where q_name = %(name)s and data->>'kind' = 'scheduled'
"""
STORY = """
    select coalesce(json_agg(json_build_array(event, worker) order by at), '[]') from demo_log
    where run = %(name)s and job in (select job from demo_log where run = %(name)s and event = %(event)s)
"""
NEWS = "select event, job, worker from demo_log where run = %(name)s and event <> all (%(known)s)"
SPEED = """
    select count(*), coalesce(count(*) / nullif(extract(epoch from max(at) - min(at)), 0), 0)
    from demo_log where run = %(name)s and event = 'done'
"""


def ask(queue: Queue, question: str, **params: Any) -> Any:
    """Return the first row of the answer; None if there is none."""
    with queue as cursor:
        cursor.execute(question, {"name": queue.name, **params})
        return cursor.fetchone()


def check(queue: Queue, put: int, killed: int | None) -> list[tuple[str, bool, str]]:
    """Ask the database what happened to the jobs; return claims, whether each holds, and what was found.

    :param put: the number of jobs that the producer says it has put.
    :param killed: the number of the worker that was killed.
    """
    jobs, effects, worked = ask(queue, COUNTS)
    (ahead, overtaken), (late,) = ask(queue, URGENT), ask(queue, LATENESS)
    (failed,), (hung,) = ask(queue, STORY, event="failed"), ask(queue, STORY, event="begun")
    lost, twice, on_time = max(put, jobs) - worked, effects - worked, late is not None and late >= 0
    again = [event for event, _ in failed] == ["failed", "done"]
    elsewhere = [event for event, _ in hung] == ["begun", "done"] and hung[0][1] == killed != hung[1][1]
    return [
        ("nothing lost", put == jobs == worked > 0, f"{put:,} jobs put, {worked:,} worked, {lost:,} lost"),
        ("nothing twice", twice == 0, f"{effects:,} effects of {worked:,} jobs, {twice:,} twice"),
        # all but one suffice, because both workers take their first job at the same time
        ("urgent job", 0 < ahead <= overtaken + 1, f"overtook {overtaken:,} of the {ahead:,} put before it"),
        ("scheduled job", on_time, "not taken" if late is None else f"taken {late:.3f} s after it was due"),
        ("failed job", again, told(failed)),
        ("killed worker", elsewhere, f"its job was {told(hung)}"),
    ]


def told(story: list[tuple[str, int]]) -> str:
    return ", then ".join(f"{event} in worker {worker}" for event, worker in story) or "not taken"


# -- the show


class Screen:
    """Lines of text. On a terminal the last line is rewritten; elsewhere a new line appears once a second."""

    def __init__(self) -> None:
        self.terminal = bool(sys.stdout and sys.stdout.isatty())
        self.marks = "✗✓" if self.terminal and sys.stdout.encoding.lower() == "utf-8" else ("FAILED", "ok    ")
        self._next = 1.0

    def say(self, text: str) -> None:
        self._rewrite("")
        print(text, flush=True)

    def progress(self, seconds: float, text: str) -> None:
        self._rewrite(f"{seconds:5.1f} s  {text}")
        if not self.terminal and seconds >= self._next:
            self._next += 1
            print(f"{seconds:5.1f} s  {text}", flush=True)

    def _rewrite(self, text: str) -> None:
        if self.terminal:
            width = shutil.get_terminal_size().columns - 1
            print("\r" + " " * width + "\r" + text[:width], end="", flush=True)


class Demo:
    """Starts the processes, shows what they do, and checks what they did.

    :param folder: where to keep the database; None: in a temporary folder that is removed at the end.
    """

    def __init__(self, folder: str | None = None) -> None:
        self.temporary = not folder
        # Embedded makes the folder, because it knows which user must be able to enter it
        self.folder = folder or os.path.join(tempfile.gettempdir(), f"pq-demo-{secrets.token_hex(8)}")
        self.name = f"demo-{secrets.token_hex(4)}"  # the queue's name; other runs may share the folder
        self.screen = Screen()
        self.processes: list[subprocess.Popen[str]] = []  # the producer, then workers 1, 2, 3
        self.killed: int | None = None
        self.interrupted = 0

    def run(self) -> int:
        """Run the demo, and leave nothing running.

        :returns: the exit code: 0 if all claims hold, 1 if not, 130 after Ctrl-C, 143 after SIGTERM.
        :raises EmbeddedError: PostgreSQL can't be run.
        """
        # signals are noted, and obeyed between two steps, so nothing is left half started or half ended
        signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        handlers = {number: signal.signal(number, self._interrupt) for number in signals}
        try:
            return self._run()
        except (KeyboardInterrupt, PQError):  # Ctrl-C also reaches initdb, which then fails
            if not self.interrupted:
                raise
            self.screen.say("interrupted")
            return 128 + self.interrupted
        finally:
            if self.temporary:
                shutil.rmtree(self.folder, ignore_errors=True)
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _interrupt(self, number: int, _: object) -> None:
        self.interrupted = number

    def _run(self) -> int:
        self.screen.say(f"pq {__version__} and its own PostgreSQL, in {self.folder}{self.temporary * ' (temporary)'}")
        with Embedded(self.folder) as server, PQ(server.dsn) as pq:
            pq.create()
            queue = pq[self.name]
            with queue as cursor:
                cursor.execute(TABLE)
            self.screen.say("One process puts jobs, two perform them, and one of these is killed.\n")
            try:
                for role in ("producer", "1", "2"):
                    self._start(role, server.dsn)
                self._watch(queue, server.dsn)
            finally:
                put = self._end()
            return self.summary(queue, put)

    def _start(self, role: str, dsn: str) -> None:
        command, pipe = [sys.executable, "-m", __name__, role, dsn, self.name], subprocess.PIPE
        # in a session of its own: Ctrl-C reaches only this process, which ends the others
        self.processes.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, start_new_session=True))

    def _watch(self, queue: Queue, dsn: str) -> None:
        """Show the progress until no job is left, and kill the worker that hangs."""
        begin, known = time.monotonic(), ["done"]
        while (seconds := time.monotonic() - begin) < PATIENCE:
            if self.interrupted:
                raise KeyboardInterrupt
            producer, *workers = (process.poll() is None for process in self.processes)  # look before counting the jobs
            waiting, (worked, rate) = len(queue), ask(queue, SPEED)
            self.screen.progress(seconds, f"{worked:,} worked, {waiting:,} waiting, {rate:,.0f} jobs/s")
            if not any(workers) or not (producer or waiting):
                return
            while news := ask(queue, NEWS, known=known):
                event, job, worker = news
                known.append(event)
                what = f"job {job} failed in worker {worker}: rolled back, it is in the queue again"
                if event == "begun":
                    self.killed = worker
                    self.processes[worker].kill()
                    self._start("3", dsn)
                    what = f"worker {worker} killed in the middle of job {job}: worker 3 takes its place"
                self.screen.say(f"{seconds:5.1f} s  {what}")
            time.sleep(TICK)

    def _end(self) -> int:
        """End the processes; return the number of jobs that the producer says it has put."""
        for process in self.processes:
            process.kill()
        said = [process.communicate()[0] for process in self.processes]
        return int(said[0] or 0) if said else 0

    def summary(self, queue: Queue, put: int) -> int:
        """Show the results of `check`; return the exit code."""
        say = self.screen.say
        say("\nWhat the database says:\n")
        for claim, holds, found in (checks := check(queue, put, self.killed)):
            say(f"  {self.screen.marks[holds]} {claim:15}{found}")
        worked, rate = ask(queue, SPEED)
        say(f"\n{worked:,} jobs, each committed together with what it wrote: {rate:,.0f} jobs/s.")
        if wrong := ", ".join(claim for claim, holds, _ in checks if not holds):
            say(f"This did not hold: {wrong}.")
            return 1
        folder = "./pqdata" if self.temporary else self.folder
        say(f"\nGo on with:\n\n    from pq import PQ\n    queue = PQ.embedded({folder!r})['mail']")
        say("    print(queue.put('hello'), queue.get().data)\n")
        return 0


if __name__ == "__main__":
    main(*sys.argv[1:])
