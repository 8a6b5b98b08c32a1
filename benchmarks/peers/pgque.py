"""PgQue: PgQ's tables and batches in SQL and PL/pgSQL alone. It is a stream: see the figure of that name."""

from __future__ import annotations

from collections.abc import Callable

from .base import QUEUE, TEXT
from .loops import Step
from .prepared import Prepared
from .raw import BATCH

#: A batch is what lies between two ticks.
TICK = f"select pgque.force_next_tick('{QUEUE}'); select pgque.ticker('{QUEUE}')"


class PgQue(Prepared):
    name = "pgque"
    home = "pgque"
    file = (
        "https://raw.githubusercontent.com/NikolayS/pgque/95d5c3c12bccab8f917167659cfe0ba4d64e38ca/sql/pgque.sql",
        "e7ffe1c941666e6789e5c91a7d0b28196bb8a883ebaf407b13794271926a5b2f",
    )
    tables = "pgque.tick, pgque.subscription"

    def create(self) -> None:
        with self.connect(autocommit=False) as conn, conn.cursor() as cursor:
            cursor.execute(self.found("pgque.sql"))
        self.publish(0)

    def publish(self, events: int) -> None:
        """There are so many, and no other ones, in batches of a thousand."""
        with self.connect().cursor() as cursor:
            cursor.execute("select pgque.drop_queue(queue_name, true) from pgque.queue")
            cursor.execute("select pgque.create_queue(%s)", [QUEUE])
            cursor.execute("select pgque.subscribe(%s, 'reader')", [QUEUE])
            for _ in range(0, events, BATCH):
                cursor.execute("select pgque.send_batch(%s, %s)", [QUEUE, [TEXT] * BATCH])
                for statement in TICK.split(";"):
                    cursor.execute(statement)

    def publisher(self, threads: int) -> Callable[[], Step]:
        return lambda: self.step(f"select pgque.send('{QUEUE}', %s)", " (text)", (TEXT,))

    def many_publisher(self, threads: int) -> Callable[[], Step]:
        statement = f"select pgque.send_batch('{QUEUE}', %s)"
        return lambda: self.step(statement, " (text[])", ([TEXT] * BATCH,), BATCH)

    def reader(self, threads: int) -> Callable[[], Step]:
        take = f"select batch_id, msg_id, payload from pgque.receive('{QUEUE}', 'reader', {BATCH})"
        return lambda: self.cycle(take, "select pgque.ack(%s)", " (bigint)", lambda rows: (rows[0][0],))
