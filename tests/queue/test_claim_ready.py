"""The shorter statements that take jobs of a queue where none is due: they take what the long ones take."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import closing, nullcontext
from typing import Any

import pytest
from support.driver import driver
from support.plan import nodes

from pq import PQ, Limit, Queue, Unique
from pq._db import prepared as plans
from pq._db.prepared import _prepared
from pq._queue import claim as _claim

ALWAYS, NEVER = -(10**9), 10**9

Sql = Callable[..., list[tuple[Any, ...]]]


def is_short(sql: str) -> bool:
    return "pq_best" not in sql and "skip locked" in sql


def seen(pq: PQ, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each claim was by a short statement; filled as claims are made."""
    found: list[bool] = []
    execute = pq._db.execute

    def noting(sql: str, *args: Any, **options: Any) -> Any:
        if "skip locked" in sql:
            found.append(is_short(sql))
        return execute(sql, *args, **options)

    monkeypatch.setattr(pq._db, "execute", noting)
    return found


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("block", [False, True], ids=["alone", "in a transaction"])
def test_it_is_used_while_one_job_follows_another(
    pq: PQ, monkeypatch: pytest.MonkeyPatch, n: int, block: bool
) -> None:
    queue, short = pq["a"], seen(pq, monkeypatch)
    queue.put_many(range(100))

    def take() -> int:
        with queue if block else nullcontext():
            return len(queue.get_many(n, timeout=0))

    for _ in range(5):
        assert take() == n
    assert short == [False] * _claim.HITS + [True] * (5 - _claim.HITS)
    queue.clear()
    short.clear()
    assert take() == 0
    assert short[:2] == [True, False]
    for _ in range(_claim.MISS_PAUSE + _claim.HITS):
        queue.put_many(range(n))
        short.clear()
        assert take() == n
        assert short == [False]
    queue.put_many(range(n))
    short.clear()
    assert take() == n
    assert short == [True]


def test_a_consumer_that_waits_for_each_job_does_without(pq: PQ, monkeypatch: pytest.MonkeyPatch) -> None:
    queue, short = pq["a"], seen(pq, monkeypatch)
    for _ in range(5):
        queue.put(1)
        assert queue.get(timeout=0)
        assert queue.get(timeout=0) is None
    assert not any(short)


# -- what it takes


def fill(queue: Queue, sql: Sql, chance: random.Random, lines: bool) -> None:
    """Jobs in each state, and rows that must not be taken or not be deleted; equal for equal seeds.

    :param lines: with keys and followers. The end of one job makes the next one ready, so it matters how many
        statements take some jobs.
    """
    table = queue._table.quoted
    keys = chance.choice([[None], [None, "k"], [None, "k", "l", "m"]]) if lines else [None]
    unique = chance.choice([0.0, 0.2])
    for number in range(chance.choice([0, 1, 4, 12])):
        options: dict[str, Any] = {"key": chance.choice(keys)}
        if chance.random() < 0.3:
            options["expected_at"] = f"{chance.randrange(1, 5)}h"
        if chance.random() < unique:
            options["unique"] = Unique(f"token {number}", window="1h")
        queue.put(number, **options)
    if lines and chance.random() < 0.3:
        queue.put("follower", after=queue.put("followed"))
    if chance.random() < 0.3:
        queue.put("later", schedule_at="1h")
    if chance.random() < 0.3:
        queue.put("due", schedule_at="0s")
    if chance.random() < 0.3:
        sql(
            f"update {table} set dequeued_at = now(), due_at = now() + interval '1h', attempts = 1"
            " where data::text = '1'"
        )
    if chance.random() < 0.1:
        queue.pause()


@pytest.mark.parametrize("retain", ["7d", 0])
@pytest.mark.parametrize("how", ["alone", "in a transaction", "leased"])
@pytest.mark.parametrize("n", [1, 3])
def test_it_takes_what_the_long_one_takes(
    dsn: str, sql: Sql, connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, how: str, n: int, retain: Any
) -> None:
    outcomes: dict[int, list[Any]] = {ALWAYS: [], NEVER: []}
    for hits, found in outcomes.items():
        monkeypatch.setattr(_claim, "HITS", hits)
        with PQ(dsn, table="other") as pq, closing(connect()) as conn, conn.cursor() as other:
            pq.create(retain=retain)
            queue, table = pq["a"], pq._table.quoted
            for seed in range(20):
                chance = random.Random(seed)
                queue.clear()
                queue.resume()
                fill(queue, sql, chance, n == 1)
                ids = [id for (id,) in sql(f"select id from {table} order by id")]
                locked = chance.sample(ids, chance.choice([0, 0, min(2, len(ids))]))
                other.execute(f"select from {table} where id = any (%s::bigint[]) for update", (locked,))
                for _ in range(3):
                    with queue if how == "in a transaction" else nullcontext():
                        jobs = queue.get_many(n, timeout=0, lease="1h" if how == "leased" else None)
                    found.append((seed, [job.data for job in jobs]))
                conn.rollback()
                found += sql(
                    f"select data::text, dequeued_at is null, due_at is null, attempts, key, unique_key from {table}"
                    " order by id"
                )
            pq.drop(force=True)
    assert outcomes[ALWAYS] == outcomes[NEVER]


def test_a_limit_and_a_pause_are_seen_at_once(pq: PQ, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_claim, "HITS", ALWAYS)
    queue = pq["a"]
    queue.put_many(range(5))
    assert queue.get(timeout=0)
    queue.pause()
    assert queue.get(timeout=0) is None
    queue.resume()
    assert queue.get(timeout=0)
    pq.limits["a"] = Limit(running=1)
    assert queue.get(timeout=0, lease="1h")
    assert queue.get(timeout=0, lease="1h") is None


def test_in_a_transaction_it_locks_what_it_takes_and_no_more(
    pq: PQ, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_claim, "HITS", ALWAYS)
    queue = pq["a"]
    queue.put_many([1, 2, 3], expected_at="1h")
    queue.put_many([4, 5, 6])
    for n in (1, 2):
        with queue:
            taken = [job.id for job in queue.get_many(n, timeout=0)]
            free = [id for (id,) in sql("select id from queue where dequeued_at is null for update skip locked")]
            (everything,) = zip(*sql("select id from queue where dequeued_at is null"), strict=True)
            assert sorted(taken + free) == list(everything)


# -- its plan


def test_a_small_table_is_not_read_as_a_whole(dsn: str, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be large before the plan is renewed. Nothing is known of this one, nor would it be worth an index."""
    monkeypatch.setattr(_claim, "HITS", ALWAYS)
    conn = driver.connect(dsn)
    conn.autocommit = True
    with PQ(conn) as pq:
        sql("alter table queue set (autovacuum_enabled = off)")
        pq["a"].put_many(range(1000))
        for n in (1, 3):
            for _ in range(3):
                assert len(pq["a"].get_many(n)) == n
        with conn.cursor() as cursor:
            cursor.execute(
                "select name, cardinality(parameter_types) from pg_prepared_statements where statement ~ 'skip locked'"
            )
            statements = cursor.fetchall()
            assert len(statements) == 2
            cursor.execute("set plan_cache_mode = force_generic_plan")
            for name, count in statements:
                cursor.execute(f"explain (format json) execute {name}({', '.join(['null'] * count)})")
                for node in nodes(cursor.fetchone()[0][0]["Plan"]):
                    assert node["Node Type"] != "Seq Scan", node
            cursor.execute("show enable_seqscan")
            assert cursor.fetchone() == ("on",)


def test_the_settings_of_the_plan_do_not_reach_the_triggers_of_the_application(
    dsn: str, sql: Sql, connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_claim, "HITS", ALWAYS)
    sql(
        """
        create table told (seqscan text, jit text);
        create function tell() returns trigger language plpgsql as $$
        begin
          insert into told values (current_setting('enable_seqscan'), current_setting('jit'));
          return new;
        end
        $$;
        create trigger tell before update on queue for each row execute function tell();
        """
    )
    conn = connect()
    conn.autocommit = True
    usual = ("on", sql("show jit")[0][0])
    with PQ(conn) as pq:
        pq["a"].put_many(range(10))
        for _ in range(10):
            assert pq["a"].get(timeout=0)
    assert len(sql("select from told")) == 10
    assert sql("select distinct seqscan, jit from told") == [usual]


def test_explain_has_no_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    """The arrays of a thousand settlements are not sent twice."""
    made = plans.Prepared()
    _, text = [made.text("update t set a = %(a)s where b = %(b)s and c = %(a)s") for _ in range(2)]
    name = _prepared("update t set a = %(a)s where b = %(b)s and c = %(a)s")[0]
    assert f"explain execute {name}(null, null);" in text
    assert text.count("%(a)s") == 1
    _, text = [made.text("insert into t values (%(a)s)") for _ in range(2)]
    assert "execute" in text
    assert "explain" not in text
