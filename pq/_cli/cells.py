"""Text in the cells of a terminal: how wide it is, and columns that fit. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from .._text import printable


class Line(NamedTuple):
    """A line of a screen.

    :ivar style: ``''``, ``'title'``, ``'heading'``, ``'selected'``, ``'error'``, ``'warning'`` or ``'quiet'``.
    """

    text: str
    style: str = ""


class Column(NamedTuple):
    """A column of a table.

    :ivar title: its heading.
    :ivar texts: one for each row.
    :ivar rank: of columns that don't fit those with the highest rank are left out; 0: never.
    :ivar right: whether its texts stand at the right, as numbers do.
    :ivar most: how wide it is at most; the last column that is never left out gives way first.
    """

    title: str
    texts: Sequence[str]
    rank: int = 0
    right: bool = True
    most: int = 1000


def width_of(text: str) -> int:
    """Return the number of cells that a printable text takes."""
    if text.isascii():
        return len(text)
    return sum(_cells(char) for char in text)


def fit(text: str, width: int, right: bool = False) -> str:
    """Return a text in just so many cells: cut, with ``..`` at the end, or filled up with spaces."""
    text = printable(text)
    missing = width - width_of(text)
    if missing < 0:
        end = "." * min(2, width)
        kept, left = "", width - len(end)
        for char in text:
            left -= _cells(char)
            if left < 0:
                break
            kept += char
        text = kept + end
        missing = width - width_of(text)
    return " " * missing + text if right else text + " " * missing


def table(columns: Sequence[Column], width: int) -> list[str]:
    """Return the heading and the rows of a table that is not wider than the screen."""
    columns = list(columns)
    widths = [min(column.most, max(map(width_of, map(printable, (column.title, *column.texts))))) for column in columns]
    while sum(widths) + 2 * (len(columns) - 1) > width and (worst := max(column.rank for column in columns)):
        at = next(n for n, column in enumerate(columns) if column.rank == worst)
        del columns[at], widths[at]
    for at in range(len(columns)):  # the first ones are names, which may be of any length
        over = sum(widths) + 2 * (len(columns) - 1) - width
        if over > 0:
            widths[at] = max(min(widths[at], 4), widths[at] - over)
    rows = zip(*([column.title, *column.texts] for column in columns), strict=True)
    return [fit("  ".join(map(fit, row, widths, [column.right for column in columns])), width) for row in rows]


def _cells(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
