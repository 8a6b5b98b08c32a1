"""No event is skipped, none comes twice, in whatever order transactions end: each case, read in each way."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from stream_cases import CASES, WAYS, Bench, bench


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_case(case: Callable[[Bench], None], way: str, shared_dsn: str) -> None:
    with bench(shared_dsn, way) as made:
        case(made)
