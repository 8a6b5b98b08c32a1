"""A step of the table: ``0004_upkeep.sql``."""

from __future__ import annotations

from typing import Any

from pq.contrib.django import bases
from pq.contrib.django.operations import Upgrade


class Migration(bases.Migration):
    """Version 4."""

    dependencies: list[tuple[str, str]] = [("pq", "0003_outcomes")]
    operations: list[Any] = [Upgrade(4)]
