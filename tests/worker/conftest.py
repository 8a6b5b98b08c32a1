"""What most tests of workers use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.tasks import Gate

from pq.tasks import PQ, Queue


@pytest.fixture
def pq(dsn: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[PQ]:
    """One that knows no task but those of the test, and waits briefly."""
    monkeypatch.setattr(Queue, "handler_registry", {})
    with PQ(dsn, timeout=0.05) as made:
        yield made


@pytest.fixture
def gate() -> Iterator[Gate]:
    """It is opened at the end, lest a handler hang that a failed test has left."""
    made = Gate()
    yield made
    made.open()
