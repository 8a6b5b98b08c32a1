"""pq in a Django project: an app, and a backend of ``django.tasks``.

    INSTALLED_APPS = [..., "pq.contrib.django"]

    from pq.contrib.django import pq

    pq["mails"].put({"to": "ann@example.org"})

In ``atomic()`` that is part of Django's transaction; outside of it, Django's connection commits it at once.

    conf          the setting PQ
    connections   which statements go to Django's connection, and its transactions
    queues        the classes of `pq` and its queues
    apps checks   the app, and its system checks
    operations    migrations; migrations/ has one for each step of the table
    models admin  the table of jobs in the admin
    page urls     the web page, for staff
    management/   ``manage.py pq``
    work          what a worker is to import
    backend       the backend of ``django.tasks``
    results       what became of its tasks
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .queues import PQ

    pq: PQ
    pqs: Mapping[str, PQ]

__all__ = ["pq", "pqs"]


def __getattr__(name: str) -> Any:
    """Make what is exported at its first use: settings can't be read while Django loads the app."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .queues import pqs

    return pqs if name == "pqs" else pqs["default"]
