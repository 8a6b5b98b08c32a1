"""The limit: bare psycopg2 in a loop, on pq's table with pq's indexes, without its triggers. The server has planned the
statements before, as it has those of pq: what no client can exceed."""

from __future__ import annotations

from collections.abc import Callable

from .base import QUEUE, TEXT
from .loops import Step
from .prepared import Prepared
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
    f" attempts = attempts + 1 where id = any (array({READY})) returning {COLUMNS}, attempts, dequeued_at"
)
DONE = (
    "update queue set due_at = null"
    " where id = %s and attempts = %s and dequeued_at = %s and due_at is not null returning id"
)
DONE_MANY = "update queue set due_at = null where id = any (%s) and due_at is not null returning id"

# A stream: rows, and how far they were read.
PUBLISH = "insert into event (data) values (%s) returning id"
PUBLISH_MANY = "insert into event (data) select unnest(%s::text[])::json returning id"
READ = f"select id, data::text from event where id > (select id from place for update) order by id limit {BATCH}"


class Raw(Prepared, TablePeer):
    name = "raw"

    def create(self) -> None:
        import pq

        with pq.PQ(self.dsn) as queues:
            queues.create()
        self.drop_triggers("queue")
        with self.connect().cursor() as cursor:
            cursor.execute("create table event (id bigserial primary key, data json); create table place (id bigint)")

    def drop_triggers(self, table: str) -> None:
        with self.connect().cursor() as cursor:
            cursor.execute(f"select tgname from pg_trigger where tgrelid = '{table}'::regclass and not tgisinternal")
            for (trigger,) in cursor.fetchall():
                cursor.execute(f'drop trigger "{trigger}" on {table}')

    def putter(self, threads: int) -> Callable[[], Step]:
        return lambda: self.step(PUT, " (json)", (TEXT,))

    def many_putter(self, threads: int) -> Callable[[], Step]:
        return lambda: self.step(PUT_MANY, " (text[])", ([TEXT] * BATCH,))

    def getter(self, threads: int) -> Callable[[], Step]:
        return lambda: self.step(CLAIM)

    def many_getter(self, threads: int) -> Callable[[], Step]:
        return lambda: self.step(CLAIM_MANY)

    def with_getter(self, threads: int) -> Callable[[], Step]:
        def make() -> Step:
            conn = self.connect(autocommit=False)
            cursor = conn.cursor()
            claim = self.ready_to_repeat(cursor, "claim", CLAIM)
            conn.commit()

            def step() -> int:
                cursor.execute(claim)
                found = len(cursor.fetchall())
                conn.commit()
                return found

            return step

        return make

    def lease_getter(self, threads: int) -> Callable[[], Step]:
        types = " (bigint, int, timestamptz)"
        return lambda: self.cycle(LEASE % 1, DONE, types, lambda rows: (rows[0][0], *rows[0][-2:]))

    def many_lease_getter(self, threads: int) -> Callable[[], Step]:
        return lambda: self.cycle(LEASE % 100, DONE_MANY, " (bigint[])", lambda rows: ([row[0] for row in rows],))

    def work(self) -> None:
        """Nothing but batches of 100, claimed."""
        step = self.many_getter(1)()
        while step():
            pass

    # -- a stream

    def publish(self, events: int) -> None:
        """There are so many, and no other ones."""
        with self.connect().cursor() as cursor:
            cursor.execute("truncate event, place; insert into place values (0)")
            cursor.execute(f"insert into event (data) select '{TEXT}' from generate_series(1, %s)", [events])

    def publisher(self, threads: int) -> Callable[[], Step]:
        return lambda: self.step(PUBLISH, " (json)", (TEXT,))

    def many_publisher(self, threads: int) -> Callable[[], Step]:
        return lambda: self.step(PUBLISH_MANY, " (text[])", ([TEXT] * BATCH,))

    def reader(self, threads: int) -> Callable[[], Step]:
        def make() -> Step:
            conn = self.connect(autocommit=False)
            cursor = conn.cursor()
            read = self.ready_to_repeat(cursor, "read", READ)
            move = self.ready_to_repeat(cursor, "move", "update place set id = %s", " (bigint)")
            conn.commit()

            def step() -> int:
                cursor.execute(read)
                rows = cursor.fetchall()
                if rows:
                    cursor.execute(move, (rows[-1][0],))
                conn.commit()
                return len(rows)

            return step

        return make


class RawTriggers(Raw):
    """The same on pq's table as it is."""

    name = "raw-triggers"

    def drop_triggers(self, table: str) -> None:
        pass


class RawUnprepared(Raw):
    """The same with statements that are planned each time."""

    name = "raw-unprepared"
    prepares = False
