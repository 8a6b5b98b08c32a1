"""Classes of pq under classes of the standard library: a private name of theirs, in any Python, must not be ours.

``threading.Thread`` of Python 3.13 has an attribute ``_handle``, which hid a method of that name. What a class of the
standard library keeps for itself is read from its source, on each Python that these tests run on.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import logging
import pkgutil
import socket
import socketserver
import sys
import textwrap
import threading
from abc import ABC
from enum import Enum
from http.server import BaseHTTPRequestHandler
from typing import Protocol

import pq

#: What may be subclassed although it has private attributes, since there is no other way to use it.
TO_BE_SUBCLASSED = [
    *(ABC, Enum, Protocol),
    *(argparse.ArgumentParser, logging.Formatter, logging.LoggerAdapter, socket.socket),
    *(BaseHTTPRequestHandler, socketserver.BaseServer, socketserver.ThreadingMixIn),
]


#: What needs Django's settings; these subclass Django's classes, which expect it.
SETTINGS = "pq.contrib.django."


def classes_of_pq() -> list[type]:
    found: dict[type, None] = {}
    for module in pkgutil.walk_packages(pq.__path__, "pq."):
        if not module.name.endswith("__main__") and not module.name.startswith(SETTINGS):
            names = vars(importlib.import_module(module.name)).values()
            found |= dict.fromkeys(v for v in names if isinstance(v, type) and v.__module__.split(".")[0] == "pq")
    return list(found)


def bases(cls: type) -> list[type]:
    """Those from the standard library."""
    return [base for base in cls.__mro__ if base is not object and base.__module__.split(".")[0] in STANDARD]


STANDARD = sys.stdlib_module_names
CLASSES = [cls for cls in classes_of_pq() if bases(cls)]


def written(cls: type) -> set[str]:
    """The names that the source of a class gives to it or to ``self``, also those that only an instance has."""
    try:
        source = textwrap.dedent(inspect.getsource(cls))
    except (OSError, TypeError):  # it is written in C
        return set()
    names: set[str] = set()
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.ClassDef)
    for node in ast.walk(definition):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            names.add(node.attr)
    for statement in definition.body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
            names.add(statement.name)
        elif isinstance(statement, (ast.Assign, ast.AnnAssign)):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def private(names: set[str]) -> set[str]:
    return {name for name in names if name.startswith("_") and not name.startswith("__")}


def collisions(cls: type) -> set[str]:
    theirs = set().union(*(written(base) | set(vars(base)) for base in bases(cls)))
    return private(theirs) & written(cls)


def test_no_private_name_is_taken_twice() -> None:
    assert {cls: found for cls in CLASSES if (found := collisions(cls))} == {}


def test_a_later_python_can_take_no_name_of_ours() -> None:
    """Threads, locks, queues and the like are held, not subclassed."""
    known = {parent for cls in TO_BE_SUBCLASSED for parent in cls.__mro__}
    others = {cls: {base for base in bases(cls) if private(written(base))} - known for cls in CLASSES}
    assert {cls: found for cls, found in others.items() if found} == {}


def test_it_would_have_been_seen() -> None:
    class Consumer(threading.Thread):
        def _started(self) -> None:
            pass

    assert collisions(Consumer) == {"_started"}
