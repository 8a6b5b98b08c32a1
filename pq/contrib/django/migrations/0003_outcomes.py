"""A step of the table: ``0003_outcomes.sql``."""

from __future__ import annotations

from typing import Any

from pq.contrib.django import bases
from pq.contrib.django.operations import Upgrade


class Migration(bases.Migration):
    """Version 3."""

    dependencies: list[tuple[str, str]] = [("pq", "0002_states")]
    operations: list[Any] = [Upgrade(3)]
