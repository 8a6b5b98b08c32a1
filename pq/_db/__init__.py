"""The only package that touches a driver.

    psycopg2_driver   what pq needs of psycopg2, or psycopg2cffi
    dsns              what libpq would misunderstand
    sockets           waiting for file descriptors
    watchdog          cuts a connection whose server does not answer
    sources, own      where connections come from: one connection or a pool of the application's; a DSN
    plans             what is planned once and executed often
    line              the session that listens for notifications
    listener          looks at the queues that threads wait for
    waiting           the threads that wait, one of which leads; why no put is missed
    transaction       what a thread has open
    database          statements, transactions and waiting: what the rest of pq uses
"""

from .database import Database, Rows
from .sockets import Bell, wait_readable
from .waiting import Waiter

__all__ = ["Bell", "Database", "Rows", "Waiter", "wait_readable"]
