"""SIGTERM, SIGINT and SIGUSR1, as programs of psycopg2_mq expect them."""

from __future__ import annotations

import json
import logging
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

log: logging.Logger = logging.getLogger("pq.contrib.mq")


@contextmanager
def captured(stop: Callable[[], object], status: Callable[[], Any]) -> Iterator[None]:
    """Inside, in the main thread: SIGTERM and the first SIGINT stop the worker, a second SIGINT raises
    KeyboardInterrupt, and SIGUSR1 prints the status to stderr, as JSON."""

    def on_term(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)
        log.info("SIGTERM: the jobs that run are waited for")
        stop()

    def on_int(number: int, frame: object) -> None:
        signal.signal(number, signal.default_int_handler)
        log.info("SIGINT: the jobs that run are waited for")
        stop()

    def on_usr1(number: int, frame: object) -> None:
        print(json.dumps(status(), indent=2, sort_keys=True, default=repr), file=sys.stderr, flush=True)

    before = {
        number: signal.signal(number, handler)
        for number, handler in ((signal.SIGTERM, on_term), (signal.SIGINT, on_int), (signal.SIGUSR1, on_usr1))
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
