"""The limit: bare psycopg2 in a loop, on pq's table with pq's indexes, without its triggers."""

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


class Raw(TablePeer):
    """
    :ivar claim: what takes a job.
    :ivar claim_many: what takes a batch.
    """

    name = "raw"
    claim = CLAIM
    claim_many = CLAIM_MANY

    def connect(self, autocommit: bool = True) -> Any:
        import psycopg2

        conn = psycopg2.connect(self.dsn)
        conn.autocommit = autocommit
        return conn

    def create(self) -> None:
        import pq

        with pq.PQ(self.dsn) as queues:
            queues.create()
        with self.connect().cursor() as cursor:
            cursor.execute("select tgname from pg_trigger where tgrelid = 'queue'::regclass and not tgisinternal")
            for (trigger,) in cursor.fetchall():
                cursor.execute(f'drop trigger "{trigger}" on queue')

    def _step(self, statement: str, arguments: tuple[Any, ...] | None = None) -> Step:
        cursor = self.connect().cursor()

        def step() -> int:
            cursor.execute(statement, arguments)
            return len(cursor.fetchall())

        return step

    def putter(self, threads: int) -> Callable[[], Step]:
        return lambda: self._step(PUT, (TEXT,))

    def many_putter(self, threads: int) -> Callable[[], Step]:
        return lambda: self._step(PUT_MANY, ([TEXT] * BATCH,))

    def getter(self, threads: int) -> Callable[[], Step]:
        return lambda: self._step(self.claim)

    def many_getter(self, threads: int) -> Callable[[], Step]:
        return lambda: self._step(self.claim_many)

    def with_getter(self, threads: int) -> Callable[[], Step]:
        def make() -> Step:
            conn = self.connect(autocommit=False)
            cursor = conn.cursor()

            def step() -> int:
                cursor.execute(self.claim)
                found = len(cursor.fetchall())
                conn.commit()
                return found

            return step

        return make

    def work(self) -> None:
        """Nothing but batches of 100, claimed."""
        step = self.many_getter(1)()
        while step():
            pass


class RawPrepared(Raw):
    """The same with claims that the server has planned before: what no client can exceed."""

    name = "raw-prepared"
    claim = "execute claim"
    claim_many = "execute claim_many"

    def connect(self, autocommit: bool = True) -> Any:
        conn = super().connect()
        with conn.cursor() as cursor:
            cursor.execute(f"prepare claim as {CLAIM}")
            cursor.execute(f"prepare claim_many as {CLAIM_MANY}")
        conn.autocommit = autocommit
        return conn
