"""What runs, who runs it, and what has ended lately."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
from support import HOLDER, take

from pq import PQ
from pq._looks.history import shares

Sql = Callable[..., list[tuple[Any, ...]]]


def test_the_jobs_that_run_are_listed_the_longest_first(pq: PQ, sql: Sql) -> None:
    for name, data in [("b", {"function": "garden.eat", "args": [], "kwargs": {}}), ("a", 1), ("b", 2)]:
        pq[name].put(data)
    pq["a"].put(3, "1d")
    jobs = [take(pq[name]) for name in ("b", "a", "b")]
    jobs[0].progress({"done": 5})
    found = pq.running()
    assert [job.id for job in found] == [job.id for job in jobs]
    first = found[0]
    assert (first.queue, first.task, first.worker, first.attempts) == ("b", "garden.eat", HOLDER, 1)
    assert first.progress == {"done": 5}
    ((since, ends),) = sql("select dequeued_at, due_at from queue where id = %s", (first.id,))
    assert (first.since, first.lease_ends) == (since, ends)
    assert (found[1].task, found[1].progress) == (None, None)
    assert [job.id for job in pq.running(2)] == [job.id for job in jobs[:2]]
    assert pq.running(0) == []
    with pytest.raises(ValueError, match="limit"):
        pq.running(-1)
    (worker,) = pq.workers()
    assert (worker.worker, worker.pid, [job.id for job in worker.runs]) == (HOLDER, None, [job.id for job in jobs])
    sql("update queue set due_at = now() - interval '1 s', result = '\"no\\u0000\"' where id = %s", (jobs[0].id,))
    assert [job.id for job in pq.running()] == [job.id for job in jobs[1:]]
    pq.done(jobs[1:])
    assert pq.running() == pq.workers() == []


def test_what_has_ended_is_told_by_minute(pq: PQ, sql: Sql) -> None:
    queue = pq["a"]
    for n in range(4):
        queue.put({"function": "garden.eat", "args": [n], "kwargs": {}})
    take(queue).retry("0s", "why")
    for _ in range(2):
        take(queue).done()
    take(queue).fail("why")
    queue.get(block=False)
    queue.cancel(queue.put(1))
    pq["b"].put(1)
    pq["b"].get()
    queue.put(5)
    # all in one minute, of which nothing is in the future
    sql(
        """
        with minute as (select date_trunc('minute', now()) - interval '1 min' as at)
        update queue set enqueued_at = at, schedule_at = null, dequeued_at = at + interval '2 s',
          finished_at = case when finished_at is not null then at + interval '5 s' end
        from minute where dequeued_at is not null
        """
    )
    found = pq.history()
    assert (found.looked_at, found.since, found.is_cut) == (7, None, False)
    first, second = found
    assert first.at.second == 0
    assert (first.queue, first.task, first.finished, first.retried, first.dead) == ("a", "garden.eat", 3, 1, 1)
    assert (first.waited, first.waited_most, first.ran, first.ran_most) == (2.0, 2.0, 3.0, 3.0)
    assert (second.queue, second.task, second.finished, second.ran) == ("b", None, 1, None)
    assert [each.queue for each in pq.history("b")] == ["b"]
    assert pq.history("c").minutes == ()
    earlier = "update queue set dequeued_at = at, finished_at = at from (select now() - interval '2 h') as earlier (at)"
    sql(f"{earlier} where dequeued_at is not null")
    assert pq.history().minutes == ()
    assert sum(each.finished for each in pq.history(minutes=180)) == 4


@pytest.mark.parametrize(("minutes", "error"), [(0, ValueError), (1441, ValueError), (1.5, TypeError)])
def test_minutes_that_there_are_not(pq: PQ, minutes: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="minutes"):
        pq.history(minutes=minutes)


def test_behind_a_backlog_what_has_ended_is_found(pq: PQ, sql: Sql) -> None:
    """Also where each queue has its own."""
    sql(
        """
        insert into queue (q_name, data, dequeued_at) select 'a', '1', now() from generate_series(1, 50);
        insert into queue (q_name, data) select 'a', '1' from generate_series(1, 500);
        insert into queue (q_name, data, dequeued_at) select 'b', '1', now() from generate_series(1, 50);
        insert into queue (q_name, data) select 'b', '1' from generate_series(1, 500);
        insert into queue (q_name, data, schedule_at)
        select 'b', '1', now() + interval '1 d' from generate_series(1, 500)
        """
    )
    found = pq.history(cap=120)
    seen: dict[str, int] = {}
    for each in found:
        seen[each.queue] = seen.get(each.queue, 0) + each.finished
    assert set(seen) == {"a", "b"}
    assert all(30 <= number <= 50 for number in seen.values())
    assert found.looked_at <= 120
    assert found.is_cut
    assert found.since is not None
    assert found.since <= dt.datetime.now(dt.timezone.utc) + dt.timedelta(minutes=1)


@pytest.mark.parametrize(
    ("ids", "cap", "found"),
    [
        ([], 100, []),
        ([500], 100, [(500, 100)]),
        ([500, 300], 100, [(500, 50), (300, 50)]),
        ([500, 460], 100, [(500, 100)]),
        ([500, 480, 455, 10], 100, [(500, 75), (10, 25)]),
        ([3, 2, 1], 2, [(3, 2)]),
    ],
)
def test_how_a_cap_is_shared(ids: list[int], cap: int, found: list[tuple[int, int]]) -> None:
    assert shares(ids, cap) == found


COLUMNS = ("enqueued_at", "schedule_at", "expected_at", "dequeued_at", "due_at", "finished_at")
TIMES = ("infinity", "-infinity", "200000-01-01", "0044-01-01 BC")


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("column", COLUMNS)
def test_no_look_fails_at_a_time_that_python_can_not_hold(pq: PQ, sql: Sql, column: str, time: str) -> None:
    """Others write into the table, too, and one such row must not hide all the others."""
    for state in (
        {},
        {"dequeued_at": "now", "due_at": "tomorrow"},
        {"dequeued_at": "now"},
        {"dequeued_at": "now", "finished_at": "now"},
    ):
        row = {"q_name": "a", "data": "1", "attempts": 1, "error": "e", **state, column: time}
        names, places = ", ".join(row), ", ".join(["%s"] * len(row))
        sql(f"insert into queue ({names}) values ({places})", tuple(row.values()))
    assert [queue.name for queue in pq.overview().queues] == ["a"]
    pq.overview(exact=True)
    pq.running()
    pq.workers()
    pq.dead_groups()
    for minute in pq.history():
        assert minute.waited is None or abs(minute.waited_most or 0) < 1e12
