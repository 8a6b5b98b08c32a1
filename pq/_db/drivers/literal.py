"""A query parameter that stands in the SQL as it is. Of no driver, and known to all."""

from __future__ import annotations


class Literal:
    """Unquoted text as a parameter, where parameters are bound by the client: on psycopg2 always, on psycopg 3 with its
    ``ClientCursor`` or ``sql.SQL("… {}").format(…)``."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return self._text

    def __bytes__(self) -> bytes:
        return self._text.encode()

    def __repr__(self) -> str:
        return f"<Literal {self._text}>"

    # what psycopg2 asks of a parameter

    def __conform__(self, protocol: object) -> Literal:
        return self

    def getquoted(self) -> bytes:
        return bytes(self)
