"""Dead jobs: listed, found, made ready again or deleted, and nothing else touched."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from support.plan import nodes

from pq import PQ, DecodeError, JobNotFound, LeasedJob, Queue
from pq import sql as _sql
from pq._queue import dead as _dead

Sql = Callable[..., list[tuple[Any, ...]]]
UTC = dt.timezone.utc
MINUTE = dt.timedelta(minutes=1)
ROWS = "select xmin::text, ctid::text, * from queue order by id"


def take(queue: Queue) -> LeasedJob:
    job = queue.get(block=False, lease="1m")
    assert isinstance(job, LeasedJob)
    return job


def die(queue: Queue, *data: Any) -> list[int]:
    """Put jobs, and make them dead."""
    ids = []
    for each in data:
        queue.put(each)
        job = take(queue)
        job.fail(f"of {each!r}")
        ids.append(job.id)
    return ids


def others(pq: PQ) -> None:
    """A row in each other state, and a dead one in another queue."""
    queue = pq["a"]
    die(pq["b"], "b")
    for end in ("done", "release", "retry", "extend"):
        queue.put(end)
        job = take(queue)
        if end == "retry":
            job.retry("1h", "why")
        else:
            getattr(job, end)()
        if end == "release":
            queue.get()
    queue.put("scheduled", schedule_at="1h")
    queue.put("ready")


def test_a_dead_job_tells_all_about_itself(pq: PQ, sql: Sql) -> None:
    queue = pq["a"]
    id = queue.put({"kind": "crab"}, schedule_at=-MINUTE, expected_at=-MINUTE)
    first = take(queue)
    first.retry("0s", ValueError("first"))
    ((failed_at,),) = sql("select failed_at from queue")
    last = take(queue)
    try:
        raise KeyError("last")
    except KeyError as error:
        last.fail(error)
    ((died_at,),) = sql("select dequeued_at from queue")
    (job,) = queue.dead
    assert (job.id, job.data, job.text, job.attempts) == (id, {"kind": "crab"}, '{"kind": "crab"}', 2)
    assert (job.error.type, job.error.message) == ("KeyError", "'last'")
    assert job.error.traceback is not None
    assert job.error.traceback.endswith("KeyError: 'last'\n")
    assert (job.first_failed_at.replace(tzinfo=UTC), job.died_at.replace(tzinfo=UTC)) == (failed_at, died_at)
    assert job.first_failed_at < job.died_at
    assert (job.enqueued_at, job.expected_at) == (last.enqueued_at, last.expected_at)
    assert job.size == last.size
    assert repr(job).startswith(f"<pq.DeadJob id={id} ")
    assert "crab" not in repr(job)


def test_a_job_that_failed_once_died_when_it_failed(pq: PQ) -> None:
    die(pq["a"], 1)
    (job,) = pq["a"].dead
    assert job.first_failed_at == job.died_at


@pytest.mark.parametrize("zone", ["Pacific/Auckland", "America/St_Johns"])
def test_times_are_in_utc_whatever_the_time_zone_of_the_session(
    connect: Callable[..., Any], sql: Sql, zone: str
) -> None:
    queue = PQ(connect(options=f"-c timezone={zone}"))["a"]
    die(queue, 1)
    (job,) = queue.dead
    assert sql("select dequeued_at at time zone 'utc' from queue") == [(job.died_at,)]


def test_only_the_dead_of_this_queue_are_counted_and_found(pq: PQ, sql: Sql) -> None:
    ids = die(pq["a"], 1, 2)
    others(pq)
    dead = pq["a"].dead
    assert len(dead) == 2
    assert [job.id for job in dead] == ids
    for (id,) in sql("select id from queue"):
        if id in ids:
            assert dead.get(id).id == id
        else:
            with pytest.raises(JobNotFound) as caught:
                dead.get(id)
            assert (caught.value.job_id, caught.value.queue) == (id, "a")


def test_no_dead_jobs(pq: PQ) -> None:
    dead = pq["a"].dead
    assert bool(dead)  # it is there; asking must not count
    assert (len(dead), list(dead), dead.list()) == (0, [], [])
    assert (dead.retry(all=True), dead.discard(all=True), dead.retry([]), dead.discard(())) == (0, 0, 0, 0)
    assert repr(dead) == "<pq.Dead of <pq.Queue 'a'>>"


@pytest.mark.parametrize("at_once", [False, True])
def test_iteration_goes_over_all_pages_from_the_oldest(
    pq: PQ, sql: Sql, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    monkeypatch.setattr("pq._queue.dead.PAGE", 3)
    ids = die(pq["a"], *range(10))
    if at_once:  # then by their ids
        sql("update queue set dequeued_at = now()")
    else:
        sql("update queue set dequeued_at = dequeued_at - id * interval '1 min'")
        ids.reverse()
    assert [job.id for job in pq["a"].dead] == ids


@pytest.mark.parametrize("number", [2, 3, 4])
def test_pages_that_are_full_or_not(pq: PQ, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr("pq._queue.dead.PAGE", 3)
    ids = die(pq["a"], *range(number))
    assert [job.id for job in pq["a"].dead] == ids


def test_jobs_may_be_discarded_and_retried_during_iteration(pq: PQ, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pq._queue.dead.PAGE", 2)
    dead = pq["a"].dead
    ids = die(pq["a"], *range(6))
    seen = []
    for job in dead:
        seen.append(job.id)
        if job.id % 2:
            job.retry()
        else:
            dead.discard(job.id)
    assert seen == ids
    assert (len(dead), len(pq["a"])) == (0, 3)


def test_list_gives_some_of_either_end(pq: PQ) -> None:
    dead = pq["a"].dead
    ids = die(pq["a"], *range(4))
    assert [job.id for job in dead.list()] == ids[::-1]
    assert [job.id for job in dead.list(limit=2)] == ids[:1:-1]
    assert [job.id for job in dead.list(limit=3, newest=False)] == ids[:3]
    assert dead.list(limit=0) == []


WHICH: list[tuple[Callable[[list[int]], Any], int]] = [
    (lambda ids: {"ids": ids[0]}, 1),
    (lambda ids: {"ids": ids[:2]}, 2),
    (lambda ids: {"ids": set(ids)}, 3),
    (lambda ids: {"ids": iter(ids)}, 3),
    (lambda ids: {"ids": [ids[0], ids[0], 0, -1, 2**62]}, 1),
    (lambda ids: {"ids": []}, 0),
    (lambda ids: {"all": True}, 3),
]


@pytest.mark.parametrize("act", ["retry", "discard"])
def test_one_several_or_all_are_retried_or_discarded(pq: PQ, sql: Sql, act: str) -> None:
    queue = pq["a"]
    others(pq)
    queue.get()  # the ready one: the dead would come behind it
    before = sql(ROWS)
    for which, found in WHICH:
        ids = die(queue, *range(3))
        assert getattr(queue.dead, act)(**which(ids)) == found
        assert len(queue.dead) == 3 - found
        assert len(queue) == (found if act == "retry" else 0)
        sql("delete from queue where id = any (%s)", (ids,))
        assert sql(ROWS) == before


@pytest.mark.parametrize("act", ["retry", "discard"])
def test_jobs_that_are_not_dead_are_passed_over(pq: PQ, sql: Sql, act: str) -> None:
    others(pq)
    before = sql(ROWS)
    ids = [id for (id,) in sql("select id from queue")]
    assert getattr(pq["a"].dead, act)(ids) == 0
    assert sql(ROWS) == before


def test_a_job_that_is_retried_keeps_its_id_and_begins_anew(pq: PQ, sql: Sql) -> None:
    queue = pq["a"]
    (id,) = die(queue, "crab")
    queue.dead.get(id).retry()
    assert sql("select dequeued_at, due_at, attempts, error, failed_at from queue") == [(None, None, 0, None, None)]
    job = take(queue)
    assert (job.id, job.data, job.attempts) == (id, "crab", 1)
    with pytest.raises(JobNotFound):
        queue.dead.get(id)


def test_a_job_is_retried_later(pq: PQ, sql: Sql) -> None:
    (id,) = die(pq["a"], 1)
    assert pq["a"].dead.retry(id, in_="1h") == 1
    assert len(pq["a"]) == 0
    ((left, agree),) = sql("select due_at - now(), due_at = schedule_at from queue")
    assert 59 * MINUTE < left <= 60 * MINUTE
    assert agree


def test_a_dead_job_that_is_gone_cannot_be_retried(pq: PQ) -> None:
    die(pq["a"], 1)
    (job,) = pq["a"].dead
    pq["a"].dead.discard(job.id)
    with pytest.raises(JobNotFound) as caught:
        job.retry()
    assert (caught.value.job_id, caught.value.queue) == (job.id, "a")


def test_data_that_it_died_of_can_be_repaired(pq: PQ) -> None:
    queue = pq["a"]
    die(queue, "crab")
    (job,) = queue.dead
    queue.update(job.id, "Cox")
    job.retry()
    assert take(queue).data == "Cox"


@pytest.mark.parametrize("act", ["retry", "discard"])
@pytest.mark.parametrize("commit", [False, True])
def test_in_a_transaction_it_is_part_of_it(pq: PQ, sql: Sql, act: str, commit: bool) -> None:
    queue = pq["a"]
    die(queue, 1, 2)
    before = sql(ROWS)
    with suppress(ZeroDivisionError), queue:
        assert getattr(queue.dead, act)(all=True) == 2
        assert len(queue.dead) == 0
        assert sql(ROWS) == before
        if not commit:
            1 / 0  # noqa: B018
    assert len(queue.dead) == (0 if commit else 2)


WRONG: list[tuple[Callable[[Any], Any], type[Exception], str]] = [
    (lambda dead: dead.retry(), TypeError, "ids or all=True is needed, and not both"),
    (lambda dead: dead.discard(), TypeError, "ids or all=True is needed, and not both"),
    (lambda dead: dead.retry(1, all=True), TypeError, "ids or all=True is needed, and not both"),
    (lambda dead: dead.discard([], all=True), TypeError, "ids or all=True is needed, and not both"),
    (lambda dead: dead.discard(all=1), TypeError, "ids or all=True is needed, and not both"),
    (lambda dead: dead.discard("1"), TypeError, "a job id must be an int, not str: '1'"),
    (lambda dead: dead.discard(b"1"), TypeError, "a job id must be an int, not bytes"),
    (lambda dead: dead.retry([1, "2"]), TypeError, "a job id must be an int, not str: '2'"),
    (lambda dead: dead.retry(True), TypeError, "a job id must be an int, not bool: True"),
    (lambda dead: dead.retry(1.0), TypeError, "a job id must be an int, not float: 1.0"),
    (lambda dead: dead.get("1"), TypeError, "a job id must be an int, not str: '1'"),
    (lambda dead: dead.get([1]), TypeError, "a job id must be an int, not list: [1]"),
    (lambda dead: dead.get(None), TypeError, "a job id must be an int, not NoneType: None"),
    (lambda dead: dead.retry(1, in_=True), TypeError, "in_ must be a number of seconds, a str or"),
    (lambda dead: dead.retry(1, in_="5"), ValueError, "in_ must be of the form"),
    (lambda dead: dead.retry(1, in_=-MINUTE), ValueError, "in_ must not be negative"),
    (lambda dead: dead.list(limit="5"), TypeError, "limit must be an int, not str: '5'"),
    (lambda dead: dead.list(limit=None), TypeError, "limit must be an int, not NoneType"),
    (lambda dead: dead.list(limit=True), TypeError, "limit must be an int, not bool"),
    (lambda dead: dead.list(limit=-1), ValueError, "limit must not be negative: -1"),
]


def test_wrong_arguments_are_refused_before_anything_is_done(pq: PQ, sql: Sql) -> None:
    die(pq["a"], 1)
    before = sql(ROWS)
    with pq["a"] as cursor:
        for call, error, message in WRONG:
            with pytest.raises(error) as caught:
                call(pq["a"].dead)
            assert message in str(caught.value)
        cursor.execute("select 1")  # the transaction goes on
    assert sql(ROWS) == before


IMPOSSIBLE = [2**63, -(2**63) - 1, 10**40]


def test_there_is_no_job_with_an_id_that_none_can_have(pq: PQ) -> None:
    for id in IMPOSSIBLE:
        with pytest.raises(JobNotFound):
            pq["a"].dead.get(id)


def test_ids_that_no_job_can_have_are_passed_over(pq: PQ) -> None:
    (id,) = die(pq["a"], 1)
    assert pq["a"].dead.retry(IMPOSSIBLE) == 0
    assert pq["a"].dead.discard([id, *IMPOSSIBLE]) == 1


# -- what can't be read


def test_an_undecodable_job_can_be_listed_and_repaired(pq: PQ, dsn: str, sql: Sql) -> None:
    queue = pq["a/pickle"]
    sql("insert into queue (q_name, data) values ('a', '\"no pickle\"')")
    with PQ(dsn, max_retries=0) as strict, pytest.raises(DecodeError):
        strict["a/pickle"].get(lease="1m")
    for job in [*queue.dead, *queue.dead.list(), queue.dead.get(queue.dead.list()[0].id)]:
        assert job.text == '"no pickle"'
        assert job.error.type == "pq.errors.DecodeError"
        with pytest.raises(DecodeError) as caught:
            _ = job.data
        assert (caught.value.job_id, caught.value.queue) == (job.id, "a")
    queue.update(job.id, {"repaired"})
    job.retry()
    assert take(queue).data == {"repaired"}


def test_an_error_that_somebody_has_written_by_hand_is_shown(pq: PQ, sql: Sql) -> None:
    sql("insert into queue (q_name, data, dequeued_at, error) values ('a', '1', now(), 'by hand')")
    (job,) = pq["a"].dead
    assert (job.error.type, job.error.message, job.error.traceback) == ("Failure", "by hand", None)
    assert job.first_failed_at == job.died_at


def test_errors_are_cut_and_kept_whatever_is_in_them(pq: PQ) -> None:
    queue = pq["a"]
    for message in ("nul \0", "lone \ud800 surrogate", "x" * 10**6, "100% %s", ""):
        queue.put(1)
        job = take(queue)
        try:
            raise ValueError(message)
        except ValueError as error:
            job.fail(error)
        failure = queue.dead.list()[0].error
        assert failure.message == (message if len(message) <= 2000 else message[:1997] + "...")
        assert failure.traceback is not None
        assert len(failure.traceback) <= 8000


def test_tracebacks_can_be_switched_off(dsn: str, sql: Sql) -> None:
    with PQ(dsn, keep_traceback=False) as pq:
        pq["a"].put(1)
        with suppress(ValueError), take(pq["a"]):
            raise ValueError("retried")
        sql("update queue set due_at = now()")
        assert sql("select error::json->>'message', error like '%%Traceback%%' from queue", ()) == [("retried", False)]
        try:
            raise ValueError("dead")
        except ValueError as error:
            take(pq["a"]).fail(error)
        (job,) = pq["a"].dead
        assert (job.error.type, job.error.message, job.error.traceback) == ("ValueError", "dead", None)


# -- at what cost


def test_finished_rows_cost_nothing(pq: PQ, sql: Sql) -> None:
    sql("alter table queue set (autovacuum_enabled = off)")
    sql("insert into queue (q_name, data, dequeued_at) select 'a', '1', now() from generate_series(1, 20000)")
    sql(
        "insert into queue (q_name, data, dequeued_at, error)"
        " select 'a', '1', now() - i * interval '1 s', 'why' from generate_series(1, 500) as i"
    )
    now = dt.datetime.now(UTC).replace(tzinfo=None)
    params = {"queue": "a", "limit": 10, "died_at": now - MINUTE, "begun": now, "id": 1}
    for statistics in (False, True):
        if statistics:
            sql("analyze queue")
        for name in ("newest", "oldest", "next"):
            query = _sql.bound("dead.sql", '"queue"', some="all")[name]
            (((plan,),),) = sql(f"explain (analyze, format json) {query}", params)
            for node in nodes(plan["Plan"]):
                assert node["Node Type"] != "Seq Scan", (name, statistics)
                assert node.get("Index Name") in (None, "queue_dead_index"), (name, statistics)
                if name != "count":
                    assert node["Actual Rows"] <= 10, (name, statistics)


# -- a loop over them


def test_a_loop_that_retries_jobs_which_die_again_ends(pq: PQ, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_dead, "PAGE", 3)
    queue = pq["a"]
    ids = die(queue, *range(8))
    seen = []
    for job in queue.dead:
        assert len(seen) < 20
        seen.append(job.id)
        job.retry()
        take(queue).fail("again")
    assert seen == ids
    assert len(queue.dead) == 8


def test_a_loop_has_those_that_died_while_the_clock_was_ahead(
    pq: PQ, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_dead, "PAGE", 2)
    queue = pq["a"]
    ids = die(queue, *range(6))
    sql("update queue set dequeued_at = 'infinity' where id = %s", (ids[0],))
    sql("update queue set dequeued_at = now() + id * interval '1 day' where id in (%s, %s)", tuple(ids[1:3]))
    seen = []
    for job in queue.dead:
        assert len(seen) < 20
        seen.append(job.id)
        job.retry()
        take(queue).fail("again")
    assert seen == [*ids[3:], *ids[1:3], ids[0]]


def test_times_of_any_size_are_shown(pq: PQ, sql: Sql) -> None:
    queue = pq["a"]
    ids = die(queue, *range(4))
    for id, time in zip(ids, ("-infinity", "4000-01-01 BC", "20000-01-01", "infinity"), strict=True):
        sql("update queue set dequeued_at = %s, failed_at = %s where id = %s", (time, time, id))
    assert [job.id for job in queue.dead] == ids
    assert [job.died_at for job in queue.dead.list()] == [dt.datetime.max] * 2 + [dt.datetime.min] * 2
    assert [job.id for job in queue.list("dead")] == ids
    assert queue[ids[0]].first_failed_at == dt.datetime.min
    assert queue.dead.retry(ids) == 4
