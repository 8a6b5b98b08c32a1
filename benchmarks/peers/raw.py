"""The limit: bare psycopg2 in a loop, on pq's table with pq's indexes, without its triggers. The server has planned the
statements before, as it has those of pq: what no client can exceed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .base import QUEUE, TEXT
from .loops import Step
from .table import TablePeer

BATCH = 1000

COLUMNS = "id, data::text, length(data::text), enqueued_at, schedule_at, expected_at"
READY = f"""
    select id from queue where q_name = '{QUEUE}' and dequeued_at is null and due_at is null
    order by q_name, expected_at, id limit %s for update skip locked
"""

PUT = f"insert into queue (q_name, data) values ('{QUEUE}', %s) returning id"
PUT_MANY = f"insert into queue (q_name, data) select '{QUEUE}', unnest(%s::text[])::json returning id"
CLAIM = f"update queue set dequeued_at = clock_timestamp() where id = ({READY % 1}) returning {COLUMNS}"
CLAIM_MANY = (
    f"update queue set dequeued_at = clock_timestamp() where id = any (array({READY % 100})) returning {COLUMNS}"
)
LEASE = (
    "update queue set dequeued_at = clock_timestamp(), due_at = clock_timestamp() + interval '30 s',"
    f" attempts = attempts + 1 where id = ({READY % 1}) returning {COLUMNS}, dequeued_at, attempts"
)
DONE = (
    "update queue set due_at = null"
    " where id = %s and attempts = %s and dequeued_at = %s and due_at is not null returning id"
)


class Raw(TablePeer):
    """
    :ivar prepares: whether the statements are prepared; claims take no parameter.
    """

    name = "raw"
    prepares = True

    def connect(self, autocommit: bool = True) -> Any:
        import psycopg2

        conn = psycopg2.connect(self.dsn)
        conn.autocommit = autocommit
        return conn

    def create(self) -> None:
        import pq

        with pq.PQ(self.dsn) as queues:
            queues.create()
        self.drop_triggers("queue")

    def drop_triggers(self, table: str) -> None:
        with self.connect().cursor() as cursor:
            cursor.execute(f"select tgname from pg_trigger where tgrelid = '{table}'::regclass and not tgisinternal")
            for (trigger,) in cursor.fetchall():
                cursor.execute(f'drop trigger "{trigger}" on {table}')

    def _ready(self, cursor: Any, name: str, statement: str, types: str = "") -> str:
        """Return what to execute for a statement."""
        if not self.prepares:
            return statement
        count = statement.count("%s")
        body = statement % tuple(f"${number + 1}" for number in range(count)) if count else statement
        cursor.execute(f"prepare {name}{types} as {body}")
        return f"execute {name}({', '.join(['%s'] * count)})" if count else f"execute {name}"

    def _step(self, statement: str, types: str = "", arguments: tuple[Any, ...] | None = None) -> Step:
        cursor = self.connect().cursor()
        text = self._ready(cursor, "step", statement, types)

        def step() -> int:
            cursor.execute(text, arguments)
            return len(cursor.fetchall())

        return step

    def putter(self, threads: int) -> Callable[[], Step]:
        return lambda: self._step(PUT, " (json)", (TEXT,))

    def many_putter(self, threads: int) -> Callable[[], Step]:
        return lambda: self._step(PUT_MANY, " (text[])", ([TEXT] * BATCH,))

    def getter(self, threads: int) -> Callable[[], Step]:
        return lambda: self._step(CLAIM)

    def many_getter(self, threads: int) -> Callable[[], Step]:
        return lambda: self._step(CLAIM_MANY)

    def with_getter(self, threads: int) -> Callable[[], Step]:
        def make() -> Step:
            conn = self.connect(autocommit=False)
            cursor = conn.cursor()
            claim = self._ready(cursor, "claim", CLAIM)
            conn.commit()

            def step() -> int:
                cursor.execute(claim)
                found = len(cursor.fetchall())
                conn.commit()
                return found

            return step

        return make

    def lease_getter(self, threads: int) -> Callable[[], Step]:
        def make() -> Step:
            cursor = self.connect().cursor()
            claim = self._ready(cursor, "claim", LEASE)
            done = self._ready(cursor, "done", DONE, " (bigint, int, timestamptz)")

            def step() -> int:
                cursor.execute(claim)
                found = cursor.fetchall()
                for id, *_, dequeued_at, attempts in found:
                    cursor.execute(done, (id, attempts, dequeued_at))
                return len(found)

            return step

        return make

    def work(self) -> None:
        """Nothing but batches of 100, claimed."""
        step = self.many_getter(1)()
        while step():
            pass


class RawUnprepared(Raw):
    """The same with statements that are planned each time."""

    name = "raw-unprepared"
    prepares = False
