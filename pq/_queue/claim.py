"""Taking the next jobs of a queue, by a statement that stays cheap however many rows there are."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Any

from .._db import Rows
from .._jobs.holder import holder
from .._jobs.job import Job
from .._jobs.lease import LeasedJob
from .._jobs.row import ATTEMPTS, DEQUEUED_AT, ENQUEUED_AT, EXPECTED_AT, EXPIRIES, ID, KEY, SCHEDULE_AT, TEXT
from .._jobs.settlement import Settlement
from .._wait import Waiter, wait_for
from .base import QueueBase
from .claim_sql import DUE_IN, PROMOTED, is_all, order, statement
from .limited import Found, Limited
from .marks import Marks
from .refusal import REMOVED, Refusal, decode_all

#: How many jobs one statement takes at most, and how many due rows it looks at in a transaction; both are in claim.sql,
#: too.
MAX_JOBS = 1000
MAX_DUE = 100

#: After so many claims in a row that have found all that they wanted, the shorter statement is tried; and after it has
#: found too little, not for so many claims.
HITS = 2
MISS_PAUSE = 16


class Claim:
    """Takes jobs of one queue: at once (`take`), or the first that comes (`wait_for`). A worker, which has to know of
    the jobs that can't be decoded, uses `fetch`.

    :ivar limited: what the last claim has told of the queue's limits.
    """

    def __init__(self) -> None:
        self._marks = Marks()
        self.limited: Limited = Limited()
        self._hits = 0  # claims in a row that could have been "claim_ready"; negative: it is not to be tried yet

    def wait_for(self, queue: QueueBase, limit: int, patience: float, lease: timedelta | None) -> list[Any]:
        """Take jobs as `take` does; if there are none, wait for the first.

        :param patience: seconds.
        """
        deadline = time.monotonic() + patience
        puts_off = patience > 0 and queue._table.is_seen_empty(queue.name)
        if puts_off:
            with suppress(TimeoutError):
                queue._table.heal(patience)
        found = [] if puts_off else self.take(queue, limit, patience, lease)
        if found or patience == 0:
            return found
        waiter = queue._table.waiter(queue.name)

        def claim(name: str) -> list[Any]:
            return self.take(queue, limit, max(0.0, deadline - time.monotonic()), lease, waiter)

        found = wait_for(waiter, deadline, claim, queue.name if puts_off else None) or []
        # what was put before this call may be heard of only now
        return self.take(queue, limit, 0, lease) if puts_off and not found else found

    def take(
        self, queue: QueueBase, limit: int, timeout: float, lease: timedelta | None = None, waiter: Any = None
    ) -> list[Any]:
        """Take the best jobs of the queue, and log or raise what can't be decoded.

        :param limit: how many at most.
        :param timeout: the seconds that the caller has.
        :param lease: None: the jobs are taken for good, or as the transaction ends.
        :param waiter: that of this thread, if it has waited: it is told what is left.
        :raises DecodeError: there are jobs, and none of them can be decoded.
        """
        while True:
            try:
                jobs, refused = self.fetch(queue, limit, timeout, lease, waiter)
            except TimeoutError:
                return []
            if not refused:
                return jobs
            raises = not jobs and not (lease and queue._db.in_transaction)
            for refusal in refused[1:] if raises else refused:
                queue.logger.error("%s", refusal.error)
            if raises:
                raise refused[0].error
            if jobs:
                return jobs
            # Raising would roll back the settlement just made; take the next job.

    def fetch(
        self, queue: QueueBase, limit: int, timeout: float, lease: timedelta | None, waiter: Any = None
    ) -> tuple[list[Any], list[Refusal]]:
        """Take the best jobs of the queue, and return them, and those that can't be decoded.

        The arguments are those of `take`. An undecodable job that is under a lease has failed; another one is put back,
        by a second statement: a process that is killed between the two loses it.

        :raises TimeoutError: the server was held up, so nobody knows whether there are jobs.
        """
        aside = queue._table.aside()
        claimer = queue if aside is None else queue._on(aside)
        rows = self._taken_rows(claimer, limit, timeout, lease, waiter)
        if not rows:
            return [], []
        jobs = _jobs(claimer, rows, lease)
        refused = decode_all(claimer, jobs, rows)
        for job in jobs if claimer is not queue else ():
            job._queue = queue  # on whose connection it will be settled
        if refused:
            bad = {refusal.job for refusal in refused}
            jobs = [job for job in jobs if job not in bad]
        return jobs, refused

    def next_after(
        self, queue: QueueBase, ended: Settlement, lease: timedelta
    ) -> tuple[bool, LeasedJob | None] | None:
        """End a delivery as done, and take the next job, by one statement.

        :returns: whether it has ended, and the next job, or None. None alone: this is not to be tried now.
        """
        table, driver = queue._table, queue._db.driver
        if self._hits < HITS or self.limited.known or queue._db.in_transaction:
            return None
        table.heal()
        removes = table.retention().deletes_on_completion
        look = self._marks.look(False)
        params = {
            "id": ended.job.id, "attempts": ended.job.attempts, "dequeued_at": ended.job.dequeued_at,
            "result": ended.result, "queue": queue.name, **look.parameters,
            "lease": lease.total_seconds(), "worker": holder(),
        }  # fmt: skip
        name = "removed_and_next" if removes else "done_and_next"
        try:
            sql = statement(table.quoted, "leased", look.slow, False, False, False, name)
            ((is_settled, *found),) = table.execute(sql, params, prepare=True)
        except driver.Error as error:
            if not driver.is_unsupported(error):
                raise
            self._hits = -MISS_PAUSE
            return None
        row = tuple(found)
        if row[DEQUEUED_AT] is None:  # there was none, or it was held back
            self._hits = -MISS_PAUSE
            return is_settled, None
        look.saw([row], None, all_due=True)
        (job,) = _jobs(queue, [row], lease)
        for refusal in decode_all(queue, [job], [row]):
            queue.logger.error("%s", refusal.error)
            job = None
        return is_settled, job

    def _taken_rows(
        self, queue: QueueBase, limit: int, timeout: float, lease: timedelta | None, waiter: Any
    ) -> Rows:
        """Execute claims until there are enough rows, or an exact look has found no more."""
        began = time.monotonic()
        params: dict[str, Any] = {"queue": queue.name}
        if lease is not None:
            params |= {"lease": lease.total_seconds(), "worker": holder()}
        in_transaction = queue._db.in_transaction
        rows: Rows = []
        may_be_short = self._hits >= HITS
        exact = in_transaction
        try:
            if in_transaction:
                queue._table.heal_outside()
            else:
                notified = isinstance(waiter, Waiter) and waiter.is_notified(queue.name)
                queue._table.heal(timeout, in_a_hurry=notified)  # where `get` waits for each job, it does so before
            how = "leased"
            if lease is None:
                how = "removed" if queue._table.retention(timeout).deletes_on_completion else "taken"
            while True:
                look = self._marks.look(exact)
                wanted = min(limit - len(rows), MAX_JOBS)
                asked = {**params, **look.parameters, "limit": wanted}
                is_short = may_be_short and not self.limited.known
                tells = isinstance(waiter, Waiter) and not (in_transaction or look.slow)
                try:
                    given, most = self._execute(queue, how, look.slow, asked, timeout, is_short, tells)
                except queue._db.driver.Error as error:
                    if in_transaction or not queue._db.driver.is_unsupported(error):
                        raise
                    with queue._db.transaction():  # the default is another isolation level
                        queue._db.execute("set transaction isolation level read committed")
                        given, most = self._execute(queue, how, look.slow, asked, timeout)
                        is_short = tells = False
                if most == 0:
                    break
                # the others were held back
                found = [row for row in given if row[DEQUEUED_AT] is not None or (len(row) > REMOVED and row[REMOVED])]
                promoted = given[-1][PROMOTED] if given and not is_short else None
                rows = sorted(rows + found, key=order) if rows else found  # what comes second may have been below
                all_taken = tells and not self.limited.known and is_all(given)
                if is_short and len(found) < wanted and not all_taken:  # this does not tell why
                    self._hits, may_be_short = -MISS_PAUSE, False
                    continue
                is_hit = (is_short or len(found) == wanted) and promoted is None and not self.limited.known
                self._hits = self._hits + 1 if is_hit else min(self._hits, 0)
                too_few = len(given) < (min(most, MAX_DUE) if in_transaction else most) and len(found) == len(given)
                look.saw(found, promoted, all_due=too_few if in_transaction else promoted is None)
                if all_taken:
                    waiter.told(queue.name, began, given[0][DUE_IN], lease)
                full = most < wanted and len(found) == most
                if all_taken or len(rows) == limit or full or (too_few and look.suffices):
                    if not rows and in_transaction and queue._table.heal(timeout, only_one=True):
                        continue
                    break
                exact = in_transaction or too_few
            if in_transaction and lease is None:
                for key in {row[KEY] for row in rows if row[KEY] is not None}:
                    queue._heal_at_the_end(key)
        except TimeoutError:
            if not rows:
                raise
        except Exception as error:
            if not rows or in_transaction:
                raise
            # Raising would lose the jobs that are there. An error that does not pass is met by the next claim.
            queue.logger.error("%s", error)
        return rows

    def _execute(
        self, queue: QueueBase, how: str, slow: bool, params: dict[str, Any], timeout: float, is_short: bool = False,
        tells: bool = False,
    ) -> Found:  # fmt: skip
        """Execute one claim. The one for a queue without limits tells if there is a limit, or a pause; the other one
        tells if there is a limit no more."""
        limited = self.limited
        in_transaction = queue._db.in_transaction
        if is_short:
            limit = params["limit"]
            name = "claim_first" if limit == 1 else "claim_ready"
            sql = statement(queue._table.quoted, how, slow, in_transaction, False, tells, name)
            rows = queue._db.execute(sql, params, timeout=timeout, prepare=True)
            return Found(rows if limit == 1 else sorted(rows, key=order), limit)
        for is_limited in (True, False) if limited.known else (False, True):
            sql = statement(queue._table.quoted, how, slow, in_transaction, is_limited, tells and not is_limited)
            if is_limited:
                found = limited.claim(queue, sql, params, timeout)
                if found is not None:
                    return found
            else:
                rows = queue._db.execute(sql, params, timeout=timeout, prepare=True)
                if not rows or rows[0][ID] is not None:
                    return Found(rows, params["limit"])
        return Found([], 0)  # it is paused


def _jobs(queue: QueueBase, rows: Rows, lease: timedelta | None) -> list[Any]:
    jobs: list[Any] = []
    taken_at: datetime | None = None
    for row in rows:
        text = row[TEXT]
        its = queue, row[ID], text, len(text), row[ENQUEUED_AT], row[SCHEDULE_AT], row[EXPECTED_AT], row[KEY]
        if lease is None:
            jobs.append(Job(*its))
            continue
        if row[DEQUEUED_AT] != taken_at:  # all that are taken together have one time
            taken_at = row[DEQUEUED_AT]
            at = row[DEQUEUED_AT].replace(tzinfo=timezone.utc)
        jobs.append(LeasedJob(*its, row[-1], row[ATTEMPTS], row[EXPIRIES], at, lease, queue._policy))
    return jobs
