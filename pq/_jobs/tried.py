"""The class `TriedJob`: a job as its next delivery would be, of which nothing reaches the row."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

from .._db import Rows
from ..retry import Policy
from .info import JobInfo
from .lease import LeasedJob
from .settlement import Settlement

#: Nobody waits for the end of it.
LEASE = timedelta(hours=1)


class TriedJob(LeasedJob):
    """What a task gets that is tried. It can do all that it does with its job; what it says of its end is kept here.

    :param info: the job.
    :param now: an aware datetime.
    :ivar ending: how it has ended itself; None: it has not.
    """

    __slots__ = ("ending",)

    def __init__(self, queue: Any, info: JobInfo, now: datetime) -> None:
        # a job that has ended would begin anew; the attempt that runs is counted already
        before = {"dead": 0, "finished": 0, "running": info.attempts - 1}.get(info.state, info.attempts)
        headers = None if info.headers is None else json.dumps(info.headers)
        super().__init__(
            queue, info.id, info.data, info.size, info.enqueued_at, info.schedule_at, info.expected_at, info.key,
            headers, attempts=before + 1, expiries=0, dequeued_at=now, lease=LEASE, policy=Policy(0, "30s"),
        )  # fmt: skip
        self.ending: Settlement | None = None

    def settle(self, settlement: Settlement, conn: Any = None) -> None:
        """Note how the job has ended.

        :raises LeaseLost: it has ended before.
        """
        if self.ending is not None:
            self._lost()
        self.ending, self.settled = settlement, True

    def _change(self, statement: str, conn: Any, **params: Any) -> Rows:
        table = self._table(conn)
        if statement in ("steps", "key_state"):  # these only read
            return table.execute(table.statements("trial.sql")[statement], {"id": self.id})
        return [(self.id,)]
