"""Statements that are planned once and executed often.

Planning one of pq's statements takes the server as long as executing it. So what a connection executes again within a
second is prepared there. A plan lives for a second: one that was right for an empty table would read all of a full one.

Prepared statements belong to a server session. Behind a transaction pooler that is another one each time: nothing is
prepared there. Where the application has discarded them the server says so, and the connection does without for a
while.
"""

from __future__ import annotations

import re
import time
from functools import lru_cache
from hashlib import sha256
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from .drivers.base import Driver

#: Seconds that a plan lives, and in which a statement must be repeated to be worth one.
LIFE = 1.0

#: Seconds without, after the server had lost one.
PAUSE = 60.0

#: Otherwise the server may choose to plan anew each time, by what it expects of the parameters. Not for all of the
#: session: the application's own statements and functions may be executed there, too.
GENERIC = "set local plan_cache_mode = force_generic_plan; "

_PARAMETER = re.compile(r"%%|%\((\w+)\)s")


class Plans:
    """What is prepared on which connection. A connection belongs to one thread at a time."""

    # of all PQ: those that share a connection share what is prepared there
    _known: ClassVar[WeakKeyDictionary[Any, _Session]] = WeakKeyDictionary()

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def text(self, conn: Any, sql: str) -> str:
        """What to execute, with the same parameters, in place of a statement.

        :raises ConnectionLost: nothing was executed.
        """
        session = self._known.get(conn)
        if session is None:
            session = self._known[conn] = _Session()
        now = time.monotonic()
        if not session.repeats(sql, now):
            return sql
        if session.fixed is None:
            session.fixed = not self._is_hidden(conn)
        return session.text(sql, now) if session.fixed else sql

    def _is_hidden(self, conn: Any) -> bool:
        try:
            return self._driver.backend_is_hidden(conn)
        except self._driver.Error as error:
            if self._driver.is_lost(conn, error):
                self._driver.raise_lost(error)
            raise

    def lost(self, conn: Any) -> bool:
        """The server does not know what was prepared. False if nothing was."""
        session = self._known.get(conn)
        if session is None or not session.made:
            return False
        session.forget(time.monotonic())
        return True


class _Session:
    """
    :ivar fixed: whether the connection belongs to it; None: not known yet.
    :ivar losses: how often the server did not know what was prepared.
    :ivar made: when each statement was prepared, by its name; monotonic seconds, as all.
    :ivar used: when it was executed for the last time.
    :ivar begins_at: when statements may be prepared.
    """

    def __init__(self) -> None:
        self.fixed: bool | None = None
        self.losses = 0
        self.made: dict[str, float] = {}
        self.used: dict[str, float] = {}
        self.begins_at = 0.0

    def repeats(self, sql: str, now: float) -> bool:
        used, self.used[sql] = self.used.get(sql), now
        return used is not None and now - used <= LIFE and now >= self.begins_at

    def text(self, sql: str, now: float) -> str:
        name, prepare, execute = _prepared(sql, self.losses)
        generic = "" if sql.startswith("insert") else GENERIC  # of which there is but one plan
        made = self.made.get(name)
        if made is not None and now - made <= LIFE:
            return f"{generic}{execute}"
        self.made[name] = now
        begin = prepare if made is None else f"deallocate {name}; {prepare}"
        return f"{begin}; {generic}{execute}"

    def forget(self, now: float) -> None:
        self.made.clear()
        self.losses += 1
        self.begins_at = now + PAUSE


@lru_cache(maxsize=256)
def _prepared(sql: str, losses: int = 0) -> tuple[str, str, str]:
    """The name, PREPARE and EXECUTE. Equal statements have equal names, but after a loss: some may not be lost."""
    names = list(dict.fromkeys(filter(None, _PARAMETER.findall(sql))))
    name = f"pq_{sha256(sql.encode()).hexdigest()[:16]}_{losses}"
    body = _PARAMETER.sub(lambda match: f"${names.index(match[1]) + 1}" if match[1] else match[0], sql)
    arguments = ", ".join(f"%({name})s" for name in names)
    return name, f"prepare {name} as {body}", f"execute {name}({arguments})"
