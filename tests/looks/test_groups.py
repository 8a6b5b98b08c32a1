"""Dead jobs in groups: what is one, and what becomes of all its jobs."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from typing import Any

import pytest

from pq import PQ, Failure, LeasedJob, Queue
from pq._looks import groups

Sql = Callable[..., list[tuple[Any, ...]]]


def die(queue: Queue, error: BaseException | str, task: str | None = None) -> int:
    id = queue.put(1 if task is None else {"function": task, "args": [], "kwargs": {}})
    job = queue.get(block=False, lease="1h")
    assert isinstance(job, LeasedJob)
    job.fail(error)
    return id


def test_jobs_are_grouped_by_queue_task_and_error(pq: PQ) -> None:
    a, b = pq["a"], pq["b"]
    same = [die(a, ValueError(f"row {n} of 0x{n:x}"), "garden.eat") for n in (7, 12, 345)]
    others = [
        die(a, ValueError("row"), "garden.eat"),
        die(a, KeyError("row 7 of 0x7"), "garden.eat"),
        die(a, ValueError("row 7 of 0x7"), "garden.press"),
        die(a, ValueError("row 7 of 0x7")),
        die(b, ValueError("row 7 of 0x7"), "garden.eat"),
    ]
    found = pq.dead_groups()
    assert [(each.count, each.ids) for each in found[:1]] == [(3, tuple(reversed(same)))]
    assert sorted(each.ids[0] for each in found[1:]) == others
    first = found[0]
    assert (first.queue, first.task, first.error, first.message) == ("a", "garden.eat", "ValueError", "row # of #")
    assert first.sample == same[-1]
    assert not first.count.is_cut
    died = {job.id: job.died_at.replace(tzinfo=dt.timezone.utc) for job in a.dead}
    assert (first.first, first.last) == (died[same[0]], died[same[-1]])
    assert len({each.key for each in found}) == len(found)
    assert [each.queue for each in pq.dead_groups("b")] == ["b"]
    assert pq.dead_groups("c") == []


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (Failure("ValueError", "12 of 34").dumps(), "ValueError", "# of #"),
        (Failure("E", "id 0f8fad5b-d9cb-469f-a165-70867728950e", "a traceback").dumps(), "E", "id #"),
        (Failure("E", 'said "no"\n\\ ü \U0001f600').dumps(), "E", 'said "no"\n\\ ü \U0001f600'),
        (json.dumps({"type": "E", "message": ""}, separators=(",", ":")), "E", ""),
        ("somebody wrote this 17 times", "Failure", "somebody wrote this # times"),
        ('{"type": 1}', "Failure", '{"type": #}'),
    ],
)
def test_what_is_masked(error: str, kind: str, message: str) -> None:
    assert groups.reason(error) == (kind, message)


@pytest.mark.parametrize("length", range(360, 400))
def test_a_message_that_is_cut_is_the_same_whatever_the_last_number(length: int) -> None:
    """Wherever the statement cuts: in a number, in what is escaped, or behind it."""
    errors = [Failure("E", "x" * length + f"{number} ü é \\ {number} end").dumps() for number in (5, 17, 123)]
    kinds = {groups.reason(error[: groups.BEGINNING])[0] for error in errors}
    assert kinds == {"E"}


def test_what_python_and_json_cannot_read_hides_no_group(pq: PQ, sql: Sql) -> None:
    texts = ['{"function": "a\\u0000b", "x": "\\u0000"}', '{"function": "g\\u00fc"}', '{"function": 7}', '"\\ud800"']
    for data in texts:
        sql("insert into queue (q_name, data, dequeued_at, error) values ('a', %s, now(), 'no JSON')", (data,))
    assert sorted(each.task or "" for each in pq.dead_groups()) == ["", "", "a\0b", "gü"]


def test_a_group_is_retried_or_deleted_once(pq: PQ) -> None:
    queue = pq["a"]
    for _ in range(3):
        die(queue, "why")
    other = die(queue, "another")
    (group,) = [each for each in pq.dead_groups() if each.count == 3]
    queue.dead.discard(group.ids[1])
    assert group.retry() == 2
    assert group.retry() == group.discard() == 0
    assert queue.counts()["ready"] == 2
    assert [job.id for job in queue.dead] == [other]
    assert pq.dead_groups()[0].discard() == 1
    assert pq.dead_groups() == []


def test_a_rate_spreads_them_evenly(pq: PQ, sql: Sql) -> None:
    queue = pq["a"]
    for _ in range(5):
        die(queue, "why")
    (group,) = pq.dead_groups()
    assert group.retry("2/h") == 5
    times = sql("select extract(epoch from due_at - (select min(due_at) from queue))::float8 from queue order by 1")
    assert [round(time) for (time,) in times] == [0, 1800, 3600, 5400, 7200]
    assert queue.get(block=False) is not None
    assert queue.get(block=False) is None
    assert all(job.attempts == 0 and job.error is None for job in queue.list("scheduled"))


@pytest.mark.parametrize(("rate", "error"), [("fast", ValueError), ("0/m", ValueError), (5, TypeError)])
def test_a_rate_that_there_is_not_changes_nothing(pq: PQ, rate: Any, error: type[Exception]) -> None:
    die(pq["a"], "why")
    (group,) = pq.dead_groups()
    with pytest.raises(error, match="rate"):
        group.retry(rate)
    assert len(pq["a"].dead) == 1


FILL = """
    insert into queue (q_name, data, dequeued_at, error)
    select 'a', '1', now() - i / 3 * interval '1 s', case when i % 3 = 0 then 'other' else 'same' end
    from generate_series(1, 60) as i
"""


@pytest.mark.parametrize("rate", [None, "1/s"])
def test_those_that_the_look_did_not_see_are_of_the_group_too(
    pq: PQ, sql: Sql, monkeypatch: pytest.MonkeyPatch, rate: str | None
) -> None:
    """Whatever the pages are, of rows that have one time, too; what dies meanwhile stays."""
    sql(FILL)
    monkeypatch.setattr(groups, "BATCH", 7)
    (group,) = [each for each in pq.dead_groups(cap=5) if each.message == "same"]
    assert group.count.is_cut
    assert len(group.ids) < 5
    later = die(pq["a"], "same")
    assert group.retry(rate) == 40
    if rate is not None:  # as one, whatever the batches
        ((longest, times),) = sql(
            """
            select max(due_at) - min(due_at), count(distinct date_trunc('second', due_at))
            from queue where error is null
            """
        )
        assert 38 < longest.total_seconds() < 60
        assert times > 36
    assert [str(job.error.message) for job in pq["a"].dead] == ["other"] * 20 + ["same"]
    assert pq["a"].dead.list(1)[0].id == later
    (group,) = [each for each in pq.dead_groups(cap=1) if each.message == "same"]
    assert group.discard() == 1


def test_an_interrupt_leaves_whole_batches(pq: PQ, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    sql(FILL)
    monkeypatch.setattr(groups, "BATCH", 7)
    (group,) = [each for each in pq.dead_groups() if each.message == "same"]
    retry = type(pq["a"].dead).retry
    calls: list[int] = []

    def interrupted(*args: Any, **kwargs: Any) -> int:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return retry(*args, **kwargs)

    monkeypatch.setattr(type(pq["a"].dead), "retry", interrupted)
    with pytest.raises(KeyboardInterrupt):
        group.retry()
    assert pq["a"].count("ready") == 14
    assert group.retry() == 26


def test_all_queues_share_what_is_looked_at(pq: PQ, sql: Sql) -> None:
    sql(
        """
        insert into queue (q_name, data, dequeued_at, error)
        select 'q' || i % 10, '1', now(), 'why' from generate_series(1, 100) as i
        """
    )
    found = pq.dead_groups(cap=10)
    assert [(int(each.count), each.count.is_cut) for each in found] == [(5, True)] * 10
    assert [(int(each.count), each.count.is_cut) for each in pq.dead_groups("q1", cap=10)] == [(10, False)]
    assert sum(each.retry() for each in found) == 100
