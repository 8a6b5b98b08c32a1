"""``django.tasks`` of Django 6, or the package ``django-tasks`` for Django 5.2: the same under other names."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import django

_PACKAGE = "django.tasks" if django.VERSION >= (6, 0) else "django_tasks"


def _part(name: str) -> Any:
    return import_module(f"{_PACKAGE}{name}")


_tasks, _base, _exceptions, _signals = _part(""), _part(".base"), _part(".exceptions"), _part(".signals")

BaseTaskBackend: Any = _part(".backends.base").BaseTaskBackend
Task: Any = _base.Task
TaskContext: Any = _base.TaskContext
TaskError: Any = _base.TaskError
TaskResult: Any = _base.TaskResult
TaskResultStatus: Any = _base.TaskResultStatus
TaskResultDoesNotExist: Any = _exceptions.TaskResultDoesNotExist
InvalidTask: Any = getattr(_exceptions, "InvalidTaskError", None) or _exceptions.InvalidTask
task_backends: Any = _tasks.task_backends
task_enqueued: Any = _signals.task_enqueued
task_started: Any = _signals.task_started
task_finished: Any = _signals.task_finished

_utils: Any = import_module("django.utils.json") if django.VERSION >= (6, 0) else _part(".utils")
normalize_json: Any = _utils.normalize_json
