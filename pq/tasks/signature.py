"""Whether a call fits a task's function: found out when it is called, and not by a worker."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .._calls import check_plain

#: Arguments of a call that are pq's own.
OWN = ("_schedule_at", "_expected_at", "_key", "_unique", "_after", "_conn")

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_KEYWORD = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class Signature:
    """What arguments a function takes after the job's id.

    :param handler: the function.
    :raises TypeError: it is async or a generator function, it can't take the job's id, or it has a parameter of a name
        that is pq's own.
    """

    def __init__(self, handler: Any) -> None:
        check_plain("a task", handler)
        try:
            # not of what a wrapper wraps: it may add arguments, or take some away
            signature = inspect.signature(handler, follow_wrapped=False)
        except ValueError:  # a function in C that does not say what it takes
            signature = inspect.Signature(
                [
                    inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL),
                    inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD),
                ]
            )
        name = getattr(handler, "__qualname__", None) or repr(handler)
        parameters = list(signature.parameters.values())
        for parameter in parameters:
            if parameter.name in OWN and parameter.kind is not inspect.Parameter.VAR_KEYWORD:
                raise TypeError(f"task {name} must not have a parameter {parameter.name}: at the call that is pq's own")
        takes_more = any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in parameters)
        positional = [parameter for parameter in parameters if parameter.kind in _POSITIONAL]
        if not positional and not takes_more:
            raise TypeError(f"task {name} must take the job's id as its first positional argument")
        self._signature = signature
        self._names = [parameter.name for parameter in positional[1:]]
        # what is enough to see that most calls are right, in a fraction of the time of `bind`
        keywords = [each.name for each in parameters if each.kind in _KEYWORD]
        self._keywords = frozenset(keywords) - {parameter.name for parameter in positional[:1]}
        required = [parameter.name for parameter in parameters if _is_required(parameter)]
        self._required = frozenset(required) - {parameter.name for parameter in positional[:1]}
        self._most = float("inf") if takes_more else len(self._names)

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any], name: str) -> None:
        """
        :raises TypeError: the function does not take these arguments.
        """
        if len(args) <= self._most:
            given = self._names[: len(args)]
            if kwargs:
                right = kwargs.keys() <= self._keywords and kwargs.keys().isdisjoint(given)
                given += kwargs
            else:
                right = True
            if right and self._required.issubset(given):
                return
        try:
            self._signature.bind(None, *args, **kwargs)
        except TypeError as error:
            raise TypeError(f"task {name}: {error}") from None

    def named(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> object:
        """Return the arguments in one form, whether they were given by their places or by their names."""
        bound = self._signature.bind(None, *args, **kwargs)
        return [bound.args[1:], bound.kwargs]

    def by_name(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments, all by their names.

        :raises ValueError: one can't be given by a name.
        """
        names = self._names[: len(args)]
        if len(names) < len(args) or not self._keywords.issuperset(names):
            raise ValueError(f"only arguments that have names can be merged, not {len(args)} positional ones")
        return {**dict(zip(names, args, strict=True)), **kwargs}

    def caller(self, function: Callable[..., Any]) -> Callable[[Sequence[Any], Mapping[str, Any]], Any]:
        """Return what calls another function with the arguments of a call.

        If the names of its parameters are those of this one's, it is called by them, and gets only what it names.
        """
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except ValueError:
            parameters = []
        wanted = {parameter.name for parameter in parameters if parameter.kind in _KEYWORD}
        takes_rest = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
        is_named = all(parameter.kind in (*_KEYWORD, inspect.Parameter.VAR_KEYWORD) for parameter in parameters)
        if not parameters or not is_named or not wanted <= self._keywords:
            return lambda args, kwargs: function(*args, **kwargs)

        def call(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
            bound = self._signature.bind(None, *args, **kwargs)
            bound.apply_defaults()
            found = {name: bound.arguments[name] for name in self._keywords if name in bound.arguments}
            return function(**(found if takes_rest else {name: found[name] for name in wanted}))

        return call

    def argument(self, number: int) -> str:
        """Return what to call a positional argument in a message."""
        return self._names[number] if number < len(self._names) else f"number {number + 1}"


def _is_required(parameter: inspect.Parameter) -> bool:
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return parameter.default is parameter.empty and parameter.kind not in variable
