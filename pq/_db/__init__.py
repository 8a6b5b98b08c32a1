"""Drivers and connections. No other package touches a driver, and this one knows no queue.

    database      statements and transactions: what the rest of pq uses
    aside         a second connection for threads that wait on the application's single one
    outside       a further connection, for what must be committed while a transaction is open
    execute       one statement outside of a transaction: limits, repetition, errors
    prepared      statements that the server plans once and executes often
    transaction   pq's own transactions, and savepoints
    joined        transactions of the application that pq joins
    scope         which block a statement belongs to
    block         the context managers around the application's code
    unwrap        the connection behind what an application passes
    known         what pq remembers of each connection
    loan          a connection that is taken from a source for a while
    watchdog      cuts a connection whose server does not answer
    sockets       waiting for file descriptors
    drivers/      base        what pq needs of a driver
                  psycopg2, psycopg3, adapted     what is special to each, and to SQLAlchemy's asynchronous ones
                  detect      which driver a connection or pool belongs to
                  errors      what errors mean, by their SQLSTATE
                  dsn         checks of a DSN, and what pq adds to one
                  limits      how long statements may take, as far as drivers are concerned
                  literal     parameters that stand in the SQL itself
    sources/      base        where connections come from
                  dsn         connections that pq opens
                  pools, sqlalchemy, single       connections of the application
                  reserved    one connection of a pool, kept for a worker's own threads
                  turns       who waits for a connection, and whose turn it is
                  cut         ends the session of a thread that hangs
"""

from .aside import Aside, aside_of
from .database import Database
from .drivers.base import Rows, Statement
from .drivers.detect import check_source, interruptible, is_dsn, own_driver
from .drivers.literal import Literal
from .outside import Outside
from .scope import block_of
from .sockets import Waker, wait_readable

__all__ = [
    "Aside",
    "Database",
    "Literal",
    "Outside",
    "Rows",
    "Statement",
    "Waker",
    "aside_of",
    "block_of",
    "check_source",
    "interruptible",
    "is_dsn",
    "own_driver",
    "wait_readable",
]
