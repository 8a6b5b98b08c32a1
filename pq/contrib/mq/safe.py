"""Pure: what JSON can hold, of what it might not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: How deep lists and mappings are looked into.
DEPTH = 20


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
