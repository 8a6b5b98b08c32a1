"""A step of the table: ``0005_gate_key.sql``."""

from __future__ import annotations

from typing import Any

from pq.contrib.django import bases
from pq.contrib.django.operations import Upgrade


class Migration(bases.Migration):
    """Version 5."""

    dependencies: list[tuple[str, str]] = [("pq", "0004_upkeep")]
    operations: list[Any] = [Upgrade(5)]
