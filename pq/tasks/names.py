"""The names that jobs have for tasks: which function a name stands for, here and in the process of a worker."""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
import warnings
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Any

#: The names of the module that Python runs; the second one in processes of `multiprocessing`.
MAIN = ("__main__", "__mp_main__")


def path_of(handler: Any) -> str:
    """Return the import path of a function.

    :raises TypeError: it has none: it is a partial, or another object that can be called.
    """
    module, qualname = getattr(handler, "__module__", None), getattr(handler, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(qualname, str):
        raise TypeError(f"{handler!r} has no import path by which a worker could find it: give the task a name=")
    if module in MAIN:
        module = main_name(getattr(handler, "__globals__", {}))
    return f"{module}.{qualname}"


def main_name(program: dict[str, Any]) -> str:
    """Return the name by which other programs can import this one's main module; ``'__main__'`` if they can't.

    :param program: the globals of the main module.
    """
    spec, file = program.get("__spec__"), program.get("__file__")
    if spec is not None:
        return str(spec.name)  # python -m orchard.tasks
    folder, base = os.path.split(os.path.abspath(file)) if file else ("", "")
    name, suffix = os.path.splitext(base)
    # what is inside of a package has a longer name, which nobody knows here
    if suffix != ".py" or not name.isidentifier() or os.path.exists(os.path.join(folder, "__init__.py")):
        return MAIN[0]
    try:
        found = importlib.util.find_spec(name)
        same = found is not None and found.origin is not None and os.path.samefile(found.origin, str(file))
    except (ImportError, ValueError, OSError):
        same = False
    return name if same else MAIN[0]


def normal(path: str) -> str:
    """Return the path that a task of the main module has here: an older pq has put ``__main__.eat``."""
    module, _, rest = path.partition(".")
    return f"{main_name(vars(sys.modules['__main__']))}.{rest}" if module in MAIN else path


def check_name(name: str, handler: Any, other: Any) -> None:
    """Check that a function may take the place of another one that has the same name.

    When a module is loaded again, its functions are defined again, and each takes the place of its former self. If two
    functions have one path, as those that a factory makes, a warning is given: 1.9.1 allowed that, and a worker calls
    the last one.

    :param other: the function that has the name now.
    :raises ValueError: they are different functions, of different paths.
    """
    if other is handler or other == handler:
        return
    if not _is_same_path(handler, other):
        raise ValueError(f"two tasks have the name {name!r}: {_path(other)} and {_path(handler)}")
    if _are_two(handler, other):
        warnings.warn(
            f"two functions are the task {name!r}: a worker calls the one that was decorated last, for the jobs of "
            "both; give each a name= of its own",
            stacklevel=3,
        )


def _is_same_path(handler: Any, other: Any) -> bool:
    """Return whether they have one path, or are in one file: the main module may be imported by its name, too."""
    if _code(handler) is None or _code(other) is None:
        return False
    if handler.__qualname__ != other.__qualname__:
        return False
    return bool(handler.__module__ == other.__module__ or _file(handler) == _file(other))


def _are_two(handler: Any, other: Any) -> bool:
    """Return whether both are meant to exist, so that neither takes the place of the other."""
    new, old = _code(handler), _code(other)
    assert new is not None and old is not None
    if new is old:  # made by a function that ran twice; a module that is loaded again has new code
        return True
    files = {_file(handler), _file(other)}
    if len(files) == 2 and not any(file.startswith("<") for file in files):  # <stdin>, or a cell of a notebook
        return True
    return any(_has(frame.f_code, new) and _has(frame.f_code, old) for frame in _frames())


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def _has(outer: CodeType, inner: CodeType) -> bool:
    """Return whether a function was defined by this code, or in a class there."""
    consts = [const for const in outer.co_consts if isinstance(const, CodeType)]
    return any(const is inner or _has(const, inner) for const in consts)


def _code(handler: Any) -> CodeType | None:
    code = getattr(inspect.unwrap(handler), "__code__", None)
    return code if isinstance(code, CodeType) else None


def _file(handler: Any) -> str:
    code = _code(handler)
    return "" if code is None else code.co_filename


def _path(handler: Any) -> str:
    qualname = getattr(handler, "__qualname__", None)
    return repr(handler) if qualname is None else f"{handler.__module__}.{qualname}"
