"""What a row tells of its end, and of who had it."""

from __future__ import annotations

import pytest
from support import HOLDER

from pq import PQ, After


@pytest.fixture()
def queue(pq: PQ):
    return pq["a"]


def test_a_running_job_tells_who_has_it(queue):
    queue.put(1)
    job = queue.get(lease="1m")
    found = queue[job.id]
    assert (found.state, found.worker, found.finished_at) == ("running", HOLDER, None)


@pytest.mark.parametrize("end", ["done", "dead", "cancelled"])
def test_each_end_of_a_lease_has_a_time(queue, end):
    queue.put(1)
    job = queue.get(lease="1m")
    if end == "done":
        job.done()
    elif end == "dead":
        job.fail("no")
    else:
        assert queue.cancel(job.id)
    found = queue[job.id]
    assert found.finished_at is not None and found.finished_at >= job.dequeued_at.replace(tzinfo=None)
    assert found.worker == HOLDER


def test_a_job_that_was_never_taken_and_is_cancelled(queue):
    id = queue.put(1)
    queue.cancel(id)
    found = queue[id]
    assert found.finished_at == found.dequeued_at and found.worker is None


def test_a_job_that_is_tried_again_has_not_ended(queue):
    queue.put(1)
    job = queue.get(lease="1m")
    job.retry("0s")
    assert queue[job.id].finished_at is None and queue[job.id].worker == HOLDER


def test_a_dead_job_that_is_retried_has_not_ended(queue):
    queue.put(1)
    job = queue.get(lease="1m")
    job.fail("no")
    assert queue[job.id].finished_at is not None
    queue.dead.retry(job.id)
    assert queue[job.id].finished_at is None


@pytest.mark.parametrize("in_transaction", [False, True])
def test_a_job_that_is_taken_without_a_lease_has_ended_when_it_was_taken(queue, in_transaction):
    id = queue.put(1)
    if in_transaction:
        with queue:
            queue.get(block=False)
    else:
        queue.get(block=False)
    found = queue[id]
    assert found.finished_at == found.dequeued_at is not None and found.worker is None


def test_a_follower_that_is_cancelled_with_its_parent(queue):
    parent = queue.put(1)
    follower = queue.put(2, after=After(parent, on_failed="cancel"))
    queue.cancel(parent)
    assert queue[follower].cancelled and queue[follower].finished_at is not None
