"""What can be wrong with the jobs, and with how long they are kept. Pure, as ``findings.py`` is."""

from __future__ import annotations

from .findings import Check

#: Findings about the jobs. Their statements use the columns of this version.
JOBS = (
    Check(
        "overdue_job",
        "error",
        "Queue {queue!r}: job {id}, {kind}, has been due since {since} ({age}), and no consumer has taken it. The"
        " queue has no consumers, or they don't keep up, or a transaction holds the job.",
        "Start a worker for this queue, or more of them; end transactions that have been idle for long.",
    ),
    Check(
        "waiting_job",
        "warning",
        "Queue {queue!r}: the next job, {id}, has been waiting since {since} ({age}). The queue has no consumers, or"
        " they don't keep up, or the job was retried often, or a transaction holds it.",
        "Start a worker for this queue, or more of them; end transactions that have been idle for long.",
    ),
    Check(
        "paused_queue",
        "note",
        "Queue {queue!r} has been paused since {since} ({age}); ready jobs in it: {jobs}.",
        "To have them taken: python -m pq resume{arguments} {queue!r}",
    ),
    Check(
        "dead_jobs",
        "warning",
        "Queue {queue!r}: dead jobs: {jobs}; the last one, {id}, died at {since} ({age} ago).",
        "See why, then retry or discard them: python -m pq dead groups{arguments} {queue!r}",
    ),
    Check(
        "full_limit",
        "warning",
        "All {running} places of the limit {name!r} have been taken since {since} ({age}), while jobs of queue"
        " {queue!r} are ready: the jobs that run don't end.",
        "See which run: python -m pq list {queue}{arguments} --state running. Give tasks a timeout, or raise the"
        " limit: python -m pq limit{arguments} {name} --running N",
    ),
    Check(
        "broken_limit",
        "error",
        "Limit {name!r}: {problem}. Rows were deleted or restored without those that belong to them.",
        "Set the limit once more, in Python: pq.limits[{name!r}] = pq.limits[{name!r}]",
    ),
    Check(
        "overdue_schedule",
        "error",
        "Schedule {name!r} of queue {queue!r} has been due since {since} ({age}), and no program has put its job.",
        "Start a worker, of any queue; or: python -m pq schedules run{arguments}",
    ),
    Check(
        "failed_schedule",
        "error",
        "Schedule {name!r} of queue {queue!r} can't put its job, due since {since}{state}: {error}",
        "Remove the cause, or assign another schedule; then: python -m pq schedules resume{arguments} {name!r}",
    ),
    Check(
        "sequence_behind",
        "error",
        "The sequence {sequence} is at {last}, and there are ids up to {largest}, as after a restore of the rows alone:"
        " puts fail until it has passed them.",
        "{command}",
    ),
    Check(
        "ids",
        "warning",
        "The last id was {last}, and the largest possible id is {largest}: after that no job can be put.",
        "Widen the column, which rewrites the table under a lock, and then the sequence, if that is too narrow as well:"
        " alter table {table} alter column id type bigint;",
    ),
)

#: How long rows are kept, and whether anybody deletes them.
RETENTION_UNREADABLE = Check(
    "retention_unreadable",
    "warning",
    "How long jobs are kept can't be read in the comment of the column result, so none are deleted: {comment!r}",
    "python -m pq create{arguments} --retain 7d --retain-dead 30d",
)
RETENTION_UNLIMITED = Check(
    "retention_unlimited",
    "warning",
    "Finished jobs are kept for ever, the oldest of them since {since}, in a table of about {rows} rows.",
    "Leave it so if that is intended; otherwise workers delete them after a while:"
    " python -m pq create{arguments} --retain 7d",
)
RETENTION_OVERDUE = Check(
    "retention_overdue",
    "warning",
    "Job {id} of queue {queue!r} has been {state} since {since} ({age}), longer than it is to be kept ({kept}): nobody"
    " deletes such jobs.",
    "Run a worker, of any queue, as a role that may delete; or now and then: python -m pq prune{arguments}",
)
