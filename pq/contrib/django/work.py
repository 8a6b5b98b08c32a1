"""What a worker works on: ``pq.contrib.django.work:NAME`` is the PQ of that name, once the tasks are known.

``manage.py pq work`` names it to the worker, and to further processes, which are no processes of ``manage.py``.
"""

from __future__ import annotations

from typing import Any

import django
from django.apps import apps
from django.conf import settings
from django.utils.module_loading import autodiscover_modules


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    discover()
    from .queues import pqs

    try:
        return pqs[name]
    except KeyError:
        raise AttributeError(f"the setting PQ has no entry {name!r}") from None


def discover() -> None:
    """Import the modules named ``tasks`` of all apps, and of the project itself."""
    if not apps.ready:
        django.setup()
    autodiscover_modules("tasks")


def packages() -> list[str]:
    """Return the packages of the project, from which tasks may be imported."""
    names = [config.name for config in apps.get_app_configs()]
    module = getattr(settings, "SETTINGS_MODULE", None) or ""
    project = module.partition(".")[0]
    return [name for name in dict.fromkeys([*names, project]) if name and not name.startswith("django.contrib.")]
