"""A batch that is delivered again has its own events and no others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support import wait_until
from support.streams import following

from pq import PQ


@pytest.mark.parametrize("size", [1, 3, 4])
def test_a_part_of_a_window_comes_again_without_the_rest_of_it(
    pq: PQ, sql: Callable[..., list[tuple[Any, ...]]], size: int
) -> None:
    stream = pq.streams["orders"]
    stream.create()
    subscription = stream.subscribe("a")
    stream.publish_many(range(10))
    lost = next(subscription.batches(size, lease="1h", timeout=0))
    assert [event.data for event in lost] == list(range(size))
    sql("update queue_batches_orders set due_at = now() - interval '1 s'")
    found: list[Any] = []
    wait_until(lambda: not found.extend(following(subscription)) and len(found) == 10, "all events")
    assert found == list(range(10))
    assert following(subscription) == []
