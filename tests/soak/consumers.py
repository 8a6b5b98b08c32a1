"""A process that takes jobs and events, each way in a thread: ``python -m tests.soak.consumers``; and the exporter of
metrics: ``python -m tests.soak.consumers PORT``."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import timezone
from typing import Any

import psycopg2

from .app import effect, pq, see, stream

_stop = threading.Event()


def blocks() -> None:
    """In transactions, some jobs in each."""
    queue = pq["blocks"]
    while not _stop.is_set():
        with queue as cursor:
            for timeout in (1, 0, 0, 0, 0):
                job = queue.get(timeout=timeout)
                if job is None:
                    break
                effect(cursor, job.data)


def items() -> None:
    """Each in a transaction."""
    while not _stop.is_set():
        with pq["items"].item(timeout=1) as job:
            if job is not None:
                effect(job.cursor, job.data)


def leases() -> None:
    """Under leases, which end in a transaction of the application."""
    with closing(psycopg2.connect(os.environ["SOAK_DSN"])) as conn:
        while not _stop.is_set():
            job: Any = pq["leases"].get(timeout=1, lease="60s")
            if job is not None:
                with conn, conn.cursor() as cursor:
                    effect(cursor, job.data)
                    job.done(conn=conn)


def orders() -> None:
    """What Django's tasks have put."""
    queue = pq["log"]
    while not _stop.is_set():
        with queue.item(timeout=1) as job:
            if job is not None:
                due = job.enqueued_at.replace(tzinfo=timezone.utc).timestamp()
                effect(job.cursor, {"kind": "order", "who": "django", "number": job.data["order"], "due": due})


def block() -> None:
    """Events in transactions."""
    reader = stream.subscription("block")
    while not _stop.is_set():
        with reader.batch(100, timeout=1) as batch:
            if batch:
                see(batch.cursor, "block", batch)


def parted() -> None:
    """Events of partitions, under leases."""
    reader = stream.subscription("parted")
    with closing(psycopg2.connect(os.environ["SOAK_DSN"])) as conn:
        while not _stop.is_set():
            batch = next(reader.batches(100, lease="60s", timeout=1))
            if batch:
                with conn, conn.cursor() as cursor:
                    see(cursor, "parted", batch)
                    batch.done(conn=conn)


WAYS: list[Callable[[], None]] = [blocks, items, leases, orders, block, parted]


def _guarded(way: Callable[[], None]) -> None:
    try:
        way()
    except BaseException:
        os.kill(os.getpid(), signal.SIGTERM)  # nobody is to work on without it
        raise


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *args: _stop.set())
    with pq:
        threads = [threading.Thread(target=_guarded, args=[way], name=way.__name__) for way in WAYS]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def export(port: int) -> None:
    from prometheus_client import REGISTRY, start_http_server

    from pq.contrib.prometheus import Collector

    signal.signal(signal.SIGTERM, lambda *args: _stop.set())
    REGISTRY.register(Collector(pq))
    server, thread = start_http_server(port, "127.0.0.1")
    while not _stop.wait(0.2):
        pass
    server.shutdown()
    thread.join()
    pq.close()


if __name__ == "__main__":
    export(int(sys.argv[1])) if sys.argv[1:] else main()
