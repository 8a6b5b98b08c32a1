"""The ticker: ends batches, and does what else is to be done for queues all the time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from .._db.drivers.detect import own_driver
from .._db.drivers.dsn import compose
from .._logs import Log
from .._text import describe
from .behind import behind
from .checks import period

#: What is added to a DSN that does not have it.
DEFAULTS = {"connect_timeout": "15", "application_name": "PgQ Ticker"}


class Ticker:
    """The ticker of one database, of which one runs at a time, pgqueue's own included. It lasts: when it has lost the
    server, it connects again.

    :param dsn: with ``connect_timeout=15`` and ``application_name='PgQ Ticker'`` where it says nothing else.
    :param config: periods in seconds: ``ticker_period`` (1), ``maint_period`` (120), ``retry_period`` (30),
        ``stats_period`` (30; None or 0: never), and ``check_period`` (60), the longest pause before it connects again.
    :raises ValueError: the DSN is malformed, or a period is not positive.
    :raises TypeError: a period is no number.
    """

    _logger = Log("PgQ Ticker")

    def __init__(self, dsn: str, config: Mapping[str, Any] | None = None) -> None:
        config = {} if config is None else config
        self.check_period: float = period(config, "check_period", 60)
        self.maint_period: float = period(config, "maint_period", 120)
        self.retry_period: float = period(config, "retry_period", 30)
        self.stats_period: float = period(config, "stats_period", 30)
        self.ticker_period: float = period(config, "ticker_period", 1)
        self.n_ticks: int = 0
        self.n_maint: int = 0
        self.n_retry: int = 0
        self._next_ticker: float = 0.0
        self._next_maint: float = 0.0
        self._next_retry: float = 0.0
        self._next_stats: float = 0.0
        self._driver = own_driver()
        self._dsn = compose({**DEFAULTS, **self._driver.parameters(dsn)})
        self._connection: Any = None
        self._locked = False  # by this connection
        self._has_run = False
        self._failures = 0

    def cursor(self) -> Any:
        """Return a cursor of its connection, which is opened if there is none. It is in autocommit mode.

        :raises ConnectionFailed: the server can't be reached, or refuses.
        """
        if self._connection is None or self._connection.closed:
            self._locked = False
            self._connection = self._driver.connect(self._dsn)
        return self._connection.cursor()

    def close(self) -> None:
        """Close its connection, and with it give the lock back."""
        connection, self._connection, self._locked = self._connection, None, False
        if connection is not None:
            connection.close()

    def run(self) -> None:
        """Run for ever; return only if another ticker runs already."""
        self._logger.info("the ticker starts")
        while True:
            try:
                with self.cursor() as curs:
                    if not self._locked and not self._lock(curs):
                        return
                    pause = self.run_once(curs)
                self._failures = 0
            except Exception as error:
                pause = self._fail(error)
            time.sleep(pause)

    def _lock(self, curs: Any) -> bool:
        """Take the lock; return False if the ticker is to end."""
        if not self.try_lock(curs):
            if not self._has_run:
                return False
            raise RuntimeError("the lock is still held, perhaps by the lost connection")
        self._locked = self._has_run = True
        return True

    def _fail(self, error: Exception) -> float:
        """Give the connection up; return the seconds until the next one."""
        self._logger.warning("%s", describe(error))
        try:
            self.close()
        except Exception:
            pass  # it is gone
        self._failures += 1
        pause: float = min(self.check_period, 2 ** min(self._failures - 1, 10))
        return pause

    def try_lock(self, curs: Any) -> bool:
        """Take the lock, which the session then has to its end; return whether it has it."""
        if not self.check_pgq(curs):
            return False
        if not behind(curs).lock():
            self._logger.warning("a ticker of this database runs already")
            return False
        return True

    def check_pgq(self, curs: Any) -> bool:
        """Return whether this PgQ can be used: it must be 3.0 or later."""
        version = behind(curs, again=True).version()
        if int(version.partition(".")[0]) < 3:
            self._logger.warning("the extension pgq must be 3.0 or later, not %s", version)
            return False
        return True

    def run_once(self, curs: Any) -> float:
        """Do what it is time for, and return the seconds until there is more to do."""
        self.do_ticker(curs)
        if time.monotonic() >= self._next_maint:
            self.run_maint(curs)
            self._next_maint = time.monotonic() + self.maint_period
        if time.monotonic() >= self._next_retry:
            self.run_retry(curs)
            self._next_retry = time.monotonic() + self.retry_period
        if time.monotonic() >= self._next_stats and self.stats_period < float("inf"):
            self.log_stats()
            self._next_stats = time.monotonic() + self.stats_period
        return max(0.0, min(self._next_ticker, self._next_maint, self._next_retry) - time.monotonic())

    def do_ticker(self, curs: Any) -> Any:
        """End batches, if it is time; return what PgQ's ``ticker()`` does."""
        if time.monotonic() < self._next_ticker:
            return None
        found = behind(curs).tick()
        self.n_ticks += 1
        self._next_ticker = time.monotonic() + self.ticker_period
        return found

    def run_maint(self, curs: Any) -> None:
        """Rotate tables, and what else PgQ wants to be done now and then."""
        for name, operation in behind(curs).maintenance():
            self._logger.debug("maintenance: %s", name)
            behind(curs).maintain(operation)
            self.n_maint += 1
            self.do_ticker(curs)

    def run_retry(self, curs: Any) -> None:
        """Put back the events whose time has come."""
        while moved := behind(curs).retry():
            self.n_retry += moved
            self.do_ticker(curs)

    def log_stats(self) -> None:
        """Log how much it has done."""
        self._logger.info("%s", self)

    def __str__(self) -> str:
        return f"{{ticks: {self.n_ticks}, maint: {self.n_maint}, retry: {self.n_retry}}}"
