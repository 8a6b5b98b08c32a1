"""A step of the table: ``0006_keys.sql``."""

from __future__ import annotations

from typing import Any

from pq.contrib.django import bases
from pq.contrib.django.operations import Upgrade


class Migration(bases.Migration):
    """Version 6."""

    dependencies: list[tuple[str, str]] = [("pq", "0005_gate_key")]
    operations: list[Any] = [Upgrade(6)]
