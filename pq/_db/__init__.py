"""The only package that touches a driver.

    psycopg2_driver   what pq needs of psycopg2 or psycopg2cffi
    sources           where connections come from: one connection, a pool, or a DSN
    database          statements and transactions, per thread and connection
    waiting           waiting for a queue without polling, and without missing a put
    watchdog          cuts a connection whose server does not answer
"""

from .database import Database

__all__ = ["Database"]
