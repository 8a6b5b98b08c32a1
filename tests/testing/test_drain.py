"""`pq.testing.drain`, in a transaction that is rolled back, and by itself."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta

import pytest
from support.driver import driver

from pq import PQ, After, Discard, Limit, NewJob, Retry, Schedule, Unique
from pq.errors import DecodeError
from pq.tasks import current
from pq.testing import advance, drain


@pytest.fixture(params=["transaction", "committed"])
def conn(request, pq: PQ, dsn: str):
    """Where the test's transaction is open; None: each step is committed."""
    if request.param == "committed":
        yield None
        return
    with closing(driver.connect(dsn)) as conn:
        yield conn
        conn.rollback()
    assert list(pq) == [], "the transaction of the test was not the only one that wrote"


@pytest.fixture()
def own(pq: PQ, dsn: str):
    """A transaction, for what exists only there."""
    with closing(driver.connect(dsn)) as conn:
        yield conn
        conn.rollback()


def outcomes(performed):
    return [(each.task, each.attempt, each.outcome) for each in performed]


def test_jobs_are_performed_and_those_that_they_put(pq, conn):
    done = []

    @pq["a"].task(name="first")
    def first(id, n):
        done.append(("first", n))
        second(n + 1)

    @pq["b"].task(name="second")
    def second(id, n):
        done.append(("second", n))

    first(1, _conn=conn)
    performed = drain(pq, conn)
    assert done == [("first", 1), ("second", 2)]
    assert outcomes(performed) == [("first", 1, "done"), ("second", 1, "done")]
    assert drain(pq, conn) == []


def test_what_a_task_writes_is_in_the_transaction_of_the_test(pq, own):
    @pq["a"].task(name="write", transactional=True)
    def write(id):
        current().cursor.execute("create table written as select 1 as n")

    write(_conn=own)
    drain(pq, own)
    with own.cursor() as cursor:
        cursor.execute("select n from written")
        assert cursor.fetchall() == [(1,)]


def test_the_first_error_is_raised_and_the_attempt_counts(pq, conn):
    @pq["a"].task(name="fail")
    def fail(id):
        raise ValueError("no")

    id = fail(_conn=conn)
    with pytest.raises(ValueError, match=r"^no$"):
        drain(pq, conn)
    with pq.using(conn):
        assert pq["a"][id].state == "dead"


def test_errors_are_listed(pq, conn):
    @pq["a"].task(name="fail", max_retries=1, retry_in="1h")
    def fail(id):
        raise ValueError("no")

    fail(_conn=conn)
    performed = drain(pq, conn, raises=False)
    assert outcomes(performed) == [("fail", 1, "retry")]
    assert isinstance(performed[0].error, ValueError)


@pytest.mark.parametrize("error", [SystemExit, GeneratorExit])
@pytest.mark.parametrize("transactional", [False, True])
def test_sys_exit_is_a_failed_attempt_as_in_a_worker(pq, conn, error, transactional):
    @pq["a"].task(name="leave", max_retries=1, retry_in="1h", transactional=transactional)
    def leave(id):
        raise error

    leave(_conn=conn)
    performed = drain(pq, conn, raises=False, until="1h")
    assert outcomes(performed) == [("leave", 1, "retry"), ("leave", 2, "dead")]
    assert [type(each.error) for each in performed] == [error, error]
    leave(_conn=conn)
    with pytest.raises(error):
        drain(pq, conn)
    assert outcomes(drain(pq, conn, raises=False, until="1h")) == [("leave", 2, "dead")]
    if conn is None:
        pq.reset(force=True)


@pytest.mark.parametrize("decision", [Retry("0s"), Discard("no")])
def test_decisions_are_no_errors(pq, conn, decision):
    tries = []

    @pq["a"].task(name="decide")
    def decide(id):
        tries.append(id)
        if len(tries) == 1:
            raise decision

    decide(_conn=conn)
    drain(pq, conn)
    assert len(tries) == (2 if isinstance(decision, Retry) else 1)


@pytest.mark.parametrize("transactional", [False, True])
def test_an_error_of_sql_leaves_the_transaction_usable(pq, own, transactional):
    @pq["a"].task(name="fail", transactional=transactional)
    def fail(id):
        with own.cursor() as cursor:
            cursor.execute("select 1 / 0")

    id = fail(_conn=own)
    performed = drain(pq, own, raises=False)
    assert outcomes(performed) == [("fail", 1, "dead")]
    with pq.using(own):
        assert pq["a"][id].state == "dead"


def test_the_clock_is_turned_as_far_as_asked(pq, own):
    done = []

    @pq["a"].task(name="late")
    def late(id, name):
        done.append(name)

    late("3h", _schedule_at="3h", _conn=own)
    late("1h", _schedule_at="1h", _conn=own)
    late("2h", _schedule_at="2h", _conn=own)
    assert drain(pq, own) == []
    drain(pq, own, until="2h")
    assert done == ["1h", "2h"]
    drain(pq, own, until="59m")
    assert done == ["1h", "2h"]
    drain(pq, own, until="2m")
    assert done == ["1h", "2h", "3h"]


def test_retries_come_in_time(pq, own):
    done = []

    @pq["a"].task(name="fail", max_retries=3, retry_in="10m")
    def fail(id):
        done.append(current().attempts)
        raise ValueError

    fail(_conn=own)
    performed = drain(pq, own, until="25m", raises=False)
    assert done == [1, 2, 3]
    performed += drain(pq, own, until="25m", raises=False)
    assert outcomes(performed)[-1] == ("fail", 4, "dead")


def test_schedules_fire_by_the_clock_that_was_turned(pq, own):
    done = []

    @pq["a"].task(name="nightly")
    def nightly(id):
        done.append(id)

    with pq.using(own):
        pq.schedules["nightly"] = Schedule(pq["a"], nightly.new_job().data, every="24h")
    drain(pq, own, until="23h")
    assert len(done) == 0
    drain(pq, own, until="2h")
    assert len(done) == 1
    drain(pq, own, until="3d")
    assert len(done) == 4
    assert list(pq.schedules) == []


def test_a_cron_schedule_fires_once_a_day(pq, own):
    done = []

    @pq["a"].task(name="nightly")
    def nightly(id):
        done.append(id)

    with pq.using(own):
        pq.schedules["nightly"] = Schedule(pq["a"], nightly.new_job().data, cron="0 3 * * *")
    for _ in range(3):
        drain(pq, own, until="24h")
    assert len(done) == 3


def test_keys_of_many_jobs_keep_their_order(pq, conn):
    done = []

    @pq["a"].task(name="keyed", key=lambda n: f"k{n % 100}")
    def keyed(id, n):
        done.append(n)

    pq["a"].put_many([keyed.new_job(n) for n in range(300)], conn=conn)
    drain(pq, conn)
    assert sorted(done) == list(range(300))
    for key in range(100):
        assert [n for n in done if n % 100 == key] == [key, key + 100, key + 200]


def test_followers_run_after_their_parents(pq, conn):
    done = []

    @pq["a"].task(name="note")
    def note(id, what):
        done.append(what)

    with pq.using(conn):
        parents = [note("parent"), note("parent")]
        note("follower", _after=After(parents))
    drain(pq, conn)
    assert done == ["parent", "parent", "follower"]


def test_limits_are_kept(pq, conn):
    done = []

    @pq["a"].task(name="note")
    def note(id, n):
        done.append(n)

    with pq.using(conn):
        pq.limits["a"] = Limit(running=1)
        for n in range(5):
            note(n)
    drain(pq, conn)
    assert done == [0, 1, 2, 3, 4]
    if conn is None:
        del pq.limits["a"]


@pytest.mark.parametrize("committed", [True, False])
def test_tokens_of_a_rate_come_back_by_the_clock(pq, dsn, committed):
    done = []

    @pq["a"].task(name="note")
    def note(id, n):
        done.append(n)

    if committed:
        pq.limits["a"] = Limit(rate="2/m")
    for _ in range(2):  # a transaction that is rolled back leaves no token taken
        done.clear()
        with closing(driver.connect(dsn)) as own, pq.using(own):
            if not committed:
                pq.limits["a"] = Limit(rate="2/m")
            for n in range(7):
                note(n)
            counts = []
            for until in (None, "61s", "2m"):
                drain(pq, until=until)
                counts.append(len(done))
            assert counts == [2, 4, 7]
            assert done == list(range(7))
            own.rollback()


def test_tokens_of_a_window_end_by_the_clock(pq, own):
    with pq.using(own):
        token = Unique("t", window="1h")
        assert pq["a"].put(1, unique=token).created
        assert not pq["a"].put(1, unique=token).created
        advance(pq, "61m", own)
        assert pq["a"].put(1, unique=token).created


def test_steps_are_done_once(pq, own):
    done = []

    @pq["a"].task(name="steps", max_retries=1, retry_in="0s")
    def steps(id):
        current().step("one", lambda: done.append("one"))
        if current().attempts == 1:
            raise ValueError
        current().step("two", lambda: done.append("two"))

    steps(_conn=own)
    drain(pq, own, raises=False)
    assert done == ["one", "two"]


def test_events_of_the_transaction_are_performed(pq, own):
    done = []
    stream = pq.streams["orders"]
    stream.create()

    @stream.on("paid", subscription="billing", start="beginning")
    def paid(event):
        done.append(event.data)

    with pq.using(own):
        stream.publish(1, type="paid")
        stream.publish(2, type="other")
        drain(pq, own)
        stream.publish(3, type="paid")
        drain(pq, own)
    assert done == [1, 3]
    assert drain(pq, own) == []


def test_events_that_are_committed_are_performed_without_a_transaction(pq):
    done = []
    stream = pq.streams["orders"]
    stream.create()

    @stream.on(subscription="billing", start="beginning")
    def any(event):
        done.append(event.data)

    stream.publish(1)
    drain(pq)
    assert done == [1]


def test_a_stream_that_is_not_there_is_no_error(pq, own):
    @pq.streams["none"].on(subscription="billing")
    def any(event):
        raise AssertionError

    assert drain(pq, own) == []


def test_a_job_that_goes_on_for_ever_is_stopped(pq, own):
    @pq["a"].task(name="again")
    def again(id):
        again()

    again(_conn=own)
    with pytest.raises(AssertionError, match="20 attempts"):
        drain(pq, own, limit=20)


@pytest.mark.parametrize("raises", [False, True])
def test_what_can_not_be_decoded(pq, conn, raises):
    queue = pq["a/pickle"]
    queue.task(name="note")(lambda id: None)
    with pq.using(conn):
        id = pq["a"].put("no pickle")
    if raises:
        with pytest.raises(DecodeError):
            drain(pq, conn, queues=[queue])
    else:
        performed = drain(pq, conn, queues=[queue], until="1d", raises=False)
        assert {(each.id, each.task, type(each.error)) for each in performed} == {(id, "?", DecodeError)}
        assert performed[-1].outcome == "dead"
    with pq.using(conn):
        pq["a"].clear()


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"until": "-1h"}, ValueError, "until"),
        ({"until": "0s"}, ValueError, "until must be positive"),
        ({"until": [3]}, TypeError, "until"),
        ({"limit": 0}, ValueError, "limit"),
        ({"queues": "a"}, TypeError, "queues must be a list"),
        ({"conn": "postgresql://"}, TypeError, "not a connection|no connection|connection"),
        ({"queues": []}, ValueError, "no queue"),
    ],
)
def test_bad_arguments(pq, own, arguments, error, text):
    @pq["a"].task(name="note")
    def note(id):
        raise AssertionError

    note(_conn=own)
    with pytest.raises(error, match=text):
        drain(pq, **{"conn": own, **arguments})
    with pq.using(own):
        assert pq["a"].count("ready") == 1


def test_a_bound_pq_needs_no_connection(pq, own):
    with pq.using(own):
        pq["a"].put(1, "1h")
    bound = pq.bind(own)
    advance(bound, "61m")
    assert bound["a"].count("ready") == 1
    with bound.using(None):
        assert bound["a"].count("ready") == 1


def test_advance_refuses_what_is_no_time(pq, own):
    with pytest.raises(ValueError, match="by must be positive"):
        advance(pq, timedelta(0), own)
    with pytest.raises(TypeError, match="by must be"):
        advance(pq, [3], own)


def test_put_many_of_new_jobs(pq, conn):
    done = []

    @pq["a"].task(name="note")
    def note(id, n):
        done.append(n)

    pq["a"].put_many([NewJob(note.new_job(n).data, schedule_at="1ms") for n in range(3)], conn=conn)
    drain(pq, conn, until="1s")
    assert sorted(done) == [0, 1, 2]
