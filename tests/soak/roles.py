"""The roles and tables: each role has the grants that docs/howto/operations.rst and streams.rst name, and no others."""

from __future__ import annotations

from typing import Any

import psycopg2
from psycopg2.extensions import make_dsn

from pq import PQ, Limit

DATABASE = "soak"
ROLES = ("owner", "worker", "producer")

#: Names of schedules, and their intervals in seconds.
SCHEDULES = {"second": 1.0, "third": 3.0, "fifth": 5.0}

#: How many limited jobs run at a time.
RUNNING = 3

LEDGER = """
    create table ledger (
        id bigserial primary key, kind text not null, who text not null, number bigint not null, key text,
        waited float not null, began timestamptz not null, at timestamptz not null default clock_timestamp()
    );
    create table seen (
        id bigserial primary key, subscription text not null, kind text not null, who text not null,
        number bigint not null, key text
    );
    create table fired (name text not null, due timestamptz);
    create table promised (kind text not null, who text not null, numbers bigint not null);
    grant insert on ledger, seen, fired to worker;
    grant usage on sequence ledger_id_seq, seen_id_seq to worker;
    grant insert on promised to producer;
"""

#: A producer, a consumer, who deletes, who fires schedules; who sets limits is the owner.
QUEUE = """
    grant select, insert, update on queue to producer;
    grant insert on queue_checks to producer;
    grant usage on sequence queue_id_seq to producer;
    grant select, insert, update, delete on queue to worker;
    grant usage on sequence queue_id_seq to worker;
    grant select, update on queue_slots to worker;
    grant select, insert, update on queue_states to worker;
    grant select, insert, update on queue_schedules to worker;
"""

#: The worker subscribes: it has functions of `Stream.on`.
STREAM = """
    grant insert on queue_stream_events to producer;
    grant select (id) on queue_stream_events to producer;
    grant usage on sequence queue_event_events to producer;
    grant select on queue_stream_events, queue_origin_events, queue_subscriptions_events to worker;
    grant insert, update, delete on queue_subscriptions_events, queue_positions_events to worker;
    grant select, update on queue_positions_events to worker;
    grant select, insert, update, delete on queue_batches_events to worker;
    grant select, truncate on queue_slot0_events, queue_slot1_events, queue_slot2_events to worker;
"""

SITE = """
    grant select, insert on shop_order to producer;
    grant usage on sequence shop_order_id_seq to producer;
    grant select, update on shop_order to worker;
"""


def dsn_of(dsn: str, role: str) -> str:
    return make_dsn(dsn, dbname=DATABASE, user=role)


def begin(superuser: Any) -> None:
    """
    :param superuser: executes a statement in the database of the server's owner.
    """
    for role in ROLES:
        superuser(f"create role {role} login")
    superuser(f"create database {DATABASE} owner owner")


def set_up(dsn: str, retain: float) -> None:
    """Everything else; Django has made its own tables, and the queue.

    :param dsn: of the server's owner.
    :param retain: seconds for which jobs and events are kept.
    """
    with PQ(dsn_of(dsn, "owner")) as pq:
        pq.create(retain=f"{retain:.0f}s", retain_dead=f"{retain:.0f}s")
        stream = pq.streams["events"]
        stream.create(retain=f"{retain:.0f}s")
        stream.subscribe("block")
        stream.subscribe("parted", partitions=4)
        pq.limits["limited"] = Limit(running=RUNNING, rate="60/s")
    execute(dsn_of(dsn, "owner"), LEDGER + QUEUE + STREAM + SITE)
    execute(dsn_of(dsn, "postgres"), "create publication everything for all tables")


def execute(dsn: str, sql: str, params: Any = None) -> list[tuple[Any, ...]]:
    """Execute one statement, or several."""
    conn = psycopg2.connect(dsn)
    conn.autocommit = True
    try:
        with conn.cursor() as cursor:
            cursor.execute(sql, params)
            return cursor.fetchall() if cursor.description is not None else []
    finally:
        conn.close()
