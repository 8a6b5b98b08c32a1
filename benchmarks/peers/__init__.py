"""The libraries that are measured, each in processes of its own.

A module is read twice: here for the SQL that prepares a database, in the child process for the library itself, which
is imported nowhere else and so only inside functions.
"""

from __future__ import annotations

from .base import Peer
from .graphile import Graphile
from .pgmq import Pgmq, PgmqArchive
from .pgque import PgQue
from .pgqueuer import PgQueuer, PgQueuer1, PgQueuer10, PgQueuer100
from .pq import Pq, PqConnection, PqDeleting, PqPsycopg3
from .pq191 import Pq191
from .procrastinate import Procrastinate
from .raw import Raw, RawTriggers, RawUnprepared

PEERS: dict[str, type[Peer]] = {
    peer.name: peer
    for peer in (
        *(Raw, RawTriggers, RawUnprepared, Pq, PqConnection, PqPsycopg3, PqDeleting, Pq191),
        *(Procrastinate, PgQueuer, PgQueuer1, PgQueuer10, PgQueuer100, Graphile),
        *(Pgmq, PgmqArchive, PgQue),
    )
}

__all__ = ["PEERS", "Peer"]
