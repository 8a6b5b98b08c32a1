"""The queue of the jobs that others follow, and that of those."""

from __future__ import annotations

import pytest

from pq import PQ, Queue


@pytest.fixture
def parts(pq: PQ) -> Queue:
    return pq["parts"]


@pytest.fixture
def then(pq: PQ) -> Queue:
    return pq["then"]
