"""Pure: what JSON can hold, of what it might not; and what the database would refuse."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ..._args import check_text

#: How deep lists and mappings are looked into.
DEPTH = 20

#: How JSON writes the one character that JSONB can't hold.
NUL: re.Pattern[str] = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def safe(value: Any, depth: int = DEPTH) -> Any:
    """Return lists, and mappings with texts as keys, of texts: what is neither is shown as by ``repr``.

    :param depth: what is deeper is shown as ``...``: it may contain itself.
    """
    if depth == 0:
        return "..."
    if isinstance(value, (list, tuple)):
        return [safe(each, depth - 1) for each in value]
    if isinstance(value, Mapping):
        return {text(str, key): safe(each, depth - 1) for key, each in list(value.items())}
    return text(repr, value)


def text(function: Any, value: Any) -> str:
    """Return a text that PostgreSQL can hold: without NUL, and without half of a pair.

    :param function: `str` or `repr`.
    """
    try:
        if isinstance(value, bytes):
            value = value.decode("latin1")
        return str(function(value)).replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")
    except Exception:
        return "<broken repr>"


def check_call(
    dialect: Any, queue: object, method: object, args: object, cursor_key: object, collapse_on_cursor: bool,
    trace: object = None,
) -> None:  # fmt: skip
    """Check what is asked for, before the database would refuse it, and with it the transaction.

    :param dialect: of SQLAlchemy; its engine may have a serializer of its own.
    :raises TypeError: an argument has another type, or JSON can't hold it.
    :raises ValueError: a text is empty, or PostgreSQL can't hold it; `collapse_on_cursor` without `cursor_key`.
    """
    check_text("queue", queue)
    check_text("method", method)
    if collapse_on_cursor and not cursor_key:
        raise ValueError("collapse_on_cursor needs a cursor_key")
    if cursor_key is not None and cursor_key != "":
        check_text("cursor_key", cursor_key)
    dumps = getattr(dialect, "_json_serializer", None) or json.dumps
    for name, value in (("args", args), ("trace", trace)):
        try:
            written = dumps(value)
            json.dumps(json.loads(written, parse_constant=_refused), ensure_ascii=False).encode()  # no lone surrogates
            if NUL.search(written):
                raise ValueError("a text has a NUL character")
        except (TypeError, ValueError, RecursionError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"{name} can't be stored as JSON: {error}") from error


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
