"""The tasks: one does nothing, one does not end."""

from __future__ import annotations

import time
from typing import Any


def noop(job_id: Any) -> None:
    pass


def hang(job_id: Any) -> None:
    time.sleep(3600)
