"""Looking at a queue: what is listed, in which order, page by page, and at what cost."""

from __future__ import annotations

import datetime as dt
import random
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg2
import pytest
from support import Background
from support.plan import filled_tables, nodes

from pq import PQ, DecodeError, JobInfo, JobNotFound, LeasedJob, Queue, QueueInfo
from pq import sql as _sql
from pq._queue.browse import STATES

Sql = Callable[..., list[tuple[Any, ...]]]
HOUR = dt.timedelta(hours=1)
LIVE = STATES[:-1]


def take(queue: Queue) -> LeasedJob:
    job = queue.get(block=False, lease="1h")
    assert isinstance(job, LeasedJob)
    return job


def fill(queue: Queue) -> dict[str, list[int]]:
    """Jobs of all states; their ids in the order in which they are to be listed."""
    ids: dict[str, list[int]] = {state: [] for state in STATES}
    for _ in range(3):
        queue.put("finished")
        job = queue.get()
        assert job is not None
        ids["finished"].append(job.id)
    for _ in range(3):
        queue.put("dead")
        dead = take(queue)
        dead.fail("why")
        ids["dead"].append(dead.id)
    for _ in range(3):
        queue.put("running", key="k" if not ids["running"] else None)
        ids["running"].append(take(queue).id)
    ids["held"] = [queue.put("held", key="k") for _ in range(3)]
    late, soon = queue.put("scheduled", "3h"), queue.put("scheduled", "1h")
    ids["scheduled"] = [soon, queue.put("scheduled", "2h", dt.timedelta(hours=-9)), late]
    last, first = queue.put("ready"), queue.put("ready", None, "1h")
    due = queue.put("ready", dt.timedelta(seconds=-1), "2h")
    ids["ready"] = [first, due, queue.put("ready", None, "3h"), last, queue.put("ready", dt.timedelta(seconds=-5))]
    return ids


def ids(jobs: list[JobInfo]) -> list[int]:
    return [job.id for job in jobs]


def pages(queue: Queue, size: int, state: str | None = None, by_id: bool = False) -> list[int]:
    found: list[JobInfo] = []
    while page := queue.list(state, size, (found[-1].id if by_id else found[-1]) if found else None):
        assert len(page) <= size
        found += page
    return ids(found)


# -- what is there


def test_jobs_are_listed_by_state_each_in_its_order(pq: PQ) -> None:
    queue = pq["a"]
    fill(pq["b"])
    expected = fill(queue)
    for state in STATES:
        assert ids(queue.list(state)) == expected[state]
        assert {job.state for job in queue.list(state)} == {state}
        assert queue.count(state) == len(expected[state])
    assert ids(queue.list()) == [id for state in LIVE for id in expected[state]]
    assert queue.count() == sum(len(expected[state]) for state in LIVE)
    assert queue.counts() == {state: len(expected[state]) for state in STATES}
    assert queue.count("ready") == len(queue)


def test_nothing_is_in_an_empty_queue(pq: PQ) -> None:
    queue = pq["a"]
    fill(pq["b"])
    assert (queue.list(), queue.peek(), queue.count(), queue.find(1)) == ([], None, 0, None)
    assert queue.counts() == dict.fromkeys(STATES, 0)
    for state in STATES:
        assert (queue.list(state), queue.count(state)) == ([], 0)


def test_ready_jobs_are_listed_in_the_order_in_which_they_are_got(pq: PQ) -> None:
    queue = pq["a"]
    for n in range(60):
        due = random.choice([None, dt.timedelta(seconds=-random.randrange(1, 9))])
        queue.put(n, due, random.choice([None, "1h", dt.timedelta(seconds=random.randrange(-9, 9))]))
    listed = queue.list("ready")
    for job in listed:
        peeked, got = queue.peek(), queue.get(block=False)
        assert peeked is not None
        assert got is not None
        assert (peeked.id, got.id) == (job.id, job.id)
    assert queue.peek() is None


@pytest.mark.parametrize("by_id", [False, True], ids=["after a job", "after an id"])
@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_pages_follow_one_another_without_a_gap(pq: PQ, size: int, by_id: bool) -> None:
    queue = pq["a"]
    expected = fill(queue)
    assert pages(queue, size, by_id=by_id) == [id for state in LIVE for id in expected[state]]
    for state in STATES:
        assert pages(queue, size, state, by_id) == expected[state]


@pytest.mark.parametrize("state", ["ready", "scheduled", "held", "running", "dead"])
def test_pages_of_jobs_with_equal_times(pq: PQ, sql: Sql, state: str) -> None:
    columns = {
        "ready": "expected_at = '2020-01-01 00:00:00.123457+00'",
        "scheduled": "schedule_at = '3000-01-01'",
        "held": "schedule_at = 'infinity'",
        "running": "dequeued_at = now(), due_at = '3000-01-01'",
        "dead": "dequeued_at = now()",
    }
    queue = pq["a"]
    put = queue.put_many(range(7))
    sql(f"update queue set {columns[state]}")
    if state == "dead":  # taken with an error, they would lose that
        sql("update queue set error = 'why'")
    assert pages(queue, 3, state) == put


@pytest.mark.parametrize("zone", ["Pacific/Auckland", "America/St_Johns"])
def test_pages_and_times_do_not_depend_on_the_session(connect: Callable[..., Any], sql: Sql, zone: str) -> None:
    queue = PQ(connect(options=f"-c timezone={zone} -c datestyle=german"))["a"]
    expected = fill(queue)
    assert pages(queue, 2) == [id for state in LIVE for id in expected[state]]
    for job in queue.list():
        columns = "enqueued_at, schedule_at, expected_at, due_at, dequeued_at, failed_at"
        ((*times,),) = sql(f"select {columns} from queue where id = %s", (job.id,))
        if job.state == "held":  # until nobody knows when
            times[1] = times[3] = None
        naive = [time and time.astimezone(dt.timezone.utc).replace(tzinfo=None) for time in times]
        assert naive == [
            job.enqueued_at,
            job.schedule_at,
            job.expected_at,
            job.due_at,
            job.dequeued_at,
            job.first_failed_at,
        ]


def test_a_page_goes_on_where_the_job_was_although_it_was_taken(pq: PQ) -> None:
    queue = pq["a"]
    put = queue.put_many(range(5))
    page = queue.list("ready", 2)
    for _ in range(2):
        queue.get()
    assert ids(queue.list("ready", after=page[-1])) == put[2:]
    with pytest.raises(ValueError, match="is finished"):
        queue.list("ready", after=page[-1].id)


def test_a_job_tells_all_about_itself(pq: PQ) -> None:
    queue = pq["a"]
    id = queue.put({"kind": "crab"}, expected_at="1h")
    job = queue[id]
    assert (job.id, job.state, job.attempts, job.error, job.data) == (id, "ready", 0, None, {"kind": "crab"})
    assert (job.text, job.size, job.cancelled) == ('{"kind": "crab"}', 16, False)
    leased = take(queue)
    assert job.state == "ready"  # as it was
    job = queue[id]
    assert (job.state, job.attempts, job.first_failed_at) == ("running", 1, None)
    assert job.due_at is not None
    assert job.dequeued_at is not None
    assert job.due_at - job.dequeued_at >= HOUR
    leased.retry("1h", ValueError("of crabs"))
    job = queue[id]
    assert job.error is not None
    assert (job.state, job.error.type, job.error.message) == ("scheduled", "ValueError", "of crabs")
    assert job.first_failed_at is not None
    assert (job.enqueued_at, job.expected_at) == (leased.enqueued_at, leased.expected_at)
    assert job == queue.find(id)
    assert "crab" not in repr(job).replace("of crabs", "")
    with pytest.raises(AttributeError):
        job.state = "ready"  # type: ignore[misc]


def test_a_job_whose_lease_has_expired_is_ready(pq: PQ, sql: Sql) -> None:
    queue = pq["a"]
    id = queue.put(1)
    take(queue)
    sql("update queue set due_at = now()")
    assert queue[id].state == "ready"
    assert ids(queue.list("ready")) == [id]
    assert queue.counts()["ready"] == queue.count("ready") == 1
    assert queue.count("running") == 0


def test_jobs_of_other_queues_are_not_found(pq: PQ) -> None:
    id = pq["b"].put(1)
    assert pq["a"].find(id) is None
    for wrong in (id, 0, -1, 2**63, -(2**63), 10**30):
        with pytest.raises(JobNotFound) as caught:
            pq["a"][wrong]
        assert (caught.value.job_id, caught.value.queue) == (wrong, "a")
        assert isinstance(caught.value, LookupError)
        assert pq["a"].find(wrong) is None


def test_data_that_cannot_be_decoded_is_listed_and_told_of_when_it_is_read(pq: PQ, sql: Sql) -> None:
    queue = pq["a/pickle"]
    queue.put({1})
    sql("insert into queue (q_name, data) values ('a', '\"no pickle\"')")
    good, bad = queue.list()
    assert good.data == {1}
    assert bad.text == '"no pickle"'
    with pytest.raises(DecodeError) as caught:
        _ = bad.data
    assert (caught.value.job_id, caught.value.queue) == (bad.id, "a")


def test_odd_times_and_errors_of_hand_written_rows_are_shown(pq: PQ, sql: Sql) -> None:
    sql("insert into queue (q_name, data, expected_at) values ('a', '1', '-infinity'), ('a', '1', 'infinity')")
    sql("insert into queue (q_name, data, schedule_at) values ('a', '1', 'infinity'), ('a', '1', '20000-01-01')")
    sql("insert into queue (q_name, data, dequeued_at, error) values ('a', '1', now(), 'by hand')")
    queue = pq["a"]
    assert [job.state for job in queue.list()] == ["ready", "ready", "scheduled", "held", "dead"]
    assert pages(queue, 1) == ids(queue.list())
    assert str(queue.list("dead")[0].error) == "Failure: by hand"


def test_looking_waits_for_nobody_and_hides_nothing(pq: PQ, connect: Callable[..., Any]) -> None:
    queue = pq["a"]
    put = queue.put_many(range(3))
    with closing(connect()) as conn, conn.cursor() as cursor:
        cursor.execute("select from queue for update")
        looks = Background(lambda: (ids(queue.list()), queue.count(), queue[put[0]].state, queue.peek()))
        assert looks.result()[:3] == (put, 3, "ready")
    with queue:  # nor does it lock
        assert ids(queue.list()) == put
        assert queue.peek() is not None
        assert Background(queue.get_many, 3, False).result()


def test_a_transaction_sees_its_own_changes(pq: PQ) -> None:
    queue = pq["a"]
    with queue:
        id = queue.put(1)
        assert ids(queue.list()) == [id]
        assert Background(queue.list).result() == []


WRONG: list[tuple[Callable[[Queue], Any], type[Exception], str]] = [
    (lambda queue: queue.list("lost"), ValueError, f"state must be one of {', '.join(STATES)}, not"),
    (lambda queue: queue.count("lost"), ValueError, "state must be one of"),
    (lambda queue: queue.list(5), ValueError, "state must be one of"),
    (lambda queue: queue.list(limit=-1), ValueError, "limit must not be negative: -1"),
    (lambda queue: queue.list(limit="5"), TypeError, "limit must be an int, not str: '5'"),
    (lambda queue: queue.list(limit=None), TypeError, "limit must be an int, not NoneType"),
    (lambda queue: queue.list(after="5"), TypeError, "a job id must be an int, not str: '5'"),
    (lambda queue: queue.list(after=[5]), TypeError, "a job id must be an int, not list: [5]"),
    (lambda queue: queue.list(after=5), JobNotFound, "There is no job 5 in queue 'a'."),
    (lambda queue: queue.list("dead", after=queue.list()[0]), ValueError, "after which to go on, is ready"),
    (lambda queue: queue["5"], TypeError, "a job id must be an int, not str: '5'"),
    (lambda queue: queue[1:2], TypeError, "a job id must be an int, not slice"),
    (lambda queue: queue.find(None), TypeError, "a job id must be an int, not NoneType: None"),
    (lambda queue: queue.find([1]), TypeError, "a job id must be an int, not list: [1]"),
]


def test_wrong_arguments_are_refused(pq: PQ) -> None:
    queue = pq["a"]
    queue.put(1)
    for call, error, message in WRONG:
        with pytest.raises(error) as caught:
            call(queue)
        assert message in str(caught.value)
    assert queue.list(limit=0) == []


# -- at what cost

# 50,000 finished rows and 20,000 of each other state but running, of which there are 100
FILL = """
    insert into {0} (q_name, data, dequeued_at) select 'a', '1', now() from generate_series(1, 50000);
    insert into {0} (q_name, data, expected_at)
      select 'a', '1', case when i % 2 = 0 then now() + i * interval '1 s' end from generate_series(1, 20000) as i;
    insert into {0} (q_name, data, schedule_at)
      select 'a', '1', now() + interval '10 min' + i * interval '1 ms' from generate_series(1, 20000) as i;
    insert into {0} (q_name, data, dequeued_at, error)
      select 'a', '1', now() - i * interval '1 s', 'why' from generate_series(1, 20000) as i;
    insert into {0} (q_name, data, dequeued_at, due_at)
      select 'a', '1', now() - i * interval '1 s', now() + i * interval '1 h' from generate_series(1, 20000) as i;
    insert into {0} (q_name, data, due_at) select 'b', '1', 'infinity' from generate_series(1, 20000) as i;
    insert into {0} (q_name, data, schedule_at)
      select 'b', '1', now() + i * interval '1 s' from generate_series(1000, 21000) as i;
"""
TABLES = {
    "known": FILL + "analyze {0};",
    "unknown": FILL,
    "outdated": "insert into {0} (q_name, data) select 'b', '1' from generate_series(1, 1000); analyze {0};" + FILL,
}


@pytest.fixture(scope="module")
def filled(server: str) -> Iterator[str]:
    """The DSN of a database with these tables."""
    with filled_tables(server, {table: sql.format(table) for table, sql in TABLES.items()}) as dsn:
        yield dsn


def explained(dsn: str, queue: Queue, look: Callable[[Queue], Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The plan of the last statement that `look` executes."""
    executed = []
    run = queue._db.execute
    with monkeypatch.context() as patch:
        patch.setattr(queue._db, "execute", lambda sql, params, **_: executed.append((sql, params)) or run(sql, params))
        look(queue)
    with closing(psycopg2.connect(dsn)) as conn, conn.cursor() as cursor:
        sql, params = executed[-1]
        cursor.execute(f"explain (analyze, buffers, format json) {sql}", params)
        return cursor.fetchone()[0][0]["Plan"]


LOOKS: dict[str, Callable[[Queue], Any]] = {
    "ready": lambda queue: queue.list("ready", 10),
    "ready, next page": lambda queue: queue.list("ready", 10, queue.list("ready", 9000)[-1]),
    "ready, last page": lambda queue: queue.list("ready", 10, queue.list("ready", 19000)[-1]),
    "scheduled": lambda queue: queue.list("scheduled", 10),
    "scheduled, next page": lambda queue: queue.list("scheduled", 10, queue.list("scheduled", 9000)[-1]),
    "held": lambda queue: queue.list("held", 10),
    "held, next page": lambda queue: queue.list("held", 10, queue.list("held", 9000)[-1]),
    "running": lambda queue: queue.list("running", 10),
    "running, next page": lambda queue: queue.list("running", 10, queue.list("running", 9000)[-1]),
    "dead": lambda queue: queue.list("dead", 10),
    "dead, next page": lambda queue: queue.list("dead", 10, queue.list("dead", 9000)[-1]),
    "peek": lambda queue: queue.peek(),
    "find": lambda queue: queue[60_000],
}


@pytest.mark.parametrize("look", list(LOOKS))
@pytest.mark.parametrize("table", list(TABLES))
def test_a_page_reads_little_more_than_is_on_it(
    filled: str, table: str, look: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with PQ(filled, table=table) as pq:
        plan = explained(filled, pq["b" if look.startswith("held") else "a"], LOOKS[look], monkeypatch)
    for node in nodes(plan):
        if node["Actual Loops"]:
            assert node["Node Type"] != "Seq Scan"
            assert node["Actual Rows"] <= 60, node
            assert node.get("Rows Removed by Filter", 0) <= 60, node
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 150


@pytest.mark.parametrize("state", [None, "ready", "scheduled", "held", "running", "dead"])
def test_counts_of_what_is_not_finished_do_not_read_the_finished(
    filled: str, state: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with PQ(filled, table="known") as pq:
        plan = explained(filled, pq["a"], lambda queue: queue.count(state), monkeypatch)
    assert not [node for node in nodes(plan) if node["Node Type"] == "Seq Scan" and node["Actual Rows"] > 0]


# -- all queues


def test_all_queues_with_their_counts_and_times(pq: PQ, sql: Sql) -> None:
    assert pq.queues() == []
    expected = fill(pq["a"])
    pq["a"].pause()
    pq["paused"].pause()
    pq["finished"].put(1)
    pq["finished"].get()
    pq['odd "%\\'].put(1)
    found = {info.name: info for info in pq.queues()}
    assert list(found) == sorted(found) == list(pq) == ["a", 'odd "%\\', "paused"]
    first = found["a"]
    assert [getattr(first, state) for state in LIVE] == [len(expected[state]) for state in LIVE]
    assert first.paused
    ((since, until),) = sql(
        """
        select min(schedule_at) filter (where due_at < now()) at time zone 'utc',
          min(schedule_at) filter (where due_at > now()) at time zone 'utc'
        from queue where q_name = 'a'
        """
    )
    assert (first.ready_since, first.next_due) == (since, until)
    odd = found['odd "%\\']
    assert (odd.ready, odd.paused, odd.next_due) == (1, False, None)
    assert odd.ready_since == pq[odd.name].list()[0].enqueued_at
    assert found["paused"] == QueueInfo("paused", 0, 0, 0, 0, 0, None, None, True)
    assert "paused" in pq
    pq["paused"].resume()
    assert "paused" not in pq


@pytest.mark.parametrize("column", ["enqueued_at", "schedule_at"])
def test_a_time_that_python_cannot_hold_hides_no_queue(pq: PQ, sql: Sql, column: str) -> None:
    for name, time in [("bc", "0100-01-01 BC"), ("never", "-infinity"), ("far", "20000-01-01"), ("ever", "infinity")]:
        sql(f"insert into queue (q_name, data, {column}) values (%s, '1', %s)", (name, time))
    found = {info.name: info for info in pq.queues()}
    assert found["bc"].ready_since == found["never"].ready_since == dt.datetime.min
    first = "ready_since" if column == "enqueued_at" else "next_due"
    assert getattr(found["far"], first) == dt.datetime.max
    if column == "enqueued_at":
        assert found["ever"].ready_since == dt.datetime.max
    else:  # a job of no time is held
        assert (found["ever"].held, found["ever"].next_due) == (1, None)



@pytest.mark.parametrize("analyzed", [False, True], ids=["no statistics", "statistics"])
def test_many_queues_are_found_without_reading_the_finished(pq: PQ, sql: Sql, analyzed: bool) -> None:
    sql("alter table queue set (autovacuum_enabled = off)")
    sql("insert into queue (q_name, data) select 'q' || i % 1000, '1' from generate_series(1, 3000) as i")
    sql("insert into queue (q_name, data, dequeued_at) select 'q1', '1', now() from generate_series(1, 30000) as i")
    if analyzed:
        sql("analyze queue")
    exact = {"count_parts": "count_exactly", "counted": "counted_exactly"}
    query = _sql.bound("looks.sql", '"queue"', **exact)["overview"]
    (((plan,),),) = sql(f"explain (analyze, format json) {query}", {"table": "queue"})
    for node in nodes(plan["Plan"]):
        if node.get("Relation Name") == "queue":
            assert re.fullmatch("queue_(ready|due|running|dead)_index", node["Index Name"])
        assert node["Actual Rows"] * node["Actual Loops"] <= 4000
    assert [info.ready for info in pq.queues()] == [3] * 1000
