"""Streams beside PgQ, in pairs: ``python -m benchmarks.pgq [CASE …]``.

PostgreSQL 15 with the extension of Debian's package ``postgresql-15-pgq3``, on which pgqueue 0.6, from PyPI, and
`pq.pgqueue` work; the streams are on the same server. For each case this prints the median of the ratios of the rates,
of streams to pgqueue, and the processor time of the server and of the client in microseconds an event, which other work
of the machine changes less. Where the extension is not there, it says so and does nothing.

    insert       one event a transaction: publish, of pgqueue's insert_event
    ours         the same, pq.pgqueue's insert_event on PgQ, of pgqueue's
    bulk         1,000 events a transaction: publish_many, of COPY into PgQ's table
    read, N      N consumers at once, each reads all in batches of 1,000, in transactions
    cold         one consumer reads what has been there before: rate and memory of the client
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

BINARIES = Path("/usr/lib/postgresql/15/bin")
CONTROL = Path("/usr/share/postgresql/15/extension/pgq.control")
ROOT = Path(__file__).resolve().parents[1]

#: How many calls a turn makes, and events in a batch.
CALLS = {"insert": 1000, "bulk": 10}
MANY = 1000

CASES = ("insert", "ours", "bulk", "read", "cold")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pgq", description=__doc__.split("\n\n")[0])
    parser.add_argument("cases", nargs="*", metavar="case", help=f"default: {' '.join(CASES)}")
    parser.add_argument("--pairs", type=int, default=11)
    parser.add_argument("--events", type=int, default=50_000, help="for 'read' (default: 50,000)")
    parser.add_argument("--cold", type=int, default=1_000_000, help="events for 'cold' (default: 1,000,000)")
    parser.add_argument("--pgqueue", type=Path, help="the folder that pgqueue 0.6 was installed into")
    args = parser.parse_args()
    if wrong := set(args.cases) - set(CASES):
        parser.error(f"no such case: {' '.join(wrong)}")
    if not (CONTROL.exists() and BINARIES.exists()):
        print("skipped: the extension pgq is not here: apt-get install postgresql-15-pgq3")
        return
    os.environ["PQ_PG_BIN"] = str(BINARIES)
    with tempfile.TemporaryDirectory(prefix="pq-benchmark-pgqueue-") as folder:
        if args.pgqueue is None:
            command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", folder, "pgqueue==0.6"]
            subprocess.run(command, check=True)
        sys.path.append(str(args.pgqueue or folder))
        os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(args.pgqueue or folder)])
        measure(args)


def measure(args: argparse.Namespace) -> None:
    import pgqueue

    import pq.pgqueue
    from pq import PQ

    from .server import Server

    with Server() as server, server.using("synchronous_commit", "off"), PQ(server.dsn()) as made:
        server.execute("create extension pgq")
        server.execute("select pgq.create_queue('q')")
        made.create()
        stream = made.streams["q"]
        stream.create()
        with closing(connected(server.dsn())) as conn, conn.cursor() as cursor:
            ways: dict[str, tuple[Callable[[int], Any], Callable[[int], Any], int]] = {
                "insert": (
                    lambda n: stream.publish(f"data {n}", "type"),
                    lambda n: pgqueue.insert_event(cursor, "q", "type", f"data {n}"),
                    1,
                ),
                "ours": (
                    lambda n: pq.pgqueue.insert_event(cursor, "q", "type", f"data {n}"),
                    lambda n: pgqueue.insert_event(cursor, "q", "type", f"data {n}"),
                    1,
                ),
                "bulk": (lambda _: stream.publish_many(some(MANY), "type"), lambda _: copied(cursor, MANY), MANY),
            }
            for case in args.cases or CASES:
                if case in ways:
                    ours, theirs, events = ways[case]
                    calls = CALLS.get(case, CALLS["insert"])
                    turns = partial(repeat, ours, calls), partial(repeat, theirs, calls)
                    pairs(server, case, args.pairs, *turns, calls * events)
                elif case == "read":
                    read(server, args)
                else:
                    cold(server, args.cold)


def connected(dsn: str, autocommit: bool = True) -> Any:
    import psycopg2

    conn = psycopg2.connect(dsn)
    conn.autocommit = autocommit
    return conn


def some(n: int) -> list[str]:
    return [f"data {i}" for i in range(n)]


def copied(cursor: Any, n: int) -> None:
    """As pgqueue's `bulk_insert_events`, which does not work with today's psycopg2."""
    import io

    cursor.execute("select pgq.current_event_table('q')")
    table = cursor.fetchone()[0]
    lines = io.StringIO("".join(f"now\ttype\t{data}\n" for data in some(n)))
    cursor.copy_expert(f"copy {table} (ev_time, ev_type, ev_data) from stdin", lines)


def repeat(call: Callable[[int], Any], n: int) -> None:
    for i in range(n):
        call(i)


def pairs(
    server: Any, name: str, count: int, ours: Callable[[], Any], theirs: Callable[[], Any], events: int
) -> None:
    from .stats import interval, median

    ratios: list[float] = []
    used: dict[Callable[[], Any], list[float]] = {ours: [], theirs: []}
    clients: dict[Callable[[], Any], list[float]] = {ours: [], theirs: []}
    rates: dict[Callable[[], Any], list[float]] = {ours: [], theirs: []}
    for turn in range(-1, count):  # the first pair warms up
        for way in (ours, theirs) if turn % 2 else (theirs, ours):
            before, own, began = processor_time(server), time.thread_time(), time.perf_counter()
            result = way()
            seconds, client = time.perf_counter() - began, time.thread_time() - own
            spent = processor_time(server) - before
            if isinstance(result, dict):  # measured by processes of its own, whose sessions are gone by now
                seconds, spent, client = result["seconds"], result["processor"], result["client"]
            if turn >= 0:
                rates[way].append(events / seconds)
                used[way].append(spent / events * 1e6)
                clients[way].append(client / events * 1e6)
        if turn >= 0:
            ratios.append(rates[ours][-1] / rates[theirs][-1])
    print(
        f"{name:10} {interval(ratios)}   {median(rates[ours]):9,.0f}/s of {median(rates[theirs]):9,.0f}/s   "
        f"server {median(used[ours]):6.1f} us of {median(used[theirs]):6.1f} us   "
        f"client {median(clients[ours]):6.1f} us of {median(clients[theirs]):6.1f} us",
        flush=True,
    )


def processor_time(server: Any) -> float:
    """The seconds that the server's client sessions have used."""
    pids = [pid for (pid,) in server.execute("select pid from pg_stat_activity where backend_type = 'client backend'")]
    return sum(map(of_process, pids))


def of_process(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    except OSError:
        return 0.0


# -- reading: consumers are processes


def read(server: Any, args: argparse.Namespace) -> None:
    for consumers in (1, 4, 16):
        fill(server, args.events, consumers)

        def ours(consumers: int = consumers) -> dict[str, float]:
            return together(server, "stream", consumers, args.events)

        def theirs(consumers: int = consumers) -> dict[str, float]:
            return together(server, "pgqueue", consumers, args.events)

        pairs(server, f"read, {consumers}", max(1, args.pairs // 4), ours, theirs, args.events * consumers)


def fill(server: Any, events: int, consumers: int) -> None:
    """Publish, with a tick at each thousand events; consumers begin before that, and are put back to it."""
    from pq import PQ

    server.execute("select pgq.drop_queue('q', true)")
    server.execute("select pgq.create_queue('q')")
    for i in range(consumers):
        server.execute("select pgq.register_consumer('q', %s)", [f"c{i}"])
    with PQ(server.dsn()) as pq, closing(connected(server.dsn())) as conn, conn.cursor() as cursor:
        pq.streams["q"].drop(force=True)
        stream = pq.streams["q"]
        stream.create()
        for i in range(consumers):
            stream.subscribe(f"c{i}", "beginning")
        for _ in range(0, events, MANY):
            stream.publish_many(some(MANY), "type")
            copied(cursor, MANY)
            cursor.execute("select pgq.force_tick('q'), pgq.ticker('q')")
        cursor.execute("vacuum analyze")


def together(server: Any, kind: str, consumers: int, events: int) -> dict[str, float]:
    """Have so many processes read all; return the seconds, and the processor time of their sessions."""
    if kind == "stream":
        from pq import PQ

        with PQ(server.dsn()) as pq:
            for i in range(consumers):
                pq.streams["q"].subscription(f"c{i}").seek("beginning")
    else:
        for i in range(consumers):
            server.execute("select pgq.register_consumer_at('q', %s, 1)", [f"c{i}"])
    command = [sys.executable, "-m", "benchmarks.pgq_child", kind, server.dsn(), str(events)]
    children = [
        subprocess.Popen([*command, f"c{i}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, encoding="utf-8")
        for i in range(consumers)
    ]
    for child in children:
        assert child.stdout is not None
        child.stdout.readline()  # it is ready
    began = time.perf_counter()
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    told = [json.loads(child.communicate()[0]) for child in children]
    assert all(each["events"] == events for each in told), told
    return {
        "seconds": max(each["ended"] for each in told) - began,
        "processor": sum(each["processor"] for each in told),
        "client": sum(each["client"] for each in told),
        "memory": max(each["memory"] for each in told),
    }


def cold(server: Any, events: int) -> None:
    from pq import PQ

    with PQ(server.dsn()) as pq:
        pq.streams["q"].drop(force=True)
        stream = pq.streams["q"]
        stream.create()
        stream.subscribe("c0", "beginning")
        for _ in range(3):  # three transactions
            stream.load((f"data {i}" for i in range(events // 3)), "type")
        stream.load((f"data {i}" for i in range(events - events // 3 * 3)), "type")
    told = together(server, "stream", 1, events)
    print(
        f"{'cold':10} {events:,} events: {events / told['seconds']:,.0f}/s, {told['memory'] / 1024:.0f} MB of the"
        f" client's, processor {told['processor'] / events * 1e6:.1f} us an event",
        flush=True,
    )


def peak_memory() -> int:
    """In kilobytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
