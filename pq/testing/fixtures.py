"""Fixtures for pytest: ``pytest_plugins = ["pq.testing.fixtures"]`` in your ``conftest.py``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .. import PQ
from ..embedded import Embedded


@pytest.fixture(scope="session")
def pq_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The DSN of a PostgreSQL that runs for this session of pytest; needs the extra ``pq[embedded]``."""
    server = Embedded(tmp_path_factory.mktemp("pq") / "server").start()
    try:
        yield server.dsn
    finally:
        server.close()


@pytest.fixture()
def pq_clean(pq_server: str) -> Iterator[PQ]:
    """A `PQ` on `pq_server`, whose table is there and empty. For tests that commit."""
    with PQ(pq_server) as pq:
        pq.create()
        pq.reset(force=True)
        yield pq
