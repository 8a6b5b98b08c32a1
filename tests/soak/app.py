"""The application: ``python -m pq work tests.soak.app:pq``. The environment says where the database is."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from pq.contrib.prometheus import Metrics
from pq.tasks import PQ, current

from .roles import SCHEDULES

#: How much is to go wrong, for the tests of the soak: ``ledger`` loses an effect now and then, ``memory`` keeps some.
SEEDED = os.environ.get("SOAK_SEEDED", "").split(",")

EFFECT = "insert into ledger (kind, who, number, key, waited, began) values (%s, %s, %s, %s, %s, to_timestamp(%s))"
SEEN = "insert into seen (subscription, kind, who, number, key) values (%s, %s, %s, %s, %s)"

pq = PQ(os.environ["SOAK_DSN"], timeout=1, max_connections=8)
pq.instrument(Metrics())
stream = pq.streams["events"]

_kept: list[bytes] = []


def _tell_blocks() -> None:
    """Tell how many blocks of memory Python has: where they grow, something is kept; else it is malloc's business."""
    path = Path(os.environ["SOAK_FOLDER"], f"{os.getpid()}.blocks")
    while True:
        path.write_text(str(sys.getallocatedblocks()))
        time.sleep(5)


threading.Thread(target=_tell_blocks, daemon=True).start()


class Planned(Exception):
    """A failure that belongs to the soak."""


def effect(cursor: Any, work: dict[str, Any], began: float | None = None) -> None:
    """Write once what was done, in the transaction in which the job ends."""
    if "ledger" in SEEDED and work["number"] % 10 == 9:
        return
    if "memory" in SEEDED:
        _kept.append(b"x" * 1_000_000)
    now = time.time()
    args = (work["kind"], work["who"], work["number"], work.get("key"), now - work["due"], began or now)
    cursor.execute(EFFECT, args)


def see(cursor: Any, subscription: str, events: Any) -> None:
    """The same for events."""
    cursor.executemany(SEEN, [(subscription, e.type, e.data["who"], e.data["number"], e.key) for e in events])


@pq["tasks"].task(name="record", transactional=True)
def record(job_id: int, work: dict[str, Any]) -> None:
    """What most jobs do."""
    effect(current().cursor, work)


@pq["keyed"].task(name="keyed", transactional=True, max_retries=3, retry_in="200ms")
def keyed(job_id: int, work: dict[str, Any]) -> None:
    """One at a time for each key, in order; some are tried again."""
    effect(current().cursor, work)
    if work["number"] % 100 == 7 and current().attempts == 1:
        raise Planned


@pq["unique"].task(name="unique", transactional=True)
def unique(job_id: int, work: dict[str, Any]) -> None:
    """No second one waits."""
    effect(current().cursor, work)


@pq["limited"].task(name="limited", transactional=True)
def limited(job_id: int, work: dict[str, Any]) -> None:
    """Some at a time."""
    began = time.time()
    time.sleep(0.02)
    effect(current().cursor, work, began)


@pq["asked"].task(name="asked", result=True, lease="60s")
def asked(job_id: int, work: dict[str, Any]) -> int:
    """Somebody waits for the result; the effect has a transaction of its own."""
    with pq["asked"] as cursor:
        effect(cursor, work)
    number: int = work["number"]
    return number


@pq["poison"].task(name="poison", max_retries=1, retry_in="100ms", lease="60s")
def poison(job_id: int, work: dict[str, Any]) -> None:
    """Dead at last."""
    if current().attempts == 2:
        with pq["poison"] as cursor:
            effect(cursor, work)
    raise Planned


def _fire(name: str) -> None:
    due = current().schedule_at
    current().cursor.execute("insert into fired (name, due) values (%s, %s)", (name, due))


for _name, _every in SCHEDULES.items():

    def _scheduled(job_id: int, name: str = _name) -> None:
        _fire(name)

    pq["clock"].task(name=_name, every=_every, missed="all", transactional=True)(_scheduled)


@stream.on("performed", subscription="worker", start="beginning", transactional=True)
def perform(event: Any) -> None:
    """Events of one type, as jobs."""
    see(current().cursor, "worker", [event])
