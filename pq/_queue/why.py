"""`Queue.why`: why a job does not run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from .._args import job_ids
from .._jobs.info import JobInfo
from .._table.look import look
from .._text import cut
from ..errors import JobNotFound
from ..sql import array
from .browse import Browse
from .control import Control

#: Up to how many jobs are counted.
CAP = 1000

#: How many jobs are named.
SHOWN = 5


class Reason(NamedTuple):
    """One reason.

    :ivar code: one word, which does not change.
    :ivar text: a sentence.
    """

    code: str
    text: str


@dataclass(frozen=True)
class Why:
    """Why a job does not run, as it was when it was looked at; ``str()`` has a line for each reason.

    :ivar id: the job's id.
    :ivar queue: the name of its queue.
    :ivar state: its state, as in `JobInfo`.
    :ivar reasons: pairs of a code and a text, the nearest first: see :doc:`/howto/seeing` for the codes.
    """

    id: int
    queue: str
    state: str
    reasons: Sequence[Reason]

    def __str__(self) -> str:
        return "\n".join(f"{reason.code}: {reason.text}" for reason in self.reasons)


class Facts(NamedTuple):
    """A row of the statement ``facts``."""

    paused: bool
    waiting: int
    running: int
    ahead: int | None
    worker: str | None
    waits_for: Sequence[int] | None
    locked: bool | None
    pid: int | None
    application: str | None
    session_state: str | None
    locked_since: datetime | None


class Whys(Browse, Control):
    """Explains what becomes of the jobs of a queue."""

    def why(self, id: int) -> Why:
        """Say why a job does not run: it is not due, its queue is paused, others are in front of it, nobody waits for
        the queue, a session has it locked, and so on. Of a job that runs, or has ended, this says who has it, or how.

        Nothing is locked. What consumers do that poll, and what a program will do, can't be seen.

        :raises JobNotFound: this queue has no such job.
        :raises TypeError: the id is not an int.
        :raises StatementTimeout: the server took longer than a second for one of a few looks: the table may be locked.
        """
        job = self._found(id)
        rows = self._look("facts", id=job.id)
        if not rows:
            raise JobNotFound(job_id=id, queue=self.name)  # it has just gone
        return Why(job.id, self.name, job.state, tuple(self._reasons(job, Facts(*rows[0]))))

    def _found(self, id: int) -> JobInfo:
        """Return the job, without its data."""
        sql = self._statements("browse.sql", data_text="no_data")["find"]
        for number in job_ids([id]):
            for row in look(self._table, sql, {"queue": self.name, "id": number}):
                return JobInfo.of(self, row)
        raise JobNotFound(job_id=id, queue=self.name)

    def _look(self, statement: str, **params: Any) -> list[tuple[Any, ...]]:
        given = {"queue": self.name, "table": self._table.quoted, "cap": CAP, **params}
        return look(self._table, self._statements("why.sql")[statement], given)

    def _reasons(self, job: JobInfo, facts: Facts) -> Iterator[Reason]:
        if job.state == "finished":
            yield _finished(job)
            return
        if job.state == "dead":
            yield Reason("dead", f"it died at {_at(job.finished_at)}, after {_times(job.attempts)}: {job.error}")
            yield from _unknown_task(job)
            return
        if facts.locked:
            yield _locked(facts)
        if job.state == "running":
            yield Reason(
                "running",
                f"{_holder(facts.worker)} has had it since {_at(job.dequeued_at)}, attempt {job.attempts}; its lease"
                f" ends at {_at(job.due_at)} unless that is extended",
            )
            return
        if facts.paused:
            yield Reason("paused", f"queue {self.name!r} is paused, until somebody resumes it (pq resume)")
        if job.state == "held":
            yield from self._held(job, facts)
            return
        if job.state == "scheduled":
            yield from _scheduled(job)
            return
        if job.dequeued_at is not None:
            yield Reason(
                "expired",
                f"the lease of {_holder(facts.worker)} ended at {_at(job.due_at)}: the job is ready again, and has had"
                f" {_times(job.attempts)}",
            )
        yield from _unknown_task(job)
        yield from self._limited()
        if job.key is not None:
            yield from self._in_line(job)
        yield from self._ahead(facts)

    # -- waiting for other jobs

    def _held(self, job: JobInfo, facts: Facts) -> Iterator[Reason]:
        if job.stopped:
            yield Reason(
                "stopped",
                "a job that it follows was cancelled or deleted, or has died: it waits for a decision; reschedule it,"
                " or cancel it",
            )
        if facts.waits_for is not None:
            ids = facts.waits_for
            left = self._look("parents", ids=array(ids))
            shown = ", ".join(f"{id} ({state})" for id, state in left[:SHOWN])
            more = ", …" if len(left) > SHOWN else ""
            yield Reason("follows", f"it waits for {len(left)} of {len(ids)} jobs: {shown or 'all have ended'}{more}")
            return
        yield from self._in_line(job)
        ((before,),) = self._look("held_before", id=job.id, key=job.key, expected_at=_stored(job.expected_at))
        if before:
            yield Reason("line", f"held in front of it, with its key {job.key!r}: {_up_to(before)}")

    def _in_line(self, job: JobInfo) -> Iterator[Reason]:
        for id, stand, worker, since, runs in self._look("line", id=job.id, key=job.key)[:SHOWN]:
            if stand == 2:
                what = "is dead, and the limit of the queue has dead jobs stop the others"
            elif runs:
                what = f"runs: {_holder(worker)} has had it since {_at(since)}"
            elif job.state == "ready":
                continue  # it may be behind this one
            else:
                what = "is in front of it"
            yield Reason("key", f"job {id} of its key {job.key!r} {what}")

    # -- a job that is ready

    def _limited(self) -> Iterator[Reason]:
        for name, kind, most, taken, ids, free_in in self._look("limits"):
            if taken < most:
                continue
            if kind == "running":
                by = ", ".join(f"job {id}" for id in (ids or ())[:SHOWN]) + (", …" if taken > SHOWN else "")
                places = "the place" if most == 1 else f"all {most} places"
                yield Reason("limit", f"{places} of limit {name!r} {'is' if most == 1 else 'are'} taken, by {by}")
            else:
                yield Reason("limit", f"limit {name!r} lets the next job begin in {max(free_in or 0, 0):.1f} s")

    def _ahead(self, facts: Facts) -> Iterator[Reason]:
        if facts.ahead:
            yield Reason("ahead", f"taken before it: {_up_to(facts.ahead)}")
        if facts.paused or facts.locked:
            return
        if not facts.waiting and not facts.running:
            yield Reason(
                "unheard",
                f"no session waits for queue {self.name!r}, and no worker runs a job of it: start a worker for it (a"
                " consumer that polls is not seen)",
            )
        elif not facts.waiting:
            yield Reason("busy", f"its workers are busy: no session waits for the queue, and {_run(facts.running)}")
        elif not facts.ahead:
            yield Reason("next", f"nothing is seen that keeps it; sessions that wait for the queue: {facts.waiting:,}")


def _finished(job: JobInfo) -> Reason:
    if job.cancelled:
        return Reason("cancelled", f"it was cancelled at {_at(job.finished_at)}")
    if job.worker is None:
        return Reason("finished", f"it was taken at {_at(job.dequeued_at)}, without a lease")
    how = f"by {_holder(job.worker)}, after {_times(job.attempts)}"
    return Reason("finished", f"it was done at {_at(job.finished_at)} {how}")


def _scheduled(job: JobInfo) -> Iterator[Reason]:
    yield from _unknown_task(job)
    if job.error is None:
        yield Reason("scheduled", f"it is not due before {_at(job.due_at)}")
    else:
        error = cut(" ".join(str(job.error).split()), 300)
        last = f"the last of {_times(job.attempts)} failed: {error}"
        yield Reason("retry", f"its next attempt is due at {_at(job.due_at)}; {last}")


def _unknown_task(job: JobInfo) -> Iterator[Reason]:
    if job.error is not None and job.error.type.rpartition(".")[2] == "TaskNotFound":
        yield Reason("task", f"the worker that had it last has no such task: {job.error.message}")


def _locked(facts: Facts) -> Reason:
    if facts.pid is None:
        return Reason("locked", "a prepared transaction has it locked")
    application = f", application {facts.application!r}" if facts.application else ""
    since = "" if facts.locked_since is None else f" since {_at(facts.locked_since)}"
    state = f"; it is {facts.session_state}" if facts.session_state else ""
    end = f"; to end it: select pg_terminate_backend({facts.pid})"
    return Reason("locked", f"session {facts.pid}{application} has it in a transaction that is open{since}{state}{end}")


def _holder(worker: str | None) -> str:
    return "a program" if worker is None else f"worker {worker}"


def _times(attempts: int) -> str:
    return "1 attempt" if attempts == 1 else f"{attempts} attempts"


def _run(number: int) -> str:
    return f"{_up_to(number)} of it run" if number > 1 else "1 job of it runs"


def _up_to(number: int) -> str:
    return f"{CAP:,}+ jobs" if number > CAP else f"{number:,} job{'s' if number > 1 else ''}"


def _at(time: datetime | None) -> str:
    return "an unknown time" if time is None else f"{time:%Y-%m-%d %H:%M:%S}Z"


def _stored(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()
