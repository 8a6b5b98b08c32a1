"""What the tests of looks share."""

from __future__ import annotations

import pytest

from pq._looks import looks


@pytest.fixture(autouse=True)
def nothing_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """`PQ.overview` answers anew, but where a test is about that."""
    monkeypatch.setattr(looks, "FRESH", 0.0)
