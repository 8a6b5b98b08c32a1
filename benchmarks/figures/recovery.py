"""Processes that end, and how soon others have their jobs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Any

import psycopg2

from ..child import Failed
from ..run import Bench, Cell, say

#: Seconds: the default lease, and between two of its extensions.
LEASE = 30
BEAT = LEASE / 3

#: Running jobs of one worker.
HELD = 1_000

#: Jobs of a worker that is stopped while it is at its pace.
FAST = 200_000

ATTEMPTS = "select count(*) from queue where attempts >= %s"
UNLOCKED = "select count(*) from (select from queue where dequeued_at is null for update skip locked) as free"
RUNNING = "select count(*) from queue where dequeued_at is not null and due_at is not null"
DONE = "select count(*) from queue where dequeued_at is not null"


def recovery(bench: Bench) -> Iterator[Cell]:
    for peer in bench.able("hold", "pq"):
        heart = bench.site(peer, "heartbeat", counted=True)
        heart.prepare([("hanging", HELD)])
        heart.child.tell("hold", threads=HELD)
        until(heart.dsn, RUNNING, (), HELD)
        time.sleep(1)  # for what belongs to the start
        begun, mark = time.monotonic(), heart.mark()
        found = {
            "kill -9 of a worker": killed(bench, peer),
            "kill -9 in a transaction": killed_in_transaction(bench, peer),
            "SIGTERM to a worker": terminated(bench, peer),
        }
        beats = max(1, round((time.monotonic() - begun) / BEAT))
        time.sleep(max(0.0, begun + beats * BEAT - time.monotonic()))
        for case, seconds in found.items():
            yield Cell(f"{case}, s", peer, partial(float, seconds))
        # besides the looks at schedules, which an idle worker sends, too
        count = sum(not text.startswith("select") for text in heart.statements(mark)) / beats
        yield Cell("statements per heartbeat, 1,000 running jobs", peer, partial(float, count))


def killed(bench: Bench, peer: str) -> float:
    """Seconds until a job runs again elsewhere: the longest, since it matters where in a heartbeat it ends."""
    site, count = bench.site(peer, "killed"), bench.sizes.kills
    site.prepare([("hanging", count)])
    victims = [site.start() for _ in range(count)]
    for number, victim in enumerate(victims, 1):
        victim.tell("hold", threads=1)
        until(site.dsn, ATTEMPTS, (1,), number)
    site.child.tell("hold", threads=count)
    say(f"recovery: waiting for leases of {LEASE} s to expire")
    ends = []
    for victim in victims:
        time.sleep(BEAT / count)
        victim.close()
        ends.append(time.monotonic())
    return max(until(site.dsn, ATTEMPTS, (2,), number) - end for number, end in enumerate(ends, 1))


def killed_in_transaction(bench: Bench, peer: str) -> float:
    """Seconds until others can take the job."""
    site = bench.site(peer, "transaction")
    site.prepare([("ready", 1)])
    site.child.tell("hold_in_transaction")
    until(site.dsn, UNLOCKED, (), 0)
    site.child.close()
    end = time.monotonic()
    return until(site.dsn, UNLOCKED, (), 1) - end


def terminated(bench: Bench, peer: str) -> float:
    """Seconds until a worker at its pace has given back all that it had taken."""
    site = bench.site(peer, "terminated")
    site.prepare([("fill", FAST)])
    site.child.tell("work")
    until(site.dsn, DONE, (), FAST // 100, reached=int.__ge__)
    end = time.monotonic()
    site.child.close(gently=True)
    return until(site.dsn, RUNNING, (), 0) - end


def until(dsn: str, sql: str, params: Any, count: int, reached: Callable[[int, int], bool] = int.__eq__) -> float:
    """When the statement gives this number."""
    deadline = time.monotonic() + 2 * LEASE
    with closing(psycopg2.connect(dsn)) as conn, conn.cursor() as cursor:
        conn.autocommit = True
        while time.monotonic() < deadline:
            cursor.execute(sql, params)
            ((found,),) = cursor.fetchall()
            if reached(found, count):
                return time.monotonic()
            time.sleep(0.005)
    raise Failed(f"{found} instead of {count}: {sql}")
