"""The table as it was in pq 1.9.1, and what Django knows of it."""

from __future__ import annotations

from typing import Any

from django.db import migrations, models

from pq.contrib.django import bases
from pq.contrib.django.models import TABLE
from pq.contrib.django.operations import Upgrade


class Migration(bases.Migration):
    """Version 1."""

    initial: bool = True
    dependencies: list[tuple[str, str]] = []
    operations: list[Any] = [
        Upgrade(1),
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.CreateModel(
                    name="Job",
                    fields=[
                        ("id", models.BigAutoField(primary_key=True, serialize=False)),
                        ("queue", models.TextField(db_column="q_name")),
                        ("enqueued_at", models.DateTimeField()),
                        ("finished_at", models.DateTimeField(null=True)),
                        ("attempts", models.IntegerField()),
                        ("key", models.TextField(null=True)),
                        ("worker", models.TextField(null=True)),
                    ],
                    options={"db_table": TABLE, "default_permissions": ("view", "change")},
                )
            ]
        ),
    ]
