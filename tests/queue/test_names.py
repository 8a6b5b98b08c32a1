"""The longest names that a queue can have: each state of a job is in an index, whose entries are limited."""

from __future__ import annotations

import base64
import random
from typing import Any

import pytest
from support import Background, wait_until

from pq import PQ
from pq._args import QUEUE_NAME_BYTES

#: PostgreSQL compresses long values of an index: these characters leave it nothing to compress.
LONGEST = base64.b64encode(random.Random(1).randbytes(QUEUE_NAME_BYTES)).decode()[:QUEUE_NAME_BYTES]


@pytest.mark.parametrize("suffix", ["", "/text"])
def test_a_job_of_a_queue_with_the_longest_name_in_each_state(pq: PQ, suffix: str) -> None:
    queue = pq[LONGEST + suffix]
    for times in ({}, {"expected_at": "1h"}, {"schedule_at": "1ms", "expected_at": "1h"}):
        queue.put("data", **times)
        job: Any = queue.get(lease="1h", timeout=5)
        assert job.data == "data"
        job.fail("broken")
        assert queue.dead.retry(job.id) == 1
        assert queue.get().data == "data"  # type: ignore[union-attr]
    queue.pause()
    assert queue.paused
    queue.resume()
    other = pq["short"].put("data")
    assert pq["short"].move(other, LONGEST + suffix)
    assert LONGEST + suffix in pq
    assert len(queue) == 1


def test_a_put_to_a_queue_with_the_longest_name_wakes(dsn: str) -> None:
    with PQ(dsn, poll_interval=3600.0) as pq:
        waiter = Background(pq[LONGEST].get, timeout=3600.0)
        wait_until(lambda: getattr(pq._table._room.queues.get(LONGEST), "sure", False), "the sleep of the waiter")
        pq[LONGEST].put(1)
        assert waiter.result().data == 1


def test_longer_names_are_refused(pq: PQ) -> None:
    with pytest.raises(ValueError, match="too long"):
        pq["short"].move(pq["short"].put(1), LONGEST + "x")
    assert LONGEST + "x" not in pq
