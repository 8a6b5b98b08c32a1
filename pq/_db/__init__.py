"""The only package that touches a driver.

    driver            what pq needs of a driver, and what is the same with each
    psycopg2_driver   what is special to psycopg2, or psycopg2cffi
    psycopg3_driver   what is special to psycopg 3
    drivers           which driver a connection or pool belongs to
    literal           a parameter that stands in the SQL as it is
    dsns              what libpq would misunderstand
    sockets           waiting for file descriptors
    watchdog          cuts a connection whose server does not answer
    sources, pools    where connections come from: the application's one connection, or its pool
    own               or a DSN
    plans             what is planned once and executed often
    line              the session that listens for notifications
    listener          looks at the queues that threads wait for
    waiting           the threads that wait, one of which leads; why no put is missed
    polling           waiting in a transaction, where notifications do not tell all
    scope             which block a statement belongs to
    transaction       what a statement belongs to
    block             the context managers around the application's code
    joining           the connection behind what an application has at hand
    database          statements, transactions and waiting: what the rest of pq uses
"""

from .database import Database
from .drivers.base import Rows
from .drivers.detect import check_source, interruptible, own_driver
from .drivers.literal import Literal
from .scope import block_of
from .sockets import Waker, wait_readable

__all__ = [
    "Database",
    "Literal",
    "Rows",
    "Waker",
    "block_of",
    "check_source",
    "interruptible",
    "own_driver",
    "wait_readable",
]
