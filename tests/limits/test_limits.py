"""`PQ.limits`: the mapping, what is stored, and what changes while programs run."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from support import PATIENCE, Background
from support.kinds import ALL, make_pq

from pq import PQ, Limit

Sql = Callable[..., list[tuple[Any, ...]]]


def take(pq: PQ, name: str, n: int = 100) -> list[Any]:
    return pq[name].get_many(n, timeout=0, lease="1h")


class TestMapping:
    def test_it_is_a_mapping(self, pq: PQ) -> None:
        assert (dict(pq.limits), len(pq.limits), "mails" in pq.limits) == ({}, 0, False)
        mails = pq.limits["mails"] = Limit(running=10, rate="100/m", per_key=3, on_retry="pass", on_dead="stop")
        stripe = pq.limits["stripe"] = Limit(queues=["a", "b"], running=5)
        assert dict(pq.limits) == {"mails": mails, "stripe": stripe}
        assert (pq.limits["mails"], "mails" in pq.limits, len(pq.limits)) == (mails, True, 2)
        assert {mails: 1}[pq.limits["mails"]] == 1
        del pq.limits["mails"]
        assert (list(pq.limits), pq.limits.get("mails")) == (["stripe"], None)

    @pytest.mark.parametrize("name", ["mails", "", "\0", 7])
    def test_there_is_none(self, pq: PQ, name: Any) -> None:
        with pytest.raises(KeyError):
            pq.limits[name]
        with pytest.raises(KeyError):
            del pq.limits[name]
        assert name not in pq.limits

    @pytest.mark.parametrize(
        "rate", ["100/m", "5/s", "1/30s", "7/90m", "2/d", "10/36h", "3/250ms", "10000/s", "1/366d"]
    )
    def test_a_rate_is_returned_as_it_was_given(self, pq: PQ, rate: str) -> None:
        pq.limits["a"] = Limit(rate=rate)
        assert pq.limits["a"].rate == rate

    def test_more_tokens_than_there_may_be_are_spread(self, pq: PQ) -> None:
        pq.limits["a"] = Limit(rate="600000/m")
        assert pq.limits["a"].rate == "10000/s"
        pq.limits["a"] = Limit(rate="25000/s")
        number, period = pq.limits["a"].rate.split("/")  # type: ignore[union-attr]
        assert int(number) <= 10_000
        assert int(number) / int(period.removesuffix("ms")) * 1000 <= 25_000

    @pytest.mark.parametrize("kind", ALL)
    def test_on_each_kind_of_connection(self, dsn: str, kind: str) -> None:
        with make_pq(kind, dsn) as pq:
            pq.limits["%s"] = Limit(running=1, queues=["%s", 'a"b', "c,d"])
            pq["c,d"].put(1)
            pq["%s"].put(2)
            assert [job.data for job in take(pq, "c,d")] == [1]
            assert take(pq, "%s") == []
            assert pq.limits["%s"].queues == ("%s", 'a"b', "c,d")

    def test_in_a_transaction_of_the_application(self, pq: PQ, connect: Callable[..., Any]) -> None:
        conn = connect()
        pq.bind(conn).limits["a"] = Limit(running=1)
        assert "a" not in pq.limits
        conn.rollback()
        pq["a"].put_many([1, 2])
        assert len(take(pq, "a")) == 2
        pq.bind(conn).limits["a"] = Limit(running=1)
        conn.commit()
        assert "a" in pq.limits
        pq["a"].put(3)
        assert take(pq, "a") == []  # the two still run

    def test_limits_survive_clear_and_reset(self, pq: PQ) -> None:
        pq.limits["a"] = Limit(running=1)
        pq["a"].put_many([1, 2])
        for empty in (pq["a"].clear, lambda: pq.reset(force=True)):
            empty()
            pq["a"].put_many([1, 2])
            (job,) = take(pq, "a")
            job.done()

    def test_drop_and_create(self, pq: PQ) -> None:
        pq.limits["a"] = Limit(running=1)
        pq.drop(force=True)
        pq.create()
        assert dict(pq.limits) == {}
        pq["a"].put_many([1, 2])
        assert len(take(pq, "a")) == 2


BAD = [
    ({}, ValueError, "a limit needs running, rate, per_key, on_retry or on_dead"),
    ({"queues": ["a"]}, ValueError, "a limit needs"),
    ({"running": 0}, ValueError, "running must be at least 1: 0"),
    ({"running": 10_001}, ValueError, "running must be at most 10,000: 10001"),
    ({"running": "5"}, TypeError, "running must be an int, not str: '5'"),
    ({"running": True}, TypeError, "running must be an int, not bool"),
    ({"per_key": 0}, ValueError, "per_key must be at least 1: 0"),
    ({"per_key": 1.5}, TypeError, "per_key must be an int, not float"),
    ({"rate": "ten"}, ValueError, "rate must be a number of at least 1 and a period, such as '100/m', .* not 'ten'"),
    ({"rate": "0/m"}, ValueError, "rate must be a number of at least 1"),
    ({"rate": "-1/m"}, ValueError, "rate must be a number of at least 1"),
    ({"rate": "1/0s"}, ValueError, "the period of rate must be from 1ms to 366d, not '1/0s'"),
    ({"rate": "1/367d"}, ValueError, "the period of rate must be from 1ms to 366d"),
    ({"rate": "1/w"}, ValueError, "rate must be"),
    ({"rate": "1/m\n"}, ValueError, "rate must be"),
    ({"rate": "\u0661/m"}, ValueError, "rate must be"),
    ({"rate": "999999999999/ms"}, ValueError, "rate must be at most 10,000 in a millisecond, not"),
    ({"rate": "9" * 5000 + "/m"}, ValueError, "rate must be"),
    ({"rate": 5}, TypeError, "rate must be a str such as '100/m', not int: 5"),
    ({"rate": timedelta(1)}, TypeError, "rate must be a str"),
    ({"running": 1, "on_retry": "next"}, ValueError, "on_retry must be one of 'hold', 'pass', not 'next'"),
    ({"running": 1, "on_dead": "hold"}, ValueError, "on_dead must be one of 'next', 'stop', not 'hold'"),
    ({"running": 1, "on_dead": []}, TypeError, "on_dead must be a str, not list"),
    ({"running": 1, "queues": "ab"}, TypeError, "queues must be a list of names, not str: 'ab'"),
    ({"running": 1, "queues": 5}, TypeError, "queues must be a list of names, not int"),
    ({"running": 1, "queues": [1]}, TypeError, "a queue's name must be a str, not int"),
    ({"running": 1, "queues": [""]}, ValueError, "a queue's name must not be empty"),
    ({"running": 1, "queues": []}, ValueError, "queues must name at least one queue"),
    ({"running": 1, "per_key": 2, "queues": ["a"]}, TypeError, "per_key is for the jobs of one queue"),
    ({"on_dead": "stop", "queues": ["a"]}, TypeError, "on_dead is for the jobs of one queue"),
]


@pytest.mark.parametrize(("given", "error", "message"), BAD)
def test_bad_limits(given: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Limit(**given)


@pytest.mark.parametrize(
    ("name", "limit", "error"),
    [
        ("", Limit(running=1), ValueError),
        ("a\0", Limit(running=1), ValueError),
        ("\ud800", Limit(running=1), ValueError),
        ("a" * 3000, Limit(running=1), ValueError),
        (7, Limit(running=1), TypeError),
        ("a", None, TypeError),
        ("a", 5, TypeError),
        ("a", {"running": 1}, TypeError),
    ],
)
def test_what_is_not_stored(pq: PQ, name: Any, limit: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        pq.limits[name] = limit
    assert dict(pq.limits) == {}
    pq.limits["b"] = Limit(running=1)


@pytest.mark.parametrize("name", ["", "a\0", "\ud800", 7, None])
def test_names_that_no_limit_has(pq: PQ, name: Any) -> None:
    assert name not in pq.limits
    with pytest.raises(KeyError):
        pq.limits[name]
    with pytest.raises(KeyError):
        del pq.limits[name]


class TestMarker:
    """A limited queue has a row that is no job."""

    def test_it_is_no_job(self, pq: PQ) -> None:
        pq.limits["a"] = Limit(running=1)
        queue = pq["a"]
        assert (list(pq), "a" in pq, pq.queues(), len(queue)) == ([], False, [], 0)
        assert (queue.count(), sum(queue.counts().values()), queue.list(), queue.paused) == (0, 0, [], False)
        pq.drop()  # nothing is left to be refused

    def test_a_pause_is_another_one(self, pq: PQ) -> None:
        queue = pq["a"]
        queue.put(1)
        queue.pause()
        pq.limits["a"] = Limit(running=1)
        assert (queue.paused, take(pq, "a")) == (True, [])
        del pq.limits["a"]
        assert (queue.paused, take(pq, "a")) == (True, [])
        pq.limits["a"] = Limit(running=1)
        queue.resume()
        queue.put(2)
        assert (queue.paused, len(take(pq, "a"))) == (False, 1)

    def test_it_goes_with_the_last_limit_of_the_queue(self, pq: PQ, sql: Sql) -> None:
        markers = "select q_name from queue order by 1"
        pq.limits["x"] = Limit(running=1, queues=["a", "b"])
        pq.limits["y"] = Limit(rate="1/d", queues=["b", "c"])
        assert sql(markers) == [("a",), ("b",), ("c",)]
        pq.limits["x"] = Limit(running=1, queues=["a"])
        assert sql(markers) == [("a",), ("b",), ("c",)]
        del pq.limits["y"]
        assert sql(markers) == [("a",)]
        pq.limits["x"] = Limit(per_key=2)
        assert sql(markers) == []
        assert sql("select * from queue_slots") == []


class TestChanges:
    def test_a_limit_that_is_raised_lets_more_run_at_once(self, pq: PQ) -> None:
        pq["a"].put_many(range(10))
        pq.limits["a"] = Limit(running=2)
        assert len(take(pq, "a")) == 2
        waits = Background(pq["a"].get, timeout=PATIENCE, lease="1h")
        pq.limits["a"] = Limit(running=5)
        assert waits.result() is not None
        assert len(take(pq, "a")) == 2

    @pytest.mark.parametrize("order", [1, -1])
    def test_a_limit_that_is_lowered_lets_none_begin_until_enough_have_ended(self, pq: PQ, order: int) -> None:
        pq["a"].put_many(range(20))
        pq.limits["a"] = Limit(running=6)
        jobs = take(pq, "a")[::order]
        pq.limits["a"] = Limit(running=2)
        for count in range(5, 1, -1):
            assert take(pq, "a") == []
            jobs.pop().done()
            assert pq["a"].counts()["running"] == count
        assert take(pq, "a") == []
        jobs.pop().done()
        assert len(take(pq, "a")) == 1
        pq.limits["a"] = Limit(running=3)
        assert len(take(pq, "a")) == 1

    def test_in_a_block_too(self, pq: PQ) -> None:
        pq["a"].put_many(range(20))
        pq.limits["a"] = Limit(running=4)
        jobs = take(pq, "a")
        pq.limits["a"] = Limit(running=1)
        for job in jobs[:3]:
            job.done()
        with pq["a"]:
            assert pq["a"].get(timeout=0) is None
        jobs[3].done()
        with pq["a"]:
            assert pq["a"].get(timeout=0) is not None

    def test_jobs_that_run_already_count(self, pq: PQ) -> None:
        pq["a"].put_many(range(10))
        jobs = take(pq, "a", 3)
        pq.limits["a"] = Limit(running=2)
        assert take(pq, "a") == []
        jobs[0].done()
        assert take(pq, "a") == []
        jobs[1].done()
        assert len(take(pq, "a")) == 1

    def test_without_it_all_run(self, pq: PQ) -> None:
        pq["a"].put_many(range(10))
        pq.limits["a"] = Limit(running=1)
        assert len(take(pq, "a")) == 1
        waits = Background(pq["a"].get_many, 5, timeout=PATIENCE, lease="1h")
        del pq.limits["a"]
        assert len(waits.result()) == 5

    def test_more_of_a_key(self, pq: PQ) -> None:
        for number in range(5):
            pq["a"].put(number, key="k")
        assert len(take(pq, "a")) == 1
        pq.limits["a"] = Limit(per_key=3)
        found: list[Any] = []
        while len(found) < 2:
            found += pq["a"].get_many(9, timeout=PATIENCE, lease="1h")
            assert found
        assert (len(found), pq["a"].get(timeout=1, lease="1h")) == (2, None)
