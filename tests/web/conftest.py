"""What the tests of the pages share."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest
from visitor import Visitor

from pq import PQ

#: Without the extra there is nothing to test.
collect_ignore_glob = [] if find_spec("jinja2") and find_spec("waitress") else ["test_*.py"]


@pytest.fixture
def app(pq: PQ) -> Any:
    """The pages, for everyone."""
    from pq.web import App

    return App(pq, can=lambda user, action, queue: True)


@pytest.fixture
def visitor(app: Any) -> Visitor:
    """Who visits them."""
    return Visitor(app)


@pytest.fixture
def shop(pq: PQ, sql: Callable[..., Any]) -> PQ:
    """A PQ with jobs in all states."""
    from shop import fill

    fill(pq, sql)
    return pq
