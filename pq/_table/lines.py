"""Many rows at once, whatever they are: in parts for INSERT, as a file for COPY. Pure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Generic, Protocol, TypeVar

#: Rows, and characters of data, that are written by one statement.
ROWS = 1000
CHARACTERS = 1_000_000


class HasText(Protocol):
    """A row with data."""

    @property
    def text(self) -> str: ...


T = TypeVar("T")
D = TypeVar("D", bound=HasText)


def chunks(rows: Iterable[D]) -> Iterator[list[D]]:
    """Split rows into lists, each of as many as one statement writes."""
    chunk: list[D] = []
    characters = 0
    for row in rows:
        chunk.append(row)
        characters += len(row.text)
        if len(chunk) == ROWS or characters >= CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


class Lines(ABC, Generic[T]):
    """A file for COPY, of rows that are read as they are sent.

    :ivar count: how many lines have been read.
    :ivar error: what the iteration raised; the driver replaces it by an error of its own.
    """

    def __init__(self, rows: Iterable[T]) -> None:
        self._rows = iter(rows)
        self.count: int = 0
        self.error: BaseException | None = None

    @abstractmethod
    def line(self, row: T) -> str:
        """Return the line of a row, without its end; see `line_of`."""

    def read(self, size: int = 8192) -> str:
        """Return whole lines, of about `size` characters or of one row that is longer; nothing at the end.

        Both drivers take more than they have asked for. To cut a line would copy what is left of a large row each time.
        """
        parts: list[str] = []
        length = 0
        try:
            while length < size and (row := next(self._rows, None)) is not None:
                line = self.line(row)
                parts += (line, "\n")
                length += len(line) + 1
                self.count += 1
        except BaseException as error:
            self.error = error
            raise
        return "".join(parts)


def line_of(fields: Iterable[str | None]) -> str:
    """Return what stands in some columns as a line, or the part of one; None is null."""
    return "\t".join(map(_field, fields))


def _field(text: str | None) -> str:
    return "\\N" if text is None else text.translate(_ESCAPES)


_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})
