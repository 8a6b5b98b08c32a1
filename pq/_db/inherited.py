"""Connections that a process has from the one that it was forked from."""

from __future__ import annotations

from typing import Any

_inherited: list[Any] = []


def leave_to_the_parent(*connections: Any) -> None:
    """Never use these again, nor what holds them. Closing them would say goodbye on the parent's sockets; so they are
    kept, lest the garbage collector do that."""
    _inherited.extend(connections)
