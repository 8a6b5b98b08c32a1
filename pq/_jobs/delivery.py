"""What instruments tell of a delivery: of a job under a lease, or of one that was taken without."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any


def attempt_of(job: Any) -> int:
    """Return the number of the attempt; 1 for a job without a lease, which has none."""
    return int(getattr(job, "attempts", 1))


def ready_at(job: Any) -> datetime:
    """Return when the job was put, or was due, if that was later."""
    ready: datetime = job.enqueued_at if job.schedule_at is None else max(job.enqueued_at, job.schedule_at)
    return ready.replace(tzinfo=timezone.utc)


def taken_at(job: Any) -> datetime:
    """Return when the job was taken, by the server's clock; of a job without a lease the time now, by ours."""
    return getattr(job, "dequeued_at", None) or datetime.now(timezone.utc)
