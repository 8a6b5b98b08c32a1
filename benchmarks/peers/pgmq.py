"""pgmq without its extension: the SQL that its client on PyPI brings along, called as that client calls it."""

from __future__ import annotations

from collections.abc import Callable

from .base import QUEUE, TEXT
from .loops import Step
from .prepared import Prepared
from .raw import BATCH

TAKE = f"select msg_id, message::text from pgmq.read('{QUEUE}', 30, %s)"
POP = f"select msg_id, message::text from pgmq.pop('{QUEUE}', %s)"


class Pgmq(Prepared):
    """
    :ivar end: what is done to a message that was read.
    """

    name = "pgmq"
    home = "pgmq"
    packages = ("pgmq",)
    tables = f"pgmq.q_{QUEUE}, pgmq.a_{QUEUE}"
    ready = f"insert into pgmq.q_{QUEUE} (vt, message) select now(), '{TEXT}' from generate_series(1, %(n)s)"
    end = "delete"

    def create(self) -> None:
        with self.connect().cursor() as cursor:
            cursor.execute(self.found("pgmq/sql/pgmq.sql"))
            cursor.execute("select pgmq.create(%s)", [QUEUE])

    def putter(self, threads: int) -> Callable[[], Step]:
        return lambda: self.step(f"select pgmq.send('{QUEUE}', %s)", " (jsonb)", (TEXT,))

    def many_putter(self, threads: int) -> Callable[[], Step]:
        statement = f"select pgmq.send_batch('{QUEUE}', %s::jsonb[])"
        return lambda: self.step(statement, " (text[])", ([TEXT] * BATCH,))

    def getter(self, threads: int) -> Callable[[], Step]:
        return lambda: self.step(POP % 1)

    def many_getter(self, threads: int) -> Callable[[], Step]:
        return lambda: self.step(POP % 100)

    def lease_getter(self, threads: int) -> Callable[[], Step]:
        statement = f"select pgmq.{self.end}('{QUEUE}', %s)"
        return lambda: self.cycle(TAKE % 1, statement, " (bigint)", lambda rows: (rows[0][0],))

    def many_lease_getter(self, threads: int) -> Callable[[], Step]:
        statement = f"select pgmq.{self.end}('{QUEUE}', %s)"
        return lambda: self.cycle(TAKE % 100, statement, " (bigint[])", lambda rows: ([row[0] for row in rows],))


class PgmqArchive(Pgmq):
    """The same, but messages are kept in the archive, as pq keeps finished jobs."""

    name = "pgmq-archive"
    end = "archive"
