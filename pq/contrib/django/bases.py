"""Classes of Django's to inherit from. Django has no types: for type checkers they are classes that can do anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:

    class Django:
        """A class of Django's."""

        def __init__(self, *args: Any, **kwargs: Any) -> None: ...
        def __getattr__(self, name: str) -> Any: ...

    ActionForm = Django
    AppConfig = Django
    BaseCommand = Django
    BaseTaskBackend = Django
    ChangeList = Django
    Manager = Django
    Migration = Django
    Model = Django
    ModelAdmin = Django
    Operation = Django
    QuerySet = Django
    SimpleListFilter = Django

    class Task:
        """A task of ``django.tasks``."""

else:
    from importlib import import_module

    from django.apps import AppConfig
    from django.core.management.base import BaseCommand
    from django.db.migrations import Migration
    from django.db.migrations.operations.base import Operation
    from django.db.models import Manager, Model, QuerySet

    _ADMIN = {"ActionForm": ".helpers", "ChangeList": ".views.main", "ModelAdmin": "", "SimpleListFilter": ""}

    def __getattr__(name):
        """Import what not every project has: Django's admin, and its tasks."""
        if name in _ADMIN:
            return getattr(import_module(f"django.contrib.admin{_ADMIN[name]}"), name)
        if name in ("BaseTaskBackend", "Task"):
            return getattr(import_module("pq.contrib.django.compat"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "ActionForm",
    "AppConfig",
    "BaseCommand",
    "BaseTaskBackend",
    "ChangeList",
    "Manager",
    "Migration",
    "Model",
    "ModelAdmin",
    "Operation",
    "QuerySet",
    "SimpleListFilter",
    "Task",
]
