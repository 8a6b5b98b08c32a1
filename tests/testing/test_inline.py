"""`pq.testing.inline`, and what `assert_put` says."""

from __future__ import annotations

from contextlib import closing

import pytest
from support.driver import driver

from pq import PQ
from pq.testing import assert_not_put, assert_put, drain, inline


@pytest.fixture()
def own(dsn: str, pq: PQ):
    with closing(driver.connect(dsn)) as conn:
        yield conn
        conn.rollback()


@pytest.mark.parametrize("how", ["call", "put_many", "load", "conn"])
def test_a_put_performs_the_job(pq, own, how):
    done = []

    @pq["a"].task(name="note")
    def note(id, n):
        done.append(n)
        if n == 0:
            note(1)
            done.append("behind the put")  # what a task puts is not performed inside of it

    with inline(pq, own) as performed:
        if how == "call":
            note(0)
        elif how == "put_many":
            note.put_many([[0]])
        elif how == "load":
            note.load([[0]])
        else:
            note(0, _conn=own)
        assert done == [0, "behind the put", 1]
    assert [each.outcome for each in performed] == ["done", "done"]
    note(2, _conn=own)
    assert len(done) == 3, "the queue goes on as before"
    assert type(pq["a"]) is type(pq["b"])


def test_a_put_raises_the_error_of_the_task(pq, own):
    @pq["a"].task(name="fail")
    def fail(id):
        raise ValueError("no")

    with inline(pq, own), pytest.raises(ValueError, match=r"^no$"):
        fail()
    with inline(pq, own, raises=False) as performed:
        fail()
    assert [type(each.error) for each in performed] == [ValueError]


def test_what_is_not_due_is_left(pq, own):
    done = []

    @pq["a"].task(name="note")
    def note(id):
        done.append(id)

    with inline(pq, own):
        note(_schedule_at="1h")
    assert done == []
    drain(pq, own, until="1h")
    assert len(done) == 1


def test_puts_are_found(pq, own):
    @pq["a"].task(name="mail")
    def mail(id, to, subject="hello"):
        pass

    mail("ann", _conn=own)
    mail("bob", subject="bye", _schedule_at="1h", _conn=own)
    pq["b"].put({"x": 1}, conn=own)
    assert [job.state for job in assert_put(mail, count=2, conn=own)] == ["ready", "scheduled"]
    assert_put(mail, {"to": "ann"}, conn=own)
    assert_put(mail, {"subject": "bye"}, conn=own)
    assert_put(mail, {"to": "ann", "subject": "hello"}, conn=own)
    assert_put(pq["b"], {"x": 1}, conn=own)
    assert_not_put(mail, {"to": "eve"}, conn=own)
    assert_not_put(mail)


def test_the_message_says_what_is_there(pq):
    pq["b"].put({"x": 1})
    with pytest.raises(AssertionError, match=r"0 instead of 1: job with \{'x': 2\} in queue 'b', which has 1"):
        assert_put(pq["b"], {"x": 2})
    with pytest.raises(AssertionError, match=r"1 instead of 0: job in queue 'b'"):
        assert_not_put(pq["b"])


def test_what_has_ended_does_not_count(pq):
    pq["b"].put(1)
    pq["b"].get()
    assert_not_put(pq["b"])


@pytest.mark.parametrize("target", [None, "b", print])
def test_a_target_is_a_queue_or_a_task(pq, target):
    with pytest.raises(TypeError, match="a queue or a task is needed"):
        assert_put(target)
