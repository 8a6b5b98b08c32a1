"""A run from beginning to end."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from pq import PQ

from . import audit, streams
from .cast import CONSUMERS, FULL, KEYED, KEYED_SMALL, OLD, PRODUCERS, SMALL, STREAMS, STREAMS_SMALL, Cast
from .checker import Report, Row, check
from .history import read
from .keys import check_keys
from .nemesis import Nemesis
from .proxy import Proxy
from .schedule import Schedule
from .server import Server

SETUP = """
    create table effects (key text not null, who text not null);
    create table orders (key text not null);
    create role torture login;
    grant all on all tables in schema public to torture;
    grant all on all sequences in schema public to torture;
"""

OPEN = "due_at is not null or dequeued_at is null"
LIMITED = "'200000-01-02 00:00:00+00'"  # the row that marks a queue as limited
OPEN_OLD = "dequeued_at is null"  # 1.9.1 knows no other state, and nothing of dead jobs

ROWS = """
    select id, coalesce(data->>'key', data->'args'->>0),
        case when {open} then 'open' when to_jsonb(queue)->>'error' is null then 'done' else 'dead' end
    from queue
"""

#: Seconds that processes may take to begin and to end.
PATIENCE = 30.0


def run(
    schedule: Schedule, folder: Path, drain: float, say: Callable[[str], None], old: Path | None = None
) -> tuple[Report, Nemesis]:
    """Torture, heal, drain, and check.

    :param folder: for the histories.
    :param old: the folder of pq 1.9.1, to torture that instead.
    :param drain: seconds that it may take to handle all that is left.
    """
    seed, faults = schedule.seed, schedule.faults
    roles = OLD if old else SMALL if schedule.small else FULL
    if schedule.keyed:
        roles = KEYED_SMALL if schedule.small else KEYED
    if schedule.streams:
        roles = STREAMS_SMALL if schedule.small else STREAMS
    # without faults nothing may be handled twice, however slow the machine is; some of the keyed cast let it expire
    lease = "2s" if faults or schedule.keyed or schedule.streams else "60s"
    standby = any(fault.kind == "promote" for fault in faults)
    with Server(standby) as server, Proxy(*server.address) as proxy:
        if old is None:
            with PQ(server.dsn) as pq:
                pq.create()
        else:
            Cast({}, server.dsn, folder, seed, lease, old).play("create")
        unfinished = OPEN if old is None else OPEN_OLD
        left_over = f"select count(*) from queue where {unfinished}"
        if schedule.streams:
            streams.set_up(server.execute, server.dsn)
        server.execute(SETUP)
        if schedule.keyed:
            audit.set_up(server.execute, server.dsn)
            unfinished = f"({OPEN}) and due_at is distinct from {LIMITED}"
            left_over = f"select count(*) from queue where {unfinished}"
        dsn = f"host=127.0.0.1 port={proxy.port} user=torture dbname=postgres sslmode=disable gssencmode=disable"
        cast = Cast(roles, dsn, folder, seed, lease, old)
        nemesis = Nemesis(server, proxy, cast, schedule.keyed, schedule.streams)
        try:
            cast.start(PATIENCE)
            nemesis.run(faults, schedule.seconds, cast.look)
            nemesis.heal()
            say("healed")
            cast.stop(PRODUCERS, PATIENCE)
            end = time.monotonic() + drain

            def waiting() -> int:
                # first, since it resumes subscriptions, some of which may have set events aside, as jobs
                events = streams.left_over(server.dsn) if schedule.streams else 0
                jobs: int = server.execute(left_over)[0][0]
                return jobs or events

            while (left := waiting()) and time.monotonic() < end:
                cast.look()
                time.sleep(0.1)
            say(f"drained, {left} left")
            cast.stop(CONSUMERS, PATIENCE)
        finally:
            nemesis.heal()
            cast.close()
        audited = audit.read(server.execute, server.dsn) if schedule.keyed else None
        told = streams.read(server.execute) if schedule.streams else None
        rows = [Row(*row) for row in server.execute(ROWS.format(open=unfinished))]
        effects = [key for (key,) in server.execute("select key from effects")]
        orders = [key for (key,) in server.execute("select key from orders")]
    if told is not None:
        (folder / "told.json").write_text(json.dumps(told._replace(aside=sorted(told.aside))))  # type: ignore[arg-type]
        report = streams.check_streams(read(folder), told)
        if left:  # what waits is not lost
            report.wrong["not drained"] = [str(left), *report.wrong.pop("lost", [])]
    elif audited is None:
        report = check(read(folder), rows, effects, orders, faults=bool(faults))
    else:
        (folder / "audit.json").write_text(json.dumps([audited, nemesis.times]))
        report = check_keys(list(read(folder)), audited, nemesis.times)
    if nemesis.failures:
        report.wrong["nemesis"] = nemesis.failures
    if cast.deaths:
        report.wrong["died"] = cast.deaths
    return report, nemesis
