"""Whether a worker takes work: for the probes of whoever restarts what does not.

A worker is *live* as long as its parts come to what is due. A part that waits for the database does not stand still: no
outage is mended by another process. It is *ready* if the database serves it, and it is not about to stop.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from .._logs import worker_log as logger
from .._loop import Loop
from .._text import describe
from ..sql import array
from .execution import BEATS
from .worker import Worker

#: Seconds from one look at the worker to the next, if its heart does not beat more often; and the least time after
#: which a part counts as standing still.
BEAT = 10.0
LEAST = 1.0

#: Seconds for which jobs must have waited at least, while threads were idle and took none; more with a long lease.
STARVED = 10.0

#: Seconds that a look at the queues may take.
TIMEOUT = 2.0

#: What code that waits for the database is in.
_DATABASE = f"{__package__.partition('.')[0]}._db"


class Health:
    """Looks after a worker. Start it before, and stop it after `Worker.run`::

        with Health(worker, file="/tmp/alive"):
            worker.run()

    The file is touched by each beat, three in a lease but at least every 10 seconds, while the worker is live. Where
    systemd has set ``NOTIFY_SOCKET``, it is told the same.

    :param worker: the `Worker`.
    :param file: the path of a file that is to be touched, or None.
    """

    def __init__(self, worker: Worker, file: str | os.PathLike[str] | None = None) -> None:
        beat = worker._lease.total_seconds() / BEATS
        self.loop: Loop = Loop(self.run_once, "pq health")
        self._worker = worker
        self._file = None if file is None else Path(file)
        self._beat = min(beat, BEAT)
        self._limit = max(BEATS * beat, LEAST)
        self._patience = max(self._limit, STARVED)
        self._seen: tuple[float, int] = 0.0, 0  # how often jobs waited, since this was the last time that one was taken
        self._told_ready = self._told_error = False

    def problems(self) -> list[str]:
        """Return why the worker takes no work though the database serves it: a sentence for each reason. Empty: it is
        live."""
        worker = self._worker
        services = worker._services
        found = []
        for name, part in (("heartbeat", services.heartbeat), ("settlement", services.completer)):
            # other threads settle, too, and the one of the completer waits for them
            if (seconds := part.loop.behind) > self._limit and not waits_for_database(inside=type(part).__module__):
                found.append(f"the {name} has stood still for {seconds:.0f} seconds")
        waits_since = worker._stop.waits_since
        if waits_since is not None and not worker._stop.wanted:
            seconds = time.monotonic() - waits_since
            if seconds > self._limit + LEAST:
                found.append(f"the thread that called run() has stood still for {seconds:.0f} seconds")
        taken_at, times = self._seen
        if times > 1 and taken_at == worker._held.busy_at:
            seconds = time.monotonic() - taken_at
            found.append(f"jobs wait, threads are idle, and none was taken for {seconds:.0f} seconds")
        return found

    @property
    def ready(self) -> bool:
        """Whether the worker has been served by the database since its last outage, and is not about to stop."""
        backoff = self._worker._services.backoff
        return backoff.served and backoff.error is None and not self._worker._stop.wanted

    def status(self) -> dict[str, Any]:
        """Return the status of the worker, whether it is ``live`` and ``ready``, and the ``problems``, for JSON."""
        problems = self.problems()
        return self._worker.status() | {"live": not problems, "ready": self.ready, "problems": problems}

    def run_once(self) -> float:
        """Do what one beat does; return the seconds until the next."""
        if not self.problems():
            self._tell("WATCHDOG=1")
            if self.ready and not self._told_ready:
                self._told_ready = True
                self._tell("READY=1")
            try:
                if self._file is not None:
                    self._file.touch()
            except OSError as error:
                if not self._told_error:
                    logger.error("the file of --health-file can't be touched: %s", error)
                self._told_error = True
        self._look_for_jobs()
        return self._beat

    def _look_for_jobs(self) -> None:
        """Note whether jobs wait that this worker should have taken."""
        worker = self._worker
        held, taken_at = worker._held, worker._held.busy_at
        idle = len(held.running()) < worker.threads and not held.full and not worker._stop.wanted
        if not idle or not self.ready or time.monotonic() - taken_at < self._patience:
            self._seen = taken_at, 0
            return
        if any(waits_for_database(thread.ident) for thread in list(worker._threads.running)):
            return  # for a connection, perhaps, that a handler has
        table = worker._services.completer.table
        names = array(queue.name for queue in worker.queues)
        try:
            sql = table.statements("health.sql")["waiting"]
            ((waits,),) = table.execute(sql, {"queues": names, "seconds": self._patience}, timeout=TIMEOUT)
        except Exception as error:  # of the driver, too
            logger.debug("%s: no look at the queues: %s", worker.name, describe(error))
            waits = False
        seen_at, times = self._seen
        # two times: a transaction may have held what waits until a moment ago
        self._seen = taken_at, (times + 1 if seen_at == taken_at else 1) if waits else 0

    def _tell(self, word: str) -> None:
        """Tell systemd, if it wants to be told."""
        address = os.environ.get("NOTIFY_SOCKET", "")
        if not address or not hasattr(socket, "AF_UNIX"):
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(1.0)
                sock.sendto(word.encode(), f"\0{address[1:]}" if address[0] == "@" else address)
        except OSError as error:
            logger.debug("systemd was not told: %s", error)

    def __enter__(self) -> Health:
        self.loop.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.loop.stop(TIMEOUT + 1.0)


def waits_for_database(ident: int | None = None, inside: str = "") -> bool:
    """Return whether a thread is in code that talks to the database, or waits for a connection.

    :param ident: of the thread; None: any.
    :param inside: the name of a module that has called that code, or `''`.
    """
    frames = sys._current_frames()
    for frame in frames.values() if ident is None else filter(None, [frames.get(ident)]):
        modules = set(_modules(frame))
        if (not inside or inside in modules) and any(module.startswith(_DATABASE) for module in modules):
            return True
    return False


def _modules(frame: FrameType | None) -> Iterator[str]:
    """Yield the names of the modules of a frame, and of those that have called it."""
    while frame is not None:
        yield str(frame.f_globals.get("__name__"))
        frame = frame.f_back
