"""How large processes, tables and indexes are, again and again; and whether any of them grows."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from .roles import execute

MB = 1 << 20
HOUR = 3600.0

#: What belongs to the soak itself, and grows with all that is done.
OURS = ("ledger", "seen", "fired", "promised", "shop_order")

#: Growth in an hour that is none, in MB: of the memory of a process; of a table or an index, beside a tenth of itself.
PROCESS, RELATION = 2.0, 2.0

#: And of the blocks of Python's memory, in thousands: some ten objects a minute.
BLOCKS = 5.0

#: A step as large as this, in MB, is none either: memory comes in pieces, and so does room in tables.
STEP = 1.0

#: Smaller tables and indexes, in MB, are not told of.
TOLD = 0.1

SIZES = """
    select c.relname, pg_relation_size(c.oid) from pg_class as c
    where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'i')
"""
DEAD = "select relname, n_dead_tup from pg_stat_user_tables where schemaname = 'public' and n_dead_tup > 0"
SESSIONS = "select pid from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"


class Sample(NamedTuple):
    """One look. Sizes are bytes; blocks are those of Python's memory, of the processes of `app`."""

    at: float
    memory: dict[str, int]
    blocks: dict[str, int]
    threads: dict[str, int]
    files: dict[str, int]
    relations: dict[str, int]
    dead_rows: dict[str, int]
    sessions: int
    #: of all sessions of the server, without what they share
    server: int


def take(dsn: str, processes: dict[str, int], folder: Path) -> Sample:
    """
    :param dsn: of the server's owner.
    :param folder: where processes tell of their blocks.
    :param processes: ids by names; their children are looked at, too.
    """
    known = dict(_with_children(processes))
    memory = {name: _memory(pid, "VmRSS") for name, pid in known.items()}
    blocks = {name: _blocks(folder / f"{pid}.blocks") for name, pid in known.items()}
    threads = {name: _entries(pid, "task") for name, pid in known.items()}
    files = {name: _entries(pid, "fd") for name, pid in known.items()}
    sessions = [pid for (pid,) in execute(dsn, SESSIONS)]
    server = sum(_memory(pid, "RssAnon") for pid in sessions)
    relations, dead = dict(execute(dsn, SIZES)), dict(execute(dsn, DEAD))
    return Sample(time.time(), memory, blocks, threads, files, relations, dead, len(sessions), server)


def _with_children(processes: dict[str, int]) -> Iterator[tuple[str, int]]:
    for name, pid in processes.items():
        yield name, pid
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except OSError:  # it has ended
            continue
        yield from _with_children({f"{name}.{number}": int(child) for number, child in enumerate(children)})


def _memory(pid: int, what: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{what}:"))


def _entries(pid: int, what: str) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/{what}"))
    except OSError:
        return 0


def _blocks(path: Path) -> int:
    try:
        return int(path.read_text() or 0)
    except OSError:  # it is Django, or has not begun
        return 0


class Growth(NamedTuple):
    """What became of a size in the last two thirds of the time.

    :ivar usual: the median.
    :ivar hourly: the growth in an hour: the median of the slopes between any two looks.
    :ivar whole: the growth in the time that was looked at, at this slope.
    """

    usual: float
    hourly: float
    whole: float


def growth(samples: list[Sample], of: Callable[[Sample], float | None]) -> Growth | None:
    """Return how something grew after it had become warm; None if it was seen too seldom."""
    late = [each for each in samples if each.at >= samples[0].at + (samples[-1].at - samples[0].at) / 3]
    points = [(each.at, size) for each in late if (size := of(each))]
    if len(points) < 4:
        return None
    slope = median((b - a) / (t - s) for (s, a), (t, b) in combinations(points, 2))
    return Growth(median(size for _, size in points), slope * HOUR, slope * (points[-1][0] - points[0][0]))


def grown(samples: list[Sample], step: float = STEP) -> tuple[dict[str, Any], list[str]]:
    """Return the growths of all that was looked at, in MB or numbers, and what is not flat.

    :param step: what is no growth, in MB: for a time in which nothing can become warm.
    """
    told: dict[str, Any] = {}
    wrong = []
    fields = {"memory": PROCESS, "blocks": BLOCKS, "relations": RELATION, "threads": None, "files": None}
    for field, limit in fields.items():
        names = sorted({name for sample in samples for name in getattr(sample, field)})
        unit = 1000 if field == "blocks" else MB if limit else 1
        for name in names:
            found = growth(samples, lambda sample, field=field, name=name: getattr(sample, field).get(name))
            if found is None:
                continue
            usual, hourly, whole = (round(each / unit, 3) for each in found)
            if field == "relations" and usual < TOLD:
                continue
            told.setdefault(field, {})[name] = {"usual": usual, "an hour": hourly}
            if limit is None:
                is_flat = whole < max(3, step)
            else:
                spare = usual / 10 if field == "relations" else 0.0
                is_flat = hourly < limit + spare or whole < step
            if not is_flat and not name.startswith(OURS):
                wrong.append(f"{field} of {name}: {usual} and {hourly:+} an hour")
    server = growth(samples, lambda sample: sample.server)
    if server is not None:
        told["server"] = {"usual": round(server.usual / MB, 3), "an hour": round(server.hourly / MB, 3)}
        if server.hourly > 10 * PROCESS * MB and server.whole > 10 * step * MB:
            wrong.append(f"memory of the server's sessions: {told['server']}")
    return told, wrong
