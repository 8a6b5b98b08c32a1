"""A soak from beginning to end."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from pq import PQ

from ..torture.server import Server
from . import audit, logs, roles, samples
from .cast import Cast
from .visitors import PAGES, Visitors, dump, fetch, scrape

SETTINGS = (
    "fsync=on", "max_connections=100", "wal_level=logical", "autovacuum_naptime=5s", "log_line_prefix=%m [%p] %u %a ",
)  # fmt: skip

#: Seconds for what is left at the end.
DRAIN = 120.0


class Options(NamedTuple):
    """
    :ivar minutes: how long producers work.
    :ivar rate: about how many jobs and events are put in a second.
    :ivar retain: seconds for which jobs and events are kept.
    :ivar every: seconds between two samples.
    :ivar step: see `samples.grown`.
    :ivar seeded: what is to go wrong, for the tests.
    """

    minutes: float
    seed: int
    rate: float
    retain: float
    every: float
    step: float
    binaries: Path
    seeded: str = ""


def run(options: Options, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Return figures; ``wrong`` is empty if all held."""
    with Server(binaries=options.binaries, settings=SETTINGS) as server:
        roles.begin(server.execute)
        dsn = roles.dsn_of(server.dsn, "postgres")
        dsns = {role: roles.dsn_of(server.dsn, role) for role in roles.ROLES}
        cast = Cast(folder, dsns, options.rate, options.seed, options.seeded)
        visitors = Visitors()
        seen: list[samples.Sample] = []
        try:
            cast.migrate()
            roles.set_up(server.dsn, options.retain)
            cast.start()
            _look_on(visitors, cast, dsn, dsns, options)
            seconds = _soak(options, cast, dsn, seen, folder / "samples.jsonl", say)
            cast.stop("producer")
            left = _drain(dsns["owner"])
            say(f"drained, {left} left")
            visitors.stop()
            cast.stop()
        finally:
            visitors.stop()
            cast.close()
        growth, grown = samples.grown(seen, options.step)
        shutil.copy(server.primary.log, folder / "server.log")
        errors, others = logs.of_server(server.primary.log)
        wrong = audit.audit(dsn, options.retain)
        ((version,),) = roles.execute(dsn, "show server_version")
        figures = {
            "postgresql": version, "seed": options.seed, "seconds": round(seconds, 1), **audit.counted(dsn),
            "visits": dict(visitors.done), "slowest visits": visitors.slowest, "findings": dict(visitors.findings),
            "server's log, expected": dict(others), "samples": len(seen), "growth": growth,
            "sessions": [each.sessions for each in seen[:: max(1, len(seen) // 10)]],
            "dead rows": max((sum(each.dead_rows.values()) for each in seen), default=0),
        }  # fmt: skip
    wrong |= {
        "grown": grown, "server's log": errors, "processes": cast.wrong, "visitors": visitors.wrong,
        "told": logs.of_processes(folder),
        "serious": [each for each in visitors.findings if each.startswith("error")],
    }  # fmt: skip
    return {**figures, "wrong": {kind: texts for kind, texts in wrong.items() if texts}}


def _look_on(visitors: Visitors, cast: Cast, dsn: str, dsns: dict[str, str], options: Options) -> None:
    """Have the visitors begin, as soon as there is somebody who answers."""
    end = time.monotonic() + 60
    while True:
        try:
            fetch(cast.page, "/")
            scrape(cast.exporter, cast.health)
            break
        except (OSError, RuntimeError):
            if time.monotonic() > end:
                raise
            time.sleep(0.2)
    short = options.minutes < 5
    visitors.begin("pages", 3, lambda: fetch(cast.page, *PAGES))
    visitors.begin("metrics", 5, lambda: scrape(cast.exporter, cast.health))
    visitors.begin("pg_dump", 10 if short else 180, lambda: dump(options.binaries, dsn))
    visitors.begin("doctor", 10 if short else 60, lambda: visitors.examine(dsns["worker"]))


def _soak(
    options: Options, cast: Cast, dsn: str, seen: list[samples.Sample], path: Path, say: Callable[[str], None]
) -> float:
    """Return for how long it was."""
    began = time.monotonic()
    with path.open("w") as file:
        while (passed := time.monotonic() - began) < options.minutes * 60:
            cast.look()
            sample = samples.take(dsn, {name: process.pid for name, process in cast.processes.items()}, path.parent)
            seen.append(sample)
            file.write(json.dumps(sample._asdict()) + "\n")
            file.flush()
            size = sum(size for name, size in sample.relations.items() if not name.startswith(samples.OURS))
            memory = sum(sample.memory.values())
            say(
                f"{passed / 60:.1f} min: {memory / samples.MB:.0f} MB, {size / samples.MB:.1f} MB of tables, "
                f"{sample.sessions} sessions {cast.wrong or ''}"
            )
            time.sleep(max(0.0, min(options.every, options.minutes * 60 - passed)))
    return time.monotonic() - began


def _drain(dsn: str) -> int:
    """Stop the schedules, and wait until all is done; return how many jobs and events are left."""
    with PQ(dsn) as pq:
        for name in pq.schedules:
            pq.schedules[name].pause()
        stream = pq.streams["events"]
        names = [each.name for each in stream.subscriptions()]
        end = time.monotonic() + DRAIN
        while True:
            events = sum(stream.subscription(name).lag(exact=True).events for name in names)
            jobs = len(roles.execute(dsn, audit.LEFT))
            if not jobs + events or time.monotonic() > end:
                return jobs + events
            time.sleep(0.2)
