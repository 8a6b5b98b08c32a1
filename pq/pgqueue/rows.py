"""Events as lines of COPY. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .._args import check_text

Convert = Callable[[Mapping[str, "str | None"]], Iterable["str | None"]]

_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})


class Lines:
    """A file for COPY that reads rows as they are sent.

    :param rows: each of as many values as there are columns: None, or what ``str`` turns into text.
    :param convert: makes other values of those of a row, which have their names.
    :ivar error: what reading has raised; the driver replaces it by an error of its own.
    """

    def __init__(self, rows: Iterable[Iterable[Any]], columns: list[str], convert: Convert) -> None:
        self._rows = enumerate(rows)
        self._convert = convert
        self._columns = columns
        self.error: BaseException | None = None

    def read(self, size: int = 8192) -> str:
        """Return whole lines, of about `size` characters or one that is longer; nothing at the end."""
        lines: list[str] = []
        length = 0
        try:
            while length < size and (found := next(self._rows, None)) is not None:
                lines.append(self._line(*found))
                length += len(lines[-1])
        except BaseException as error:
            self.error = error
            raise
        return "".join(lines)

    def _line(self, number: int, row: Iterable[Any]) -> str:
        if isinstance(row, (str, bytes)):
            raise TypeError(f"row {number} must be a list or a tuple, not {type(row).__name__}")
        values = list(row)
        if len(values) != len(self._columns):
            raise ValueError(f"row {number} has {len(values)} values for {len(self._columns)} columns")
        named = zip(self._columns, values, strict=True)
        texts = {name: _text(f"{name} of row {number}", value) for name, value in named}
        return "\t".join(map(_field, self._convert(texts))) + "\n"


def _text(name: str, value: Any) -> str | None:
    if value is None:
        return None
    text = str(value)
    return check_text(name, text) if text else text


def _field(text: str | None) -> str:
    return "\\N" if text is None else text.translate(_ESCAPES)
