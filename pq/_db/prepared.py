"""Statements that are planned once and executed often.

Planning one of pq's statements takes the server as long as executing it. So a statement that a connection executes
again within a second is prepared there. A plan lives for ten: the server may have made another one meanwhile, for an
empty table, which would read all of a full one.

Prepared statements belong to a server session. Behind a transaction pooler each statement may meet another session, so
nothing is prepared there. If the application has discarded the statements, the server says so, and the connection goes
without for a while.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from hashlib import sha256
from typing import Any

#: Seconds in which a statement must be repeated to be worth a plan.
REPEAT = 1.0

#: Seconds that a plan lives. To make one takes as long as some ten executions, and a job that comes just then waits.
LIFE = 10.0

#: Statements that are prepared on a connection, and remembered, at most: the plans of one take 100 kB or more there.
MAX_STATEMENTS = 30

#: Seconds without prepared statements, after the server had lost one.
LOSS_PAUSE = 60.0

#: Of a statement with parameters the server makes a plan for their values five times. Then it compares what these have
#: cost with what one plan for all values would: so it is asked for the five at once, while operators seem to cost a
#: fortune. After that it stays with the one, whatever it costs, and no setting has to stand before each execution.
DEAR = "set local cpu_operator_cost = 1e9; "
VALUES = 5
GENERIC = "; set local cpu_operator_cost to default; set local plan_cache_mode = force_generic_plan; "

#: Before the plan is made, and after it: pq's statements go by indexes, though a small table may seem to be read more
#: quickly as a whole; it may have grown before the plan is renewed. EXPLAIN makes the plan and executes nothing, so
#: that the plans of the application's triggers are not concerned.
PLANNED = "set local enable_seqscan = off; set local jit = off; explain "
BACK = "; set local enable_seqscan to default; set local jit to default; set local plan_cache_mode to default"

_PARAMETER = re.compile(r"%%|%\((\w+)\)s")


class Prepared:
    """What is prepared on one connection.

    :ivar losses: how often the server did not know what was prepared.
    :ivar made: when each statement was prepared, by its name; monotonic seconds, as all.
    :ivar used: when it was executed for the last time.
    :ivar begins_at: when statements may be prepared.
    """

    __slots__ = ("_whole", "begins_at", "losses", "made", "used")

    def __init__(self) -> None:
        self.losses = 0
        self.made: dict[str, float] = {}
        self.used: dict[str, float] = {}
        self.begins_at = 0.0
        self._whole: dict[tuple[Any, ...], str] = {}

    def _repeats(self, sql: str, now: float) -> bool:
        """Return whether the connection has executed this statement a moment ago, so that it is worth preparing."""
        used = self.used.get(sql)
        if used is None and len(self.used) >= MAX_STATEMENTS:
            self.used = {text: at for text, at in self.used.items() if now - at <= REPEAT}
            if len(self.used) >= MAX_STATEMENTS:  # so many are used in turn that preparing them is not worth it
                return False
        self.used[sql] = now
        return used is not None and now - used <= REPEAT and now >= self.begins_at

    def text(self, sql: str) -> str:
        """Return what to execute, with the same parameters, in place of a statement: itself, if it is not repeated."""
        now = time.monotonic()
        if not self._repeats(sql, now):
            return sql
        name, prepare, execute = _planned(sql, self.losses)
        return f"{self._before(name, prepare, now)}{execute}"

    def whole(self, sql: str, params: Mapping[str, Any], mogrify: Callable[[], str]) -> tuple[str, str]:
        """Return what to execute to prepare a statement with its parameters in it, and what to execute in its place: of
        such a one there is but one plan, so that it needs no setting, which would stay until the transaction ends. One
        is empty if it is prepared already, both if it is not worth it.

        :param mogrify: returns the statement with its parameters in it.
        """
        if sql.startswith("insert"):
            return "", ""
        key = (sql, *params.values())
        body = self._whole.get(key)
        if body is None:
            if len(self._whole) >= MAX_STATEMENTS:
                self._whole.clear()
            body = self._whole[key] = mogrify()
        now = time.monotonic()
        if not self._repeats(body, now):
            return "", ""
        name = _name(body, self.losses)
        execute = f"execute {name}"
        return self._before(name, f"prepare {name} as {body}; {PLANNED}{execute}", now), execute

    def _before(self, name: str, prepare: str, now: float) -> str:
        """Return what has to be executed to prepare a statement; nothing if its plan still lives."""
        made = self.made.get(name)
        if made is not None and now - made <= LIFE:
            return ""
        # renewed, it is the last to be dropped
        self.made.pop(name, None)
        drop = "" if made is None else f"deallocate {name}; "
        if len(self.made) >= MAX_STATEMENTS:
            oldest = next(iter(self.made))
            del self.made[oldest]
            drop = f"deallocate {oldest}; "
        self.made[name] = now
        return f"{drop}{prepare}; "

    def lost(self) -> bool:
        """Forget all: the server does not know what was prepared. Return False if nothing was."""
        if not self.made:
            return False
        self.made.clear()
        self.losses += 1
        self.begins_at = time.monotonic() + LOSS_PAUSE
        return True


@lru_cache(maxsize=256)
def _planned(sql: str, losses: int) -> tuple[str, str, str]:
    """Return the name, what prepares and plans the statement, and what executes it by that plan."""
    name, prepare, execute = _prepared(sql, losses)
    if sql.startswith("insert"):  # of which there is but one plan
        return name, prepare, execute
    some = _PARAMETER.sub("null", execute)
    values = "; ".join([f"explain {some}"] * VALUES)
    return name, f"{prepare}; {DEAR}{values}{GENERIC}{PLANNED}{some}{BACK}", execute


def _prepared(sql: str, losses: int = 0) -> tuple[str, str, str]:
    """Return the name, PREPARE and EXECUTE. Equal statements have equal names; after a loss, new ones, since the server
    may have lost only some."""
    names = list(dict.fromkeys(filter(None, _PARAMETER.findall(sql))))
    name = _name(sql, losses)
    body = _PARAMETER.sub(lambda match: f"${names.index(match[1]) + 1}" if match[1] else match[0], sql)
    arguments = ", ".join(f"%({name})s" for name in names)
    return name, f"prepare {name} as {body}", f"execute {name}({arguments})"


@lru_cache(maxsize=256)
def _name(sql: str, losses: int) -> str:
    return f"pq_{sha256(sql.encode()).hexdigest()[:16]}_{losses}"
