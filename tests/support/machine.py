"""State machines that compare pq with a model, step by step."""

from __future__ import annotations

import os
from collections.abc import Callable

from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test


def run_machine(make: Callable[[], RuleBasedStateMachine], steps: int, examples: int | None = None) -> None:
    """Run some machines, each of so many steps at most.

    :param examples: how many; default: 12, or ``PQ_TEST_EXAMPLES``.
    """
    bounds = settings(
        max_examples=examples or int(os.environ.get("PQ_TEST_EXAMPLES", "12")),
        stateful_step_count=steps,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(make, settings=bounds)
