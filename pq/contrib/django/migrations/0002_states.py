"""A step of the table: ``0002_states.sql``."""

from __future__ import annotations

from typing import Any

from pq.contrib.django import bases
from pq.contrib.django.operations import Upgrade


class Migration(bases.Migration):
    """Version 2."""

    dependencies: list[tuple[str, str]] = [("pq", "0001_pq_1_9_1")]
    operations: list[Any] = [Upgrade(2)]
