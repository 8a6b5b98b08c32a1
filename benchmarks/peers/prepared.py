"""A peer that is SQL: psycopg2 repeats statements that the server has planned before, and decodes nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .base import Peer
from .loops import Step


class Prepared(Peer):
    """
    :ivar prepares: whether the statements are prepared.
    """

    #: psycopg2 is this interpreter's.
    dependencies = False
    prepares = True

    def connect(self, autocommit: bool = True) -> Any:
        import psycopg2

        conn = psycopg2.connect(self.dsn)
        conn.autocommit = autocommit
        return conn

    def found(self, path: str) -> str:
        """The text of a file in the folder that the peer was installed into."""
        (file, *_) = (file for folder in sys.path if (file := Path(folder, path)).is_file())
        return file.read_text("utf-8")

    def ready_to_repeat(self, cursor: Any, name: str, statement: str, types: str = "") -> str:
        """Return what to execute for a statement."""
        if not self.prepares:
            return statement
        count = statement.count("%s")
        body = statement % tuple(f"${number + 1}" for number in range(count)) if count else statement
        cursor.execute(f"prepare {name}{types} as {body}")
        return f"execute {name}({', '.join(['%s'] * count)})" if count else f"execute {name}"

    def step(
        self, statement: str, types: str = "", arguments: tuple[Any, ...] | None = None, count: int | None = None
    ) -> Step:
        """
        :param count: of jobs; None: as many as there are rows.
        """
        cursor = self.connect().cursor()
        text = self.ready_to_repeat(cursor, "step", statement, types)

        def step() -> int:
            cursor.execute(text, arguments)
            rows = len(cursor.fetchall())
            return rows if count is None else count

        return step

    def cycle(self, take: str, end: str, types: str, arguments: Callable[[list[Any]], tuple[Any, ...]]) -> Step:
        """Two transactions: take jobs, and finish them.

        :param arguments: of the second statement, by the rows of the first one.
        """
        cursor = self.connect().cursor()
        takes = self.ready_to_repeat(cursor, "taking", take)
        ends = self.ready_to_repeat(cursor, "ending", end, types)

        def step() -> int:
            cursor.execute(takes)
            rows = cursor.fetchall()
            if rows:
                cursor.execute(ends, arguments(rows))
            return len(rows)

        return step
