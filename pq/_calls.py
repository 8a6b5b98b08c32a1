"""Functions that pq calls: tasks and hooks. pq is synchronous, so each must do its work before it returns. Pure."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Awaitable, Coroutine, Generator
from functools import partial
from typing import Any

RECIPE = """write a plain function instead that runs it:
    def {name}(*args):
        return asyncio.run({name}_async(*args))"""


def check_plain(what: str, function: Any) -> None:
    """Refuse a function whose call would only make a coroutine or a generator, and run no line of it.

    :param what: what the error calls it.
    :raises TypeError: it is such a function, or can't be called.
    """
    if not callable(function):
        raise TypeError(f"{what} must be a function, not {type(function).__name__}")
    for each in _layers(function):
        if inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each):
            recipe = RECIPE.format(name=getattr(each, "__name__", None) or "run")
            raise TypeError(f"{what} must not be async: pq would call it, and nobody would await it; {recipe}")
        if inspect.isgeneratorfunction(each):
            raise TypeError(
                f"{what} must not be a generator function: pq would call it, and no line of it would run; "
                "return when all is done, and do not use `yield`"
            )


def _layers(function: Any) -> list[Any]:
    """Return what a call runs: the function itself, inside of partials, static methods and callable objects.

    What a wrapper made by `functools.wraps` stands for is not looked at: it may be the one that awaits it.
    """
    found = [function]
    while len(found) < 20:
        if isinstance(function, partial):
            function = function.func
        elif isinstance(function, (staticmethod, classmethod)):
            function = function.__func__
        elif inspect.isroutine(function) or isinstance(function, type):
            break
        else:
            function = type(function).__call__
        found.append(function)
    return found


def check_finished(what: str, result: Any) -> Any:
    """Return what a call returned, unless that shows that its work is still to be done.

    :raises TypeError: it is an awaitable, a generator or an asynchronous generator.
    """
    if result is None:
        return None
    kind = type(result)
    if not issubclass(kind, (Awaitable, Generator, AsyncGenerator)):
        return result
    if issubclass(kind, (Coroutine, Generator)):
        try:
            result.close()  # or Python warns that it was never awaited
        except BaseException:  # a generator that had begun has its own ideas
            pass
    found = "an awaitable, which nobody awaits" if issubclass(kind, Awaitable) else "a generator, of which no line ran"
    raise TypeError(f"{what} returned {found}: use asyncio.run() inside of it, or do the work before it returns")
