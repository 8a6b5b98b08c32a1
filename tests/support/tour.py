"""A tour through the states of jobs, which executes most of the statements there are."""

from __future__ import annotations

import datetime as dt
from contextlib import nullcontext
from typing import Any

from pq import PQ, LeasedJob, NewJob
from pq._jobs.settlement import extend


def check_states(pq: PQ) -> None:
    """The statements find the jobs in the table, and none elsewhere."""
    queue = pq["a"]
    past = dt.datetime(2000, 1, 1)
    first, second, due, scheduled = queue.put_many([1, 2, NewJob(3, schedule_at=past), NewJob(4, schedule_at="1h")])
    assert list(pq) == ["a"]
    (info,) = pq.queues()
    assert (info.ready, info.scheduled) == (3, 1)
    assert [job.id for job in queue.list()] == [first, second, due, scheduled]
    assert [finding.data["id"] for finding in pq.doctor() if finding.name == "overdue_job"] == [due]
    queue.pause()
    assert queue.get(timeout=0.01) is None
    queue.resume()
    assert queue.reschedule(scheduled, schedule_at=None)
    assert queue.move(scheduled, "b")
    assert queue.cancel([first, second, due]) == 3
    assert pq["b"].cancel(scheduled) == 1


def check_endings(pq: PQ) -> None:
    queue = pq["a"]
    for block in (nullcontext(), queue):
        ids = queue.put_many(["taken", "done", "dead"])
        with block:
            taken = queue.get(block=False)
            done, dead = queue.get_many(2, block=False, lease="1h")
            assert [taken and taken.id, done.id, dead.id] == ids
            done.extend()
            assert beat(done) == {done.id}
            done.done()
            dead.fail("no good")
        assert [job.id for job in queue.dead] == [dead.id]
        assert queue.dead.retry(dead.id) == 1
        leased = queue.get(block=False, lease="1h")
        assert isinstance(leased, LeasedJob)
        assert leased.id == dead.id
        leased.fail("no good")
        assert list(pq) == ["a"]
        with queue as cursor:
            cursor.execute("update %s set dequeued_at = now() - interval '1 year'", (queue.table,))
        while pq.prune():
            pass
        assert list(pq) == []


def beat(job: LeasedJob) -> Any:
    """As a worker's heartbeat does."""
    return extend(job.queue._table, [job], [False])
