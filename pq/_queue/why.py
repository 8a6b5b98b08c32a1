"""`Queue.why`: why a job does not run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .._jobs.info import JobInfo
from .._jobs.job import utc_format
from .browse import Browse
from .control import Control


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
    :ivar reasons: the reasons, the nearest first: pairs of a code and a text.
    """

    id: int
    queue: str
    state: str
    reasons: Sequence[Reason]

    def __str__(self) -> str:
        return "\n".join(f"{reason.code}: {reason.text}" for reason in self.reasons)


class Whys(Browse, Control):
    """Explains what becomes of the jobs of a queue."""

    def why(self, id: int) -> Why:
        """Say why a job does not run.

        :raises JobNotFound: this queue has no such job.
        :raises TypeError: the id is not an int.
        """
        job = self[id]
        return Why(job.id, self.name, job.state, tuple(self._reasons(job)))

    def _reasons(self, job: JobInfo) -> Iterator[Reason]:
        if job.state == "scheduled":
            assert job.due_at is not None
            yield Reason("scheduled", f"it is not due before {utc_format(job.due_at)}")
        if job.state in ("running", "dead", "finished", "held"):
            yield Reason(job.state, f"it is {job.state}")
        if job.state == "ready" and self.paused:
            yield Reason("paused", "the queue is paused")
