"""This checkout against an older one, in pairs: ``python -m benchmarks.pairs REVISION [OPERATION …]``.

In place of a revision there may be one of this checkout's own parts, which the older one then has not, as in
``python -m benchmarks.pairs running-index put get lease work`` or ``otel put``: each put has a span of OpenTelemetry's
SDK. With ``otel-sdk`` it has a span and a counter of the SDK alone, none of pq. ``ahead jobs``: the loop takes jobs
ahead. ``psycopg3 put-conn get-conn``: its connection is one of psycopg 3. ``raw put get block lease jobs``: beside
psycopg2's bare loop of prepared statements, in place of an older checkout, also with jobs that are taken ahead, by
``ahead-raw jobs``. ``--commit on`` waits for the disk.
``pq-1.9.1 wakeup --commit on``: the time from the call of put to the return of get in another process, which waits;
also with a revision. It must be the only operation.

Two processes, one for each checkout, take turns on one server, so that what else the machine does meets both. For each
operation this prints the median of the ratios, new to old, with the interval that contains it with 95 % confidence (by
the binomial distribution of ranks): of the rate, where more is better, and of the processor time a call, where less is.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

#: How many calls a turn makes.
CALLS = {
    "put": 300,
    "get": 300,
    "get_many": 50,
    "block": 200,
    "lease": 150,
    "put-conn": 300,
    "get-conn": 300,
    "jobs": 150,
    "work": 4000,
    "wakeup": 200,
}

BATCH = 100

#: What only the second process has.
PARTS = ("running-index", "otel", "otel-sdk", "ahead", "ahead-raw", "psycopg3", "raw")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pairs", description=__doc__.split("\n\n")[0])
    parser.add_argument("revision", help=f"of git, to compare with; or {', '.join(PARTS)}")
    parser.add_argument("operations", nargs="*", metavar="operation", help=f"default: {' '.join(CALLS)}")
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--commit", default="off", choices=("on", "off"), help="synchronous_commit (default: off)")
    args = parser.parse_args()
    if wrong := set(args.operations) - set(CALLS):
        parser.error(f"no such operation: {' '.join(wrong)}")
    if "wakeup" in args.operations and (len(args.operations) > 1 or args.revision in PARTS):
        parser.error("wakeup must be the only operation, with a revision or pq-1.9.1")
    operations = args.operations or [operation for operation in CALLS if operation != "wakeup"]
    if args.revision in PARTS:
        compare(ROOT, operations, args.pairs, args.commit, args.revision)
        return
    with tempfile.TemporaryDirectory(prefix="pq-benchmark-pairs-") as folder:
        if args.revision == "pq-1.9.1":
            from .install import Installed

            wakeups(args.revision, Installed(Path(folder), [args.revision], {}).folders[args.revision], args)
            return
        old = Path(folder, "old")
        old.mkdir()
        archive = subprocess.run(["git", "archive", args.revision, "pq"], cwd=ROOT, stdout=subprocess.PIPE, check=True)
        subprocess.run(["tar", "-x"], input=archive.stdout, cwd=old, check=True)
        if operations == ["wakeup"]:
            wakeups("pq", old, args)
            return
        compare(old, operations, args.pairs, args.commit)


def compare(old: Path, operations: list[str], pairs: int, commit: str, part: str = "") -> None:
    from .server import Server
    from .stats import interval

    with ExitStack() as stack:
        server = stack.enter_context(Server())
        stack.enter_context(server.using("synchronous_commit", commit))  # if on, most of the time is the disk's
        both = (old, "old", f"-{part}"), (ROOT, "new", part)
        a, b = (stack.enter_context(closing(Turn(*each, server))) for each in both)
        for operation in operations:
            rates, times = [], []
            for i in range(-1, pairs):  # the first pair warms up
                first, second = (a, b) if i % 2 else (b, a)
                taken = {turn: turn.take(operation) for turn in (first, second)}
                if i >= 0:
                    rates.append(taken[a][0] / taken[b][0])
                    times.append(taken[b][1] / taken[a][1])
            print(f"{operation:9} rate {interval(rates)}   processor time a call {interval(times)}", flush=True)


def wakeups(peer: str, old: Path, args: argparse.Namespace) -> None:
    """Of this checkout and of a peer in another folder: percentiles of each turn."""
    from .server import Server
    from .sites import Site
    from .stats import interval, percentile, spread

    pauses = [random.Random(7).uniform(0.002, 0.015) for _ in range(97)]
    calls, percents = CALLS["wakeup"], (50, 99)
    with ExitStack() as stack:
        server = stack.enter_context(Server())
        stack.enter_context(server.using("synchronous_commit", args.commit))
        places = (peer, old), ("pq", ROOT)
        sites = [stack.enter_context(closing(Site(server, *place, n))) for n, place in enumerate(places)]
        producers = [site.start() for site in sites]
        found: dict[tuple[int, int], list[float]] = {}
        for i in range(-1, args.pairs):
            for n in (0, 1) if i % 2 else (1, 0):
                sites[n].child.tell("consume", samples=calls)
                time.sleep(0.5)
                producers[n].ask("produce", samples=calls, pauses=pauses)
                times = sites[n].child.answer()[10:]  # not those of the start
                for percent in percents if i >= 0 else ():
                    found.setdefault((n, percent), []).append(1000 * percentile(times, percent))
        for percent in percents:
            a, b = found[0, percent], found[1, percent]
            ratios = [y / x for x, y in zip(a, b, strict=True)]
            print(f"p{percent} {interval(ratios)}   ms: {spread(b)}, of the other {spread(a)}", flush=True)


class Turn:
    """One of the two processes."""

    def __init__(self, checkout: Path, name: str, part: str, server: Any) -> None:
        command = [sys.executable, __file__, str(checkout), server.dsn(), f"pairs_{name}", part]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8", cwd="/", start_new_session=True
        )

    def take(self, operation: str) -> tuple[float, float]:
        """Return the seconds, and the seconds of processor time, that the calls took."""
        assert self._process.stdin is not None and self._process.stdout is not None
        print(operation, file=self._process.stdin, flush=True)
        seconds, processor = json.loads(self._process.stdout.readline())
        return seconds, processor

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def child(checkout: str, dsn: str, table: str, part: str) -> None:
    """Measure what standard input asks for. All names must be there in the oldest checkout to compare with.

    :param part: which of `PARTS` it has; with a minus, which one it has not.
    """
    sys.path[0] = checkout
    import logging

    import psycopg2

    import pq.tasks

    logging.disable(logging.CRITICAL)
    queues = pq.tasks.PQ(dsn, table=table)
    queues.create(retain="7d" if part.endswith("raw") else 0)  # with 0, what one turn leaves slows down no other
    queue = queues["jobs"]
    conn = psycopg2.connect(dsn)
    if part == "psycopg3":
        import psycopg

        conn = psycopg.connect(dsn)
    conn.autocommit = part.endswith("psycopg3")
    on_conn = pq.PQ(conn, table=table)["jobs"]

    if part == "-running-index":
        with conn, conn.cursor() as cursor:
            cursor.execute("select indexrelid::regclass::text from pg_index where indrelid = %s::regclass", (table,))
            (index,) = (name for (name,) in cursor.fetchall() if "running" in name)
            cursor.execute(f"drop index {index}")
    put = with_spans(queues, queue, part)

    @queue.task(name="noop")
    def noop(job_id: int) -> None:
        pass

    def block() -> None:
        with queue:
            taken(queue.get(timeout=0))

    def taken(job: Any) -> None:
        assert job

    def ended(job: Any) -> None:
        with job:
            pass

    options = {"ahead": True} if part.startswith("ahead") else {}
    loop: Any = None
    steps: dict[str, Callable[[], Any]] = {
        "put": put,
        "get": lambda: taken(queue.get(timeout=0)),
        "get_many": lambda: taken(queue.get_many(BATCH, timeout=0)),
        "block": block,
        "lease": lambda: queue.get(timeout=0, lease="30s").done(),
        "put-conn": lambda: on_conn.put({"n": 1}),
        "get-conn": lambda: taken(on_conn.get(timeout=0)),
        "jobs": lambda: ended(next(loop)),
    }
    if part.startswith("-") and part.endswith("raw"):
        steps = bare(dsn, table)
    call = {"function": "noop", "args": [], "kwargs": {}}
    for line in sys.stdin:
        operation = line.strip()
        calls = CALLS[operation]
        loop = queue.jobs(timeout=0, **options)
        queue.clear()
        if part.endswith("raw"):
            with conn, conn.cursor() as cursor:
                cursor.execute(f"truncate {table}")
        if not operation.startswith("put"):
            queue.put_many([call] * (calls * BATCH if operation == "get_many" else calls))
        step = steps.get(operation)
        began, used = time.perf_counter(), time.process_time()
        if step is None:
            pq.tasks.Worker(queue, burst=True, max_jobs=calls).run()
        else:
            for _ in range(calls):
                step()
        spent = time.perf_counter() - began, time.process_time() - used
        conn.rollback()
        print(json.dumps(spent), flush=True)


def bare(dsn: str, table: str) -> dict[str, Callable[[], Any]]:
    """The operations of psycopg2's bare loop, on a table that loses its triggers."""
    from benchmarks.peers.raw import Raw

    class Bare(Raw):
        """The same on this table and queue."""

        def ready_to_repeat(self, cursor: Any, name: str, statement: str, types: str = "") -> str:
            renamed = re.sub(r"\b(from|into|update) queue\b", rf"\1 {table}", statement).replace("'bench'", "'jobs'")
            return super().ready_to_repeat(cursor, name, renamed, types)

    raw = Bare(dsn)
    raw.drop_triggers(table)
    put, get = raw.putter(1)(), raw.getter(1)()
    lease = raw.lease_getter(1)()
    return {
        "put": put, "put-conn": put, "get": get, "get-conn": get, "get_many": raw.many_getter(1)(),
        "block": raw.with_getter(1)(), "lease": lease, "jobs": lease,
    }  # fmt: skip


def with_spans(queues: Any, queue: Any, part: str) -> Callable[[], Any]:
    """Return what puts a job, with the spans that are asked for; their exporter does nothing."""
    if not part.startswith("otel"):
        return lambda: queue.put({"n": 1})
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
    from opentelemetry.trace import SpanKind

    class Nowhere(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    spans, meters = TracerProvider(), MeterProvider([InMemoryMetricReader()])
    spans.add_span_processor(BatchSpanProcessor(Nowhere()))
    if part == "otel":
        from pq.contrib import otel

        queues.instrument(otel.Instrument(spans, meters))
        return lambda: queue.put({"n": 1})
    tracer, counter = spans.get_tracer("pairs"), meters.get_meter("pairs").create_counter("sent")

    def put() -> None:
        with tracer.start_as_current_span("send", kind=SpanKind.PRODUCER, attributes={"queue": "jobs"}) as span:
            span.set_attribute("id", queue.put({"n": 1}))
        counter.add(1, {"queue": "jobs"})

    return put


if __name__ == "__main__":
    child(*sys.argv[1:]) if len(sys.argv) == 5 and Path(sys.argv[1]).is_dir() else main()
