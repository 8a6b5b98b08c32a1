"""Which settlement follows from how an attempt has ended; nothing is settled before `settle_all`."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from .._logs import queue_log as logger
from .._table import Table
from .._text import attribute, is_a, message_of
from .._times import Delay, delay_of
from .._traceback import cause_of
from ..errors import Discard, LeasesLost, Retry, TaskNotFound
from .failure import Failure
from .settlement import Delivery, Settlement, applies, settle

#: The pause after an attempt whose task this process does not know: a deployment may be under way.
DEPLOYMENT = timedelta(seconds=30)


def done(job: Delivery, result: Any = None) -> Settlement:
    """Return the settlement of a job that is done.

    :raises TypeError: the result can't be encoded, or the state of the key; or a ValueError.
    """
    if result is None and job._key_state is None:
        return Settlement(job, "done")
    what = "result"
    try:
        text = job.queue._encoded(result)
        what = "key_state"
        state = None if job._key_state is None else job._key_state.changed()
        return Settlement(job, "done", result=text, key_state=state)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"the {what} of job {job.id} can't be stored: {message_of(error)}") from error


def retried(job: Delivery, in_: Delay | None, error: BaseException | str | None) -> Settlement:
    """Return the settlement of a job that is to be tried again; the arguments are those of `LeasedJob.retry`."""
    pause = job.policy.usual(job.attempts) if in_ is None else delay_of("in_", in_)
    return Settlement(job, "retry", pause or None, None if error is None else _failure(job, error))


def dead(job: Delivery, error: BaseException | str) -> Settlement:
    """Return the settlement of a job that is given up."""
    return Settlement(job, "dead", error=_failure(job, error))


def failed(job: Delivery, error: BaseException) -> Settlement:
    """Return the settlement after an attempt that raised this exception: as `Retry` or `Discard` says, or else by the
    retry policy."""
    # the application's subclasses may lack these attributes, or have properties with these names
    if is_a(error, (Retry, Discard)):
        try:
            saved = job._key_state if attribute(error, "save_state") is True else None
            state = None if saved is None else saved.changed()
            if is_a(error, Retry):
                return retried(job, attribute(error, "in_"), cause_of(error))._replace(key_state=state)
            return dead(job, attribute(error, "reason") or error)._replace(key_state=state)
        except Exception as bad:
            error = bad
    pause = _pause(job, error)
    if is_a(error, TaskNotFound) and attribute(error, "waits") is True:
        longer = max(pause or DEPLOYMENT, DEPLOYMENT)
        if _failed_lately(job):
            return Settlement(job, "retry", longer, _failure(job, error), counts=False)
        pause = None if pause is None else longer
    if pause is None:
        return dead(job, error)
    return Settlement(job, "retry", pause or None, _failure(job, error))


def settle_all(table: Table, outcomes: Iterable[tuple[Delivery, BaseException | None]], conn: Any) -> None:
    """Settle jobs by outcome: None means done, an exception means failed.

    :param conn: settle them in the transaction that is open there, as for `Database.using`.
    :raises LeasesLost: some jobs are no longer held.
    :raises TypeError: a job was not taken under a lease.
    :raises ValueError: a job occurs twice, or is in a table of another PQ, or on another connection.
    """
    outcomes = list(outcomes)
    for job, error in outcomes:
        if not hasattr(job, "lease"):
            raise TypeError(f"only jobs taken under a lease can be settled, not {type(job).__name__}")
        if error is not None and not isinstance(error, BaseException):
            raise TypeError(f"the outcome of a job must be None (done) or an exception, not {error!r}")
    given = [done(job) if error is None else failed(job, error) for job, error in outcomes]
    if len({settlement.job for settlement in given}) < len(given):
        raise ValueError("a job can be settled only once")
    if any(not job.queue._table.is_same(table) for job, *_ in given):
        raise ValueError("a job of another PQ can't be settled here")  # nor in `conn`, which the other PQ does not know
    lost = settle(given, table=table if conn is None else table.bind(conn)) if given else []
    if lost:
        first = lost[0]
        ids = [job.id for job in lost]
        raise LeasesLost(job_id=first.id, queue=first.queue.name, attempt=first.attempts, count=len(lost), job_ids=ids)


def _failure(job: Delivery, error: BaseException | str) -> str:
    return Failure.of(error, job.queue.keep_traceback).dumps()


def _pause(job: Delivery, error: BaseException) -> timedelta | None:
    try:
        return job.policy.pause(job.attempts, error)
    except KeyboardInterrupt:
        raise
    except BaseException:
        logger.exception("the retry policy of queue %r failed; job %s is dead", job.queue.name, job.id)
        return None


def _failed_lately(job: Delivery) -> bool:
    """Whether the job first failed less than an hour ago, by the server's clock, or has not failed yet."""
    try:
        return applies("failed_lately", job, job.queue._table)
    except Exception:  # the job is settled later, and must not be given up because of this error
        return True
