"""The grants of docs/howto/operations.rst, each with all else revoked: who puts, takes, deletes and sets what."""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg2.extensions import make_dsn
from support import Background, execute, wait_until
from support.driver import driver

from pq import PQ, Limit, NewJob, Schedule, Unique
from pq._table import migrations
from pq.sql import BESIDE, TableName, beside

PAGE = Path(__file__).parents[2].joinpath("docs", "howto", "operations.rst").read_text("utf-8")


def documented(name: str) -> str:
    """The statements that the page has for a role."""
    blocks = re.findall(r"^\.\. code-block:: sql\n\n((?:   .*\n|\n)+)", PAGE, re.MULTILINE)
    (found,) = [block for block in blocks if re.search(rf"\bto {name}\b", block)]
    return found


@pytest.fixture
def role(empty_dsn: str) -> Iterator[Callable[[str], PQ]]:
    """A PQ as a role that has the grants which the page has for that name, and no others."""
    with PQ(empty_dsn, schema="jobs") as pq:
        pq.create()
    roles, opened = [], []

    def open_one(name: str, also: str = "") -> PQ:
        roles.append(made := f"pq_{name}_{uuid.uuid4().hex[:8]}")
        execute(empty_dsn, f"create role {made} login")
        execute(empty_dsn, re.sub(rf"\bto {name}\b", f"to {made}", documented(name) + also))
        opened.append(PQ(make_dsn(empty_dsn, user=made), schema="jobs"))
        return opened[-1]

    yield open_one
    for pq in opened:
        pq.close()
    for made in roles:
        execute(empty_dsn, f"drop owned by {made}; drop role {made}")


@pytest.fixture
def owner(empty_dsn: str, role: object) -> Iterator[PQ]:
    with PQ(empty_dsn, schema="jobs") as pq:
        yield pq


def held(pq: PQ) -> int:
    return pq["a"].counts()["held"]


def test_a_producer_puts_jobs_with_keys_and_tokens(role: Callable[..., PQ], owner: PQ) -> None:
    queue = role("producer")["a"]
    for _ in range(2):
        queue.put(1, key="k")
    queue.put_many([NewJob(2, key="k"), NewJob(3, key="other")])
    with queue:
        queue.put(4, key="k", schedule_at="1h")
    assert held(owner) == 2
    first, second = (queue.put(5, unique="t") for _ in range(2))
    assert (first, first.created, second.created) == (second, True, False)
    assert len(queue) == 3
    for refused in (lambda: queue.get(block=False), lambda: queue.clear()):
        with pytest.raises(driver.errors.InsufficientPrivilege):
            refused()


def test_a_planner_puts_jobs_that_follow_others_and_changes_the_one_with_a_token(
    role: Callable[..., PQ], owner: PQ
) -> None:
    queue = role("planner")["a"]
    done, cancelled = queue.put_many([1, 2])
    owner["a"].cancel(cancelled)
    for after in ([done], [cancelled]):
        queue.put("last", after=after)
    with queue.group(then=(queue, "after all")) as group:
        group.put("part")
    for change in ("replace", "merge"):
        for n in range(2):
            queue.put({"n": n}, unique=Unique(change, on_duplicate=change))
    assert [job.data for job in owner["a"].list() if isinstance(job.data, dict)] == [{"n": 1}] * 2
    assert held(owner) >= 2  # the follower of the one that was cancelled may have been, too


def test_a_consumer_takes_them_in_order(role: Callable[..., PQ], owner: PQ, empty_dsn: str) -> None:
    for n in range(6):
        owner["a"].put(n, key="k")
    queue = role("consumer")["a"]
    found = [queue.get(block=False)]
    with queue:
        found.append(queue.get(block=False))
    for _ in range(2):
        found.append(queue.get(lease="1m", block=False))
        assert queue.get(block=False) is None
        found[-1].done()  # type: ignore[union-attr]
    job: Any = queue.get(lease="1m", block=False)
    job.fail("no good")
    found += [job, queue.get(block=False)]
    assert [job and job.data for job in found] == [0, 1, 2, 3, 4, 5]
    waiting = Background(queue.get, timeout=30)
    gates = "select 1 from pg_locks where granted and locktype = 'advisory' and mode = 'ShareLock'"
    wait_until(lambda: execute(empty_dsn, gates), "the waiter's gate")
    owner["a"].put(6, key="k")
    assert waiting.result().data == 6


def test_who_deletes_needs_no_more_for_jobs_with_keys(role: Callable[..., PQ], owner: PQ, empty_dsn: str) -> None:
    for n in range(3):
        owner["a"].put(n, key="k")
    cleaner = role("cleaner")
    ((first,),) = execute(empty_dsn, "select min(id) from jobs.queue")
    cleaner._db.execute(f"delete from jobs.queue where id = {first}")
    job = owner["a"].get(timeout=5)
    assert job is not None
    assert job.data == 1
    cleaner["a"].clear()
    assert execute(empty_dsn, "select count(*) from jobs.queue") == [(0,)]


def test_limits_are_for_those_who_may_set_them(role: Callable[..., PQ], owner: PQ) -> None:
    consumer = role("consumer")
    with pytest.raises(driver.errors.InsufficientPrivilege):
        consumer.limits["a"] = Limit(running=1)
    operator = role("operator")
    operator.limits["a"] = Limit(running=1)
    operator.limits["b"] = Limit(per_key=2)
    owner["a"].put_many([1, 2])
    first: Any = consumer["a"].get(lease="1m", block=False)
    assert first.data == 1
    assert consumer["a"].get(block=False) is None
    first.done()
    assert consumer["a"].get(block=False) is not None
    del operator.limits["a"], operator.limits["b"]
    assert list(operator.limits) == []


def test_who_fires_schedules_needs_not_more_than_a_producer_but_for_these(
    role: Callable[..., PQ], owner: PQ, empty_dsn: str
) -> None:
    scheduler = role("scheduler")
    scheduler.schedules["x"] = Schedule("a", 1, every="1h", key="k")
    scheduler.schedules["y"] = Schedule("a", 2, every="1h", unique="t")
    scheduler.schedules["z"] = Schedule("a", 3, every="1h", unique="z")
    owner["a"].put(0, unique=Unique("z", window="1h"))
    execute(empty_dsn, "update jobs.queue set unique_until = now() where unique_key = 'z'")
    execute(empty_dsn, "update jobs.queue_schedules set next_at = now() - interval '1 s'")
    stop = threading.Event()
    running = Background(scheduler.schedules.run, stop)
    wait_until(lambda: all(owner.schedules[name].last_job for name in "xy") and owner.schedules["z"].error, "the looks")
    stop.set()
    running.result()
    assert "permission denied for table queue" in str(owner.schedules["z"].error)  # to take its token from a job
    assert scheduler.schedules["x"].fire() is not None
    scheduler.schedules["x"].pause()
    with pytest.raises(driver.errors.InsufficientPrivilege):
        del scheduler.schedules["x"]
    del role("operator").schedules["x"]
    assert list(scheduler.schedules) == ["y", "z"]


@pytest.mark.parametrize("right", ["select", "insert", "update", "delete"])
@pytest.mark.parametrize("version", [5, 6])
def test_an_upgrade_gives_the_tables_beside_the_rights_of_the_jobs(empty_dsn: str, version: int, right: str) -> None:
    """And their owner, also if another role makes them: a superuser."""
    owner, other = f"pq_owner_{uuid.uuid4().hex[:8]}", f"pq_other_{uuid.uuid4().hex[:8]}"
    table = TableName("queue", "jobs")
    execute(empty_dsn, f"create role {owner} login; create role {other}; create schema jobs authorization {owner}")
    try:
        execute(
            make_dsn(empty_dsn, user=owner),
            ";".join(migrations.for_table(step.sql, table) for step in migrations.steps()[:version]),
        )
        execute(empty_dsn, f"comment on column jobs.queue.due_at is null; grant {right} on jobs.queue to {other}")
        with PQ(empty_dsn, schema="jobs") as pq:
            pq.create()
        look = "select relowner::regrole::text, has_table_privilege(%s, oid, %s) from pg_class where oid = %s::regclass"
        for word in BESIDE:
            assert execute(empty_dsn, look, (other, right, beside(table.quoted, word))) == [(owner, True)]
        functions = "select distinct proowner::regrole::text from pg_proc where pronamespace = 'jobs'::regnamespace"
        assert execute(empty_dsn, f"{functions} and prosecdef") == [(owner,)]
    finally:
        execute(empty_dsn, f"drop owned by {owner}, {other} cascade; drop role {owner}, {other}")


def test_functions_that_run_as_the_owner_take_no_table_of_the_callers(
    role: Callable[..., PQ], owner: PQ, empty_dsn: str
) -> None:
    """A temporary table comes first in each search path that does not say otherwise."""
    defined = execute(
        empty_dsn,
        "select proname::text, array_to_string(proconfig, ';') from pg_proc"
        " where pronamespace = 'jobs'::regnamespace and prosecdef",
    )
    assert len(defined) > 5
    for name, settings in defined:
        assert re.search(r"search_path=[^;]*pg_temp(;|$)", settings), name
    execute(empty_dsn, "create role pq_nobody; grant usage on schema jobs to pq_nobody")
    try:
        open_to_all = execute(
            empty_dsn,
            "select proname::text from pg_proc where pronamespace = 'jobs'::regnamespace and prosecdef"
            " and has_function_privilege('pq_nobody', oid, 'execute') order by 1",
        )
        assert open_to_all == [("queue_free_function",), ("queue_heal_all_function",), ("queue_heal_function",)]
    finally:
        execute(empty_dsn, "drop owned by pq_nobody; drop role pq_nobody")


def test_the_doctor_names_the_rights_on_the_tables_beside(role: Callable[..., PQ]) -> None:
    missing = [finding for finding in role("producer").doctor() if finding.name == "rights"]
    assert len(missing) == 1
