"""Events as lines of COPY. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .._args import check_text
from .._table.lines import Lines, line_of

Convert = Callable[[Mapping[str, "str | None"]], Iterable["str | None"]]


class RowLines(Lines["tuple[int, Iterable[Any]]"]):
    """A file for COPY that reads rows as they are sent.

    :param rows: each of as many values as there are columns: None, or what ``str`` turns into text.
    :param convert: makes other values of those of a row, which have their names.
    """

    def __init__(self, rows: Iterable[Iterable[Any]], columns: list[str], convert: Convert) -> None:
        super().__init__(enumerate(rows))
        self._convert = convert
        self._columns = columns

    def line(self, row: tuple[int, Iterable[Any]]) -> str:
        """
        :raises TypeError: the row is a str.
        :raises ValueError: it has more or fewer values than there are columns, or PostgreSQL can't hold one.
        """
        number, given = row
        if isinstance(given, (str, bytes)):
            raise TypeError(f"row {number} must be a list or a tuple, not {type(given).__name__}")
        values = list(given)
        if len(values) != len(self._columns):
            raise ValueError(f"row {number} has {len(values)} values for {len(self._columns)} columns")
        named = zip(self._columns, values, strict=True)
        texts = {name: _text(f"{name} of row {number}", value) for name, value in named}
        return line_of(self._convert(texts))


def _text(name: str, value: Any) -> str | None:
    if value is None:
        return None
    text = str(value)
    return check_text(name, text) if text else text
