"""Importing what a dotted path names, without letting a row import just anything."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

from .._text import describe
from .names import MAIN, main_name


class NotFound(Exception):
    """Nothing has this path."""


#: Characters of a path: a longer one names nothing.
MAX_PATH = 1_000


def locate(path: str, packages: Sequence[str] | None) -> Any:
    """Import a module and return what is at this path in it.

    :param packages: modules are imported only if they are, or are in, one of these; None: any module. What is imported
        already is found in any case.
    :raises NotFound: nothing has that path, or the import fails.
    """
    parts = path.split(".")
    if len(path) > MAX_PATH or not all(part.isidentifier() for part in parts):
        raise _missing("nothing can have that path")
    found: Any = None
    count, refused = 0, ""
    for number in range(1, len(parts) + 1):
        name = ".".join(parts[:number])
        module = _imported(name)
        if module is None:
            if packages is not None and not is_in(name, packages) and not any(is_in(each, [name]) for each in packages):
                refused = name
                break
            module = _import(name)
        if module is None:
            break
        found, count = module, number
    if found is None:
        raise _missing(_hint(refused, packages) if refused else "there is no such module")
    for part in parts[count:]:
        try:
            found = getattr(found, part)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            why = _hint(refused, packages) if refused else f"{'.'.join(parts[:count])} has nothing of that name"
            raise _missing(why) from error
    return found


def is_in(name: str, packages: Sequence[str]) -> bool:
    """Whether a module is one of these packages, or in one of them."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _imported(name: str) -> Any:
    module = sys.modules.get(name)
    main = sys.modules.get(MAIN[0])
    if module is None and main is not None and main_name(vars(main)) == name:
        return main  # not a second time
    return module


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and is_in(name, [error.name]):
            return None
        raise _missing(f"its import failed: {describe(error)}", "cannot be imported") from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the module may do anything
        raise _missing(f"its import failed: {describe(error)}", "cannot be imported") from error


def _hint(refused: str, packages: Sequence[str] | None) -> str:
    allowed = ", ".join(packages or ())
    return f"this worker imports only modules of {allowed}, and not {refused}; see --allow"


def _missing(why: str, what: str = "not found") -> NotFound:
    return NotFound(f"{what}: {why}")
