"""``python -m pq.pgqueue DSN``: the ticker."""

from __future__ import annotations

import getpass
import logging
import os
import sys
import threading
from collections.abc import Sequence

from .._db.drivers.detect import own_driver
from .._db.drivers.dsn import compose
from .ticker import Ticker

USAGE = """usage: python -m pq.pgqueue DSN

The ticker of a database: ends batches, and does what else PgQ needs, until it is stopped.
If the DSN has no password, it is asked for.
"""


def with_password(dsn: str) -> str:
    """Return a DSN with the password that is asked for, if there is no other way to it.

    :raises ValueError: the DSN is malformed.
    """
    given = own_driver().parameters(dsn)
    if given.keys() & {"password", "passfile", "service"} or os.environ.keys() & {"PGPASSWORD", "PGPASSFILE"}:
        return dsn
    try:
        password = getpass.getpass("Password: ")
    except EOFError:
        password = ""
    return compose({**given, "password": password}) if password else dsn


def main(arguments: Sequence[str] | None = None) -> Ticker | None:
    """Run the ticker; with ``python -i`` in a thread, and return it.

    :raises SystemExit: there is no DSN, it is malformed, or another ticker runs.
    """
    dsn = " ".join(sys.argv[1:] if arguments is None else arguments)
    if not ("=" in dsn or "://" in dsn):
        print(USAGE, end="", file=sys.stderr)
        raise SystemExit(2)
    logging.basicConfig(level=logging.INFO)
    try:
        ticker = Ticker(with_password(dsn))
    except ValueError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
    if sys.flags.interactive:
        threading.Thread(target=ticker.run, name="pq.pgqueue ticker", daemon=True).start()
        return ticker
    try:
        ticker.run()
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return None
    raise SystemExit(1)  # another one runs, or PgQ is too old


if __name__ == "__main__":
    ticker: Ticker | None = main()
