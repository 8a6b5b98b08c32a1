"""A consumer of `benchmarks.pgq`: ``python -m benchmarks.pgq_child KIND DSN EVENTS NAME``."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from .pgq import MANY, connected, of_process, peak_memory


def main(kind: str, dsn: str, events: str, name: str) -> None:
    conn = connected(dsn, autocommit=False)
    pid = conn.info.backend_pid
    take = streams(conn, name) if kind == "stream" else pgqueue(conn, name)
    print("ready", flush=True)
    sys.stdin.readline()
    before, own, found = of_process(pid), time.thread_time(), 0
    while found < int(events):
        count = take()
        assert count, f"{found} of {events}"
        found += count
    ended, processor, client = time.perf_counter(), of_process(pid) - before, time.thread_time() - own
    told = {"ended": ended, "processor": processor, "client": client, "events": found, "memory": peak_memory()}
    print(json.dumps(told))


def streams(conn: Any, name: str) -> Any:
    from pq import PQ

    conn.autocommit = True
    reader = PQ(conn).streams["q"].subscription(name)

    def take() -> int:
        with reader.batch(MANY, timeout=0) as batch:
            return len([event.data for event in batch])

    return take


def pgqueue(conn: Any, name: str) -> Any:
    import pgqueue

    consumer = pgqueue.Consumer("q", name)

    def take() -> int:
        for batch in consumer.next_batches(conn, limit=1, commit=False):
            count = len([event.data for event in batch])
        conn.commit()
        return count

    return take


if __name__ == "__main__":
    main(*sys.argv[1:])
