"""The task: it does nothing."""

from __future__ import annotations

from typing import Any


def noop(job_id: Any) -> None:
    pass
