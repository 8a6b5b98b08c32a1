"""Why a job does not run: each reason, in a queue where it is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support import HOLDER, Background, take, wait_until

from pq import PQ, After, JobNotFound, Limit, Queue, StatementTimeout, Worker

Sql = Callable[..., list[tuple[Any, ...]]]


def codes(queue: Queue, id: int) -> list[str]:
    return [reason.code for reason in queue.why(id).reasons]


def text(queue: Queue, id: int, code: str) -> str:
    (found,) = [reason.text for reason in queue.why(id).reasons if reason.code == code]
    return found


@pytest.fixture
def queue(pq: PQ) -> Queue:
    return pq["a"]


def test_nobody_waits(queue: Queue) -> None:
    id = queue.put(1)
    assert codes(queue, id) == ["unheard"]
    why = queue.why(id)
    assert (why.id, why.queue, why.state) == (id, "a", "ready")
    assert str(why).startswith("unheard: no session waits for queue 'a'")


def test_it_is_next(queue: Queue, sql: Sql) -> None:
    """What waits does not see the job, which another transaction has put."""
    waits = Background(queue.get, timeout=30)
    gates = "select from pg_locks where locktype = 'advisory' and mode = 'ShareLock' and granted"
    wait_until(lambda: sql(gates), "the session that waits")
    with queue:
        id = queue.put(1)
        assert codes(queue, id)[-1] == "next"
    assert waits.result().id == id


def test_its_time_has_not_come(queue: Queue) -> None:
    id = queue.put(1, "1h")
    assert codes(queue, id) == ["scheduled"]
    assert f"{queue[id].due_at:%Y-%m-%d %H:%M:%S}Z" in text(queue, id, "scheduled")


def test_it_waits_for_its_next_attempt(queue: Queue) -> None:
    id = queue.put(1)
    take(queue).retry("1h", ValueError("rotten\napple"))
    assert codes(queue, id) == ["retry"]
    assert text(queue, id, "retry").endswith("the last of 1 attempt failed: ValueError: rotten apple")


def test_the_queue_is_paused(queue: Queue) -> None:
    ready, later = queue.put(1), queue.put(2, "1h")
    queue.pause()
    assert codes(queue, ready) == ["paused"]
    assert codes(queue, later) == ["paused", "scheduled"]


def test_others_are_taken_before_it(queue: Queue) -> None:
    queue.put_many(range(3))
    queue.put(1, None, "1h")
    queue.put(1, "1h")
    due = queue.put(1, "0s")
    last = queue.put(1)
    queue.put(2)
    assert text(queue, last, "ahead") == "taken before it: 5 jobs"
    assert text(queue, due, "ahead") == "taken before it: 4 jobs"
    urgent = queue.put(1, None, "30m")
    assert codes(queue, urgent) == ["unheard"]


def test_more_are_before_it_than_are_counted(queue: Queue) -> None:
    queue.put_many(range(1500))
    assert text(queue, queue.put(1), "ahead") == "taken before it: 1,000+ jobs"


def test_jobs_in_front_of_it_run(queue: Queue) -> None:
    queue.put(0)
    running = take(queue)
    id = queue.put(1)
    assert codes(queue, id) == ["busy"]
    assert codes(queue, running.id) == ["running"]
    assert text(queue, running.id, "running").startswith(f"worker {HOLDER} has had it since ")


def test_its_lease_has_ended(queue: Queue, sql: Sql) -> None:
    id = queue.put(1)
    take(queue)
    sql("update queue set due_at = now() - interval '1 min'")
    assert codes(queue, id) == ["expired", "unheard"]
    assert text(queue, id, "expired").startswith(f"the lease of worker {HOLDER} ended at ")


def test_another_job_of_its_key_runs(queue: Queue) -> None:
    first, second, third = (queue.put(n, key="k") for n in range(3))
    take(queue)
    assert codes(queue, second) == ["key"]
    assert text(queue, second, "key").startswith(f"job {first} of its key 'k' runs: worker {HOLDER} has had it since ")
    assert codes(queue, third) == ["key", "line"]
    assert text(queue, third, "line") == "held in front of it, with its key 'k': 1 job"


def test_another_job_of_its_key_is_in_front(queue: Queue) -> None:
    first, second = (queue.put(n, key="k") for n in range(2))
    assert text(queue, second, "key") == f"job {first} of its key 'k' is in front of it"
    assert codes(queue, first) == ["unheard"]


def test_a_dead_job_of_its_key_stops_it(queue: Queue, pq: PQ) -> None:
    pq.limits["a"] = Limit(on_dead="stop")
    first, second = (queue.put(n, key="k") for n in range(2))
    take(queue).fail("why")
    assert text(queue, second, "key").startswith(f"job {first} of its key 'k' is dead")
    pq.limits["a"] = Limit(on_dead="next")
    assert not [reason for reason in queue.why(second).reasons if "dead" in reason.text]


def test_all_places_of_a_limit_are_taken(queue: Queue, pq: PQ) -> None:
    pq.limits["a"] = Limit(running=1)
    ids = queue.put_many(range(10))
    assert "limit" not in codes(queue, ids[-1])
    take(queue)
    assert text(queue, ids[-1], "limit") == f"the place of limit 'a' is taken, by job {ids[0]}"
    pq.limits["a"] = Limit(running=2)
    take(queue)
    by = f"job {ids[0]}, job {ids[1]}"
    assert text(queue, ids[-1], "limit") == f"all 2 places of limit 'a' are taken, by {by}"
    pq.limits["a"] = Limit(running=6)
    for _ in range(4):
        take(queue)
    by = ", ".join(f"job {id}" for id in ids[:5])
    assert text(queue, ids[-1], "limit") == f"all 6 places of limit 'a' are taken, by {by}, …"


def test_a_rate_lets_no_job_begin(queue: Queue, pq: PQ) -> None:
    pq.limits["x"] = Limit(rate="1/h", queues=["a", "b"])
    pq["b"].put(0)
    take(pq["b"])
    id = queue.put(1)
    assert text(queue, id, "limit").startswith("limit 'x' lets the next job begin in 3")


def test_it_waits_for_other_jobs(queue: Queue, pq: PQ) -> None:
    first, second, third = pq["b"].put(1), pq["b"].put(2), pq["b"].put(3)
    id = queue.put(0, after=[first, second, third])
    take(pq["b"]).done()
    take(pq["b"])
    assert codes(queue, id) == ["follows"]
    assert text(queue, id, "follows") == f"it waits for 2 of 3 jobs: {second} (running), {third} (ready)"


def test_a_job_that_it_follows_was_cancelled(queue: Queue, pq: PQ) -> None:
    first = pq["b"].put(1)
    id = queue.put(0, after=After([first], on_failed="hold"))
    pq["b"].cancel(first)
    assert "stopped" in codes(queue, id)


def test_a_session_has_it_in_a_transaction(queue: Queue, pq: PQ, connect: Callable[..., Any]) -> None:
    id = queue.put(0)
    conn = connect(application_name="a program")
    other = PQ(conn)["a"]
    with other:
        assert other.get(block=False) is not None
        pid = conn.info.backend_pid
        assert codes(queue, id) == ["locked"]
        found = text(queue, id, "locked")
        assert found.startswith(f"session {pid}, application 'a program' has it in a transaction that is open since ")
        assert found.endswith(f"it is idle in transaction; to end it: select pg_terminate_backend({pid})")
    assert codes(queue, id) == ["finished"]


def test_no_worker_has_its_task(queue: Queue, pq: PQ) -> None:
    id = queue.put({"function": "nowhere.eat", "args": [], "kwargs": {}})
    Worker(pq, queues=["a"], burst=True, max_jobs=1).run()
    assert codes(queue, id) == ["task", "retry"]
    assert "Job handler `nowhere.eat`" in text(queue, id, "task")
    queue.reschedule(id, None)
    assert codes(queue, id) == ["task", "unheard"], "also while it is ready again"


def test_it_is_dead(queue: Queue) -> None:
    id = queue.put(0)
    take(queue).fail(ValueError("rotten"))
    assert codes(queue, id) == ["dead"]
    assert text(queue, id, "dead").endswith("after 1 attempt: ValueError: rotten")


def test_it_has_ended(queue: Queue) -> None:
    done, taken, cancelled = (queue.put(n) for n in range(3))
    take(queue).done()
    queue.get(block=False)
    queue.cancel(cancelled)
    assert text(queue, done, "finished").endswith(f" by worker {HOLDER}, after 1 attempt")
    assert text(queue, taken, "finished").endswith("Z, without a lease")
    assert codes(queue, cancelled) == ["cancelled"]


def test_there_is_no_such_job(queue: Queue, pq: PQ) -> None:
    id = pq["b"].put(1)
    with pytest.raises(JobNotFound):
        queue.why(id)
    with pytest.raises(TypeError):
        queue.why("1")  # type: ignore[arg-type]


@pytest.mark.parametrize("others", [1, 30], ids=["all", "looks"])
def test_a_locked_table_is_given_up_within_a_second(
    queue: Queue, dsn: str, connect: Callable[..., Any], others: float
) -> None:
    id = queue.put(0)
    with PQ(dsn, statement_timeout=others) as brief:
        conn = connect()
        conn.cursor().execute("lock table queue in access exclusive mode")
        with pytest.raises(StatementTimeout, match="Another session has locked a table"):
            brief["a"].why(id)
        with pytest.raises(StatementTimeout, match="Another session has locked a table"):
            brief.overview()
        conn.rollback()
        assert codes(brief["a"], id) == ["unheard"]
