"""Puts of jobs that follow others."""

from __future__ import annotations

from .._after import After
from .._args import JOB_IDS
from .._times import NOW
from ..errors import JobNotFound, RowsDropped
from ..sql import array
from . import bulk as _bulk
from .instruments import with_headers
from .tokens import UniqueRows


class AfterRows(UniqueRows):
    """The rows of one queue, and those that they wait for."""

    def _put_after(self, row: _bulk.Row, after: After) -> int:
        """Put a job that waits for others.

        :raises ValueError: it is to have a time or a token, too; one of the others has another follower.
        :raises JobNotFound: there is no such job.
        """
        if row.schedule != NOW or row.unique is not None:
            raise ValueError(
                f"{'unique' if row.unique else 'schedule_at'} can't be combined with after: such a job waits for others"
            )
        for id in after.ids:
            if id not in JOB_IDS:
                raise JobNotFound(f"There is no job {id}.", job_id=id, queue=None)
        times = _bulk.times(row.schedule, row.expected)
        (found,) = self._run(
            self._statements("after.sql", **with_headers(row.headers))["put"],
            data=row.text,
            key=row.key,
            expected_at=times["expected_at"],
            expected_in=times["expected_in"],
            parents=array(after.ids),
            on_failed=after.on_failed,
            headers=row.headers,
        )
        id, missing, taken = found
        if missing is not None:
            raise JobNotFound(f"There is no job {missing}.", job_id=missing, queue=None)
        if taken is not None:
            raise ValueError(f"job {taken} has a follower already, and can have only one")
        if id is None:
            raise RowsDropped(queue=self.name, dropped=1, count=1, ids=[])
        return int(id)
