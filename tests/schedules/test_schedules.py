"""What is assigned to pq.schedules, and what of that is put."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import psycopg2.errors
import pytest
from support import Background, wait_until

import pq as package
from pq import PQ, Schedule, ScheduleInfo, ScheduleNotFound, Unique
from pq._schedules import Ticker, rules, ticker

Sql = Callable[..., list[tuple[Any, ...]]]

DAY = timedelta(days=1)


@pytest.fixture
def tick(pq: PQ) -> Ticker:
    return Ticker(pq._table)


def past(sql: Sql, name: str, ago: str) -> None:
    """Have a schedule be due since then."""
    sql(
        "update queue_schedules set next_at = date_trunc('milliseconds', now() - %s::interval),"
        " anchor = date_trunc('milliseconds', now() - %s::interval) where name = %s",
        (ago, ago, name),
    )


def put(pq: PQ) -> list[Any]:
    """The data of all jobs."""
    return [job.data for job in pq["q"].list()]


class TestTheMapping:
    def test_what_is_stored(self, pq: PQ) -> None:
        unique = Unique("t", until="done")
        pq.schedules["nightly"] = Schedule(
            pq["q"], {"a": 1}, cron=" 0  3 * * * ", zone="Europe/Berlin", missed="all", jitter="10m", key="k",
            unique=unique,
        )  # fmt: skip
        found = pq.schedules["nightly"]
        assert isinstance(found, ScheduleInfo)
        assert (found.name, found.queue, found.rule, found.zone) == ("nightly", "q", "cron 0 3 * * *", "Europe/Berlin")
        assert (found.missed, found.jitter, found.key, found.unique) == ("all", timedelta(minutes=10), "k", unique)
        assert (found.data, found.text) == ({"a": 1}, '{"a": 1}')
        assert (found.paused, found.declared, found.last_at, found.last_job, found.error) == (False,) + (None,) * 4
        assert found.next_at is not None
        local = found.next_at.replace(tzinfo=timezone.utc).astimezone(rules.zone_of("Europe/Berlin"))
        assert (local.hour, local.minute, local.second) == (3, 0, 0)
        assert timedelta() < found.next_at - datetime.now(timezone.utc).replace(tzinfo=None) < DAY + timedelta(hours=1)

    def test_names(self, pq: PQ) -> None:
        assert (list(pq.schedules), len(pq.schedules), "b" in pq.schedules) == ([], 0, False)
        for name in ("b", "a", "B"):
            pq.schedules[name] = Schedule("q", name, every="1h")
        assert (list(pq.schedules), len(pq.schedules), "b" in pq.schedules) == (["B", "a", "b"], 3, True)
        assert [schedule.data for schedule in pq.schedules.list()] == ["B", "a", "b"]
        assert 7 not in pq.schedules and "" not in pq.schedules and "c" not in pq.schedules
        del pq.schedules["a"]
        assert list(pq.schedules) == ["B", "b"]

    def test_there_is_none(self, pq: PQ, sql: Sql) -> None:
        pq.schedules["x"] = Schedule("q", 1, every="1h")
        found = pq.schedules["x"]
        del pq.schedules["x"]
        by_name = (lambda: pq.schedules["x"], lambda: pq.schedules.__delitem__("x"))
        for use in (found.pause, found.resume, found.fire, *by_name):
            with pytest.raises(ScheduleNotFound, match="There is no schedule 'x'") as caught:
                use()
            assert isinstance(caught.value, LookupError) and caught.value.schedule == "x"
        assert pq["q"].list() == []

    @pytest.mark.parametrize(
        ("name", "given", "kind", "message"),
        [
            ("", Schedule("q", 1, every="1h"), ValueError, "the name of a schedule must not be empty"),
            (3, Schedule("q", 1, every="1h"), TypeError, "the name of a schedule must be a str"),
            ("x" * 501, Schedule("q", 1, every="1h"), ValueError, "at most 500 bytes"),
            ("x", {"cron": "0 3 * * *"}, TypeError, "is a pq.Schedule, not dict"),
            ("x", Schedule(7, 1, every="1h"), TypeError, "queue must be a queue or the name of one, not int"),
            ("x", Schedule("", 1, every="1h"), ValueError, "queue name must not be empty"),
            ("x", Schedule("q", float("nan"), every="1h"), ValueError, "NaN"),
            ("x", Schedule("q", object(), every="1h"), TypeError, "not JSON serializable"),
            ("x", Schedule("q", 1, cron="61 * * * *"), ValueError, "Bad minute"),
            ("x", Schedule("q", 1, rrule="FREQ=DAILY;UNTIL=20200101"), ValueError, "would never fire"),
            ("x", Schedule("q", 1, every="1h", unique=Unique("t", window="1h")), ValueError, "has until="),
            ("x", Schedule("q", 1, every="1h", unique=Unique("t", on_duplicate="error")), ValueError, "'keep'"),
        ],
    )  # fmt: skip
    def test_nothing_is_stored_that_is_wrong(
        self, pq: PQ, name: Any, given: Any, kind: type[Exception], message: str
    ) -> None:
        pq.schedules["before"] = Schedule("q", 1, every="1h")
        with pytest.raises(kind, match=message):
            pq.schedules[name] = given
        assert list(pq.schedules) == ["before"]

    def test_a_queue_of_another_pq(self, pq: PQ, dsn: str) -> None:
        with PQ(dsn) as other, pytest.raises(ValueError, match="is a queue of another PQ"):
            pq.schedules["x"] = Schedule(other["q"], 1, every="1h")

    def test_the_queue_encodes(self, dsn: str) -> None:
        with PQ(dsn, encode=lambda data: '"coded"') as pq:
            pq.schedules["x"] = Schedule("q", object(), every="1h")
            pq.schedules["x"].fire()
            assert pq["q"].list()[0].text == '"coded"'

    def test_in_a_transaction_of_the_application(
        self, pq: PQ, connect: Callable[..., Any], tick: Ticker, sql: Sql
    ) -> None:
        conn = connect()
        view = pq.bind(conn)
        view.schedules["x"] = Schedule("q", 1, every="1h")
        assert "x" in view.schedules and "x" not in pq.schedules
        conn.rollback()
        assert "x" not in pq.schedules
        view.schedules["x"] = Schedule(view["q"], 1, every="1h")
        conn.commit()
        past(sql, "x", "1 s")
        view.schedules["x"].pause()
        tick.look()  # passes over what somebody else has locked, and waits for nothing
        conn.rollback()
        tick.look()
        assert put(pq) == [1]

    def test_data_that_cant_be_read_can_be_listed(self, pq: PQ) -> None:
        pq.schedules["x"] = Schedule("q/pickle", {1, 2}, every="1h")
        assert pq.schedules["x"].queue == "q"
        # a pickle is loaded only by a queue that is for pickles
        assert pq.schedules["x"].data.startswith("c__builtin__")
        pq.schedules["x"].fire()
        assert pq["q/pickle"].get().data == {1, 2}


class TestAssignedAgain:
    def test_the_same_rule_keeps_its_time(self, pq: PQ, sql: Sql) -> None:
        pq.schedules["x"] = Schedule("q", 1, every="1h")
        past(sql, "x", "5 min")
        before = pq.schedules["x"].next_at
        pq.schedules["x"] = Schedule("r", 2, every="60m", missed="skip", jitter="1s", key="k", unique="t")
        found = pq.schedules["x"]
        assert found.next_at == before
        assert (found.queue, found.data, found.missed, found.key, found.unique) == ("r", 2, "skip", "k", Unique("t"))

    @pytest.mark.parametrize(
        "new", [{"cron": "1 3 * * *", "zone": "UTC"}, {"cron": "0 3 * * *", "zone": "Asia/Tokyo"}, {"every": "1h"}]
    )
    def test_another_rule_or_zone_has_another_time(self, pq: PQ, sql: Sql, new: dict[str, str]) -> None:
        pq.schedules["x"] = Schedule("q", 1, cron="0 3 * * *")
        past(sql, "x", "5 min")
        ((now,),) = sql("select now() at time zone 'utc'")
        pq.schedules["x"] = Schedule("q", 1, **new)
        next_at = pq.schedules["x"].next_at
        assert next_at is not None and next_at > now

    def test_a_pause_stays(self, pq: PQ) -> None:
        pq.schedules["x"] = Schedule("q", 1, every="1h")
        pq.schedules["x"].pause()
        pq.schedules["x"] = Schedule("q", 1, every="2h")
        assert pq.schedules["x"].paused

    def test_an_interval_counts_from_where_it_began(self, pq: PQ, sql: Sql, tick: Ticker) -> None:
        pq.schedules["x"] = Schedule("q", 1, every="1h")
        past(sql, "x", "90 min")
        ((anchor,),) = sql("select anchor at time zone 'utc' from queue_schedules")
        tick.look()
        assert pq.schedules["x"].next_at == anchor + timedelta(hours=2)
        assert pq.schedules["x"].last_at == anchor + timedelta(hours=1)


class TestFired:
    def test_what_is_put(self, pq: PQ, sql: Sql, tick: Ticker) -> None:
        pq.schedules["x"] = Schedule("q", {"n": 1}, every="1h", key="k", unique=Unique("t", until="done"))
        past(sql, "x", "1 s")
        due = pq.schedules["x"].next_at
        tick.look()
        (job,) = pq["q"].list()
        assert (job.data, job.schedule_at, job.key) == ({"n": 1}, due, "k")
        assert sql("select unique_key, unique_until::text from queue") == [("t", "infinity")]
        found = pq.schedules["x"]
        assert (found.last_at, found.last_job) == (due, job.id)
        assert due is not None and found.next_at == due + timedelta(hours=1)
        tick.look()
        assert len(put(pq)) == 1

    def test_jobs_of_one_key_run_one_after_the_other(self, pq: PQ, sql: Sql, tick: Ticker) -> None:
        pq.schedules["x"] = Schedule("q", 1, every="1h", key="k", missed="all")
        past(sql, "x", "150 min")
        tick.look()
        first = pq["q"].get(lease="1h")
        assert first is not None and pq["q"].get(block=False) is None
        first.done()
        second = pq["q"].get(lease="1h", timeout=10)
        assert second is not None and second.id > first.id

    def test_whoever_waits_is_woken(self, pq: PQ, sql: Sql, tick: Ticker) -> None:
        pq.schedules["x"] = Schedule("q", 1, every="1h")
        getting = Background(pq["q"].get, True, 20)
        wait_until(lambda: sql("select 1 from pg_locks where locktype = 'advisory'"), "the wait")
        past(sql, "x", "1 s")
        tick.look()
        assert getting.result().data == 1

    @pytest.mark.parametrize(
        ("missed", "ago", "count"),
        [
            ("once", "1 s", 1), ("once", "30 min", 1), ("once", "10 days", 1),
            ("skip", "1 s", 1), ("skip", "30 min", 0), ("skip", "60 min 10 s", 1), ("skip", "10 days 90 s", 0),
            ("all", "1 s", 1), ("all", "30 min", 1), ("all", "10 days", 241), ("all", "2000 days", 1000),
        ],
    )  # fmt: skip
    def test_what_was_missed(self, pq: PQ, sql: Sql, tick: Ticker, missed: str, ago: str, count: int) -> None:
        pq.schedules["x"] = Schedule("q", 1, every="1h", missed=missed)
        past(sql, "x", ago)
        ((now, anchor),) = sql("select now() at time zone 'utc', anchor at time zone 'utc' from queue_schedules")
        tick.look()
        times = [row[0] for row in sql("select schedule_at at time zone 'utc' from queue order by schedule_at")]
        last = anchor + (now - anchor) // timedelta(hours=1) * timedelta(hours=1)
        assert times == [last - timedelta(hours=n) for n in reversed(range(count))]
        found = pq.schedules["x"]
        assert found.next_at == last + timedelta(hours=1)
        assert found.last_at == (last if count else None)

    def test_a_pause_and_its_end(self, pq: PQ, sql: Sql, tick: Ticker) -> None:
        pq.schedules["x"] = Schedule("q", 1, every="1h")
        past(sql, "x", "5 min")
        due = pq.schedules["x"].next_at
        pq.schedules["x"].pause()
        assert tick.look() == ticker.PAUSE
        assert (put(pq), pq.schedules["x"].next_at, pq.schedules["x"].paused) == ([], due, True)
        pq.schedules["x"].resume()
        tick.look()
        assert (put(pq), pq.schedules["x"].last_at, pq.schedules["x"].paused) == ([1], due, False)

    def test_by_hand(self, pq: PQ) -> None:
        pq.schedules["x"] = Schedule("q", 1, every="1h", jitter="1h")
        before = pq.schedules["x"]
        pq.schedules["x"].pause()
        id = pq.schedules["x"].fire()
        (job,) = pq["q"].list()
        assert (job.id, job.state, job.schedule_at) == (id, "ready", None)
        found = pq.schedules["x"]
        assert (found.last_job, found.next_at, found.paused) == (id, before.next_at, True)
        assert found.last_at is not None

    def test_the_end_of_a_rule(self, pq: PQ, sql: Sql, tick: Ticker) -> None:
        pq.schedules["x"] = Schedule("q", 1, rrule="FREQ=HOURLY;COUNT=1")
        past(sql, "x", "1 min")
        sql("update queue_schedules set anchor = date_trunc('second', anchor), next_at = date_trunc('second', next_at)")
        assert tick.look() == ticker.PAUSE
        assert (put(pq), pq.schedules["x"].next_at, pq.schedules["x"].error) == ([1], None, None)
        assert tick.look() == ticker.PAUSE
        assert put(pq) == [1]

    def test_jitter_is_bounded_and_always_the_same(self, pq: PQ, sql: Sql, tick: Ticker) -> None:
        for n in range(40):
            pq.schedules[f"x{n}"] = Schedule(f"q{n}", n, every="1h", jitter="10m")
        sql("update queue_schedules set next_at = date_trunc('hour', now()), anchor = date_trunc('hour', now())")
        tick.look()
        rows = sql("select data::text::int, schedule_at - date_trunc('hour', now()) from queue order by 1")
        delays = [delay for _, delay in rows]
        assert len(delays) == 40 and all(timedelta() <= delay < timedelta(minutes=10) for delay in delays)
        assert len(set(delays)) == 40
        assert min(delays) < timedelta(minutes=2) and max(delays) > timedelta(minutes=8)
        sql("update queue_schedules set next_at = last_at")
        sql("delete from queue")
        tick.look()
        again = sql("select data::text::int, schedule_at - date_trunc('hour', now()) from queue order by 1")
        assert again == rows

    def test_the_pause_is_until_the_next_one(self, pq: PQ, tick: Ticker) -> None:
        assert tick.look() == ticker.PAUSE
        pq.schedules["x"] = Schedule("q", 1, every="1h")
        assert tick.look() == ticker.PAUSE
        pq.schedules["y"] = Schedule("q", 1, every="5s")
        assert 3 < tick.look() < 5

    def test_more_than_one_look_reads(self, pq: PQ, sql: Sql, tick: Ticker, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ticker, "ROWS", 2)
        for n in range(5):
            pq.schedules[f"x{n}"] = Schedule("q", n, every="1h")
            past(sql, f"x{n}", f"{n + 1} s")
        assert [tick.look(), tick.look()] == [0, 0]
        assert tick.look() == ticker.PAUSE
        assert sorted(put(pq)) == [0, 1, 2, 3, 4]


class TestTokens:
    @pytest.mark.parametrize("until", ["started", "done"])
    def test_nothing_is_put_while_a_job_has_it(self, pq: PQ, sql: Sql, tick: Ticker, until: Any) -> None:
        pq.schedules["x"] = Schedule("q", 1, every="1h", unique=Unique("t", until=until))
        first = pq.schedules["x"].fire()
        assert first is not None and pq.schedules["x"].fire() is None
        past(sql, "x", "1 s")
        tick.look()
        found = pq.schedules["x"]
        assert (len(put(pq)), found.last_job) == (1, first)
        assert found.next_at is not None and found.last_at is not None  # this time is over
        job = pq["q"].get(lease="1h")
        assert job is not None
        assert (pq.schedules["x"].fire() is None) == (until == "done")
        job.done()
        if until == "done":
            assert pq.schedules["x"].fire() is not None

    def test_a_put_has_it_whose_window_is_over(self, pq: PQ, sql: Sql, tick: Ticker) -> None:
        pq["q"].put(0, unique=Unique("t", window="1h"))
        pq.schedules["x"] = Schedule("q", 1, every="1h", unique="t")
        assert pq.schedules["x"].fire() is None
        sql("update queue set unique_until = now() - interval '1 s' where unique_key = 't'")
        assert pq.schedules["x"].fire() is not None
        sql("delete from queue where data::text = '1'")
        sql("update queue set unique_key = 't', unique_until = now() - interval '1 s'")
        past(sql, "x", "1 s")
        tick.look()
        assert put(pq) == [0, 1]

    def test_all_that_was_missed_is_one(self, pq: PQ, sql: Sql, tick: Ticker) -> None:
        pq.schedules["x"] = Schedule("q", 1, every="1h", missed="all", unique=True)
        past(sql, "x", "1 day")
        tick.look()
        assert len(put(pq)) == 1

    def test_true_is_the_token_of_the_data(self, pq: PQ) -> None:
        pq.schedules["x"] = Schedule("q", {"a": 1, "b": 2}, every="1h", unique=True)
        id = pq["q"].put({"b": 2, "a": 1}, unique=True)
        assert pq.schedules["x"].fire() is None
        assert [job.id for job in pq["q"].list()] == [id]


class TestErrors:
    """One schedule that can't be fired stops no other."""

    @pytest.fixture(autouse=True)
    def others(self, pq: PQ, sql: Sql) -> None:
        for name in ("a", "b", "c"):
            pq.schedules[name] = Schedule("q", name, every="1h")
        for name, ago in (("a", "3 s"), ("b", "2 s"), ("c", "1 s")):
            past(sql, name, ago)

    @pytest.mark.parametrize(
        ("column", "value"),
        [("rule", "cron 61 * * * *"), ("rule", "nonsense"), ("rule", "every"), ("rule", "rrule FREQ=DAYLY")],
    )
    def test_a_rule_that_cant_be_evaluated_is_paused(
        self, pq: PQ, sql: Sql, tick: Ticker, column: str, value: str
    ) -> None:
        sql(f"update queue_schedules set {column} = %s where name = 'b'", (value,))
        tick.look()
        found = pq.schedules["b"]
        assert sorted(put(pq)) == ["a", "c"]
        assert found.paused and found.error and found.next_at is not None
        assert not any(pq.schedules[name].error or pq.schedules[name].paused for name in "ac")
        pq.schedules["b"] = Schedule("q", "b", every="1h")  # what was put right is no longer paused
        assert (pq.schedules["b"].paused, pq.schedules["b"].error) == (False, None)

    @pytest.mark.parametrize(
        ("column", "value"), [("next_at", "infinity"), ("anchor", "-infinity"), ("jitter", "NaN"), ("missed", "never")]
    )
    def test_what_can_be_no_schedule_is_refused_by_the_table(self, pq: PQ, sql: Sql, column: str, value: str) -> None:
        with pytest.raises(psycopg2.errors.CheckViolation):
            sql(f"update queue_schedules set {column} = %s where name = 'b'", (value,))

    def test_resume_tries_again(self, pq: PQ, sql: Sql, tick: Ticker, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*args: Any) -> Any:
            raise RuntimeError("a fault")

        with monkeypatch.context() as patched:
            patched.setattr(rules, "_every", broken)
            tick.look()
        assert [pq.schedules[name].error for name in "abc"] == ["RuntimeError: a fault"] * 3
        pq.schedules["a"].resume()
        assert (pq.schedules["a"].error, pq.schedules["a"].paused) == (None, False)
        tick.look()
        assert put(pq) == ["a"]

    def test_a_missing_extra_is_only_noted(
        self, pq: PQ, sql: Sql, tick: Ticker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Another process may have it."""
        pq.schedules["b"] = Schedule("q", "b", cron="* * * * *")
        past(sql, "b", "10 min")

        def missing(*args: Any) -> Any:
            raise ImportError("no cronsim")

        with monkeypatch.context() as patched:
            patched.setattr(rules, "_cron", missing)
            for _ in range(3):
                tick.look()
            Ticker(pq._table).look()
        found = pq.schedules["b"]
        assert sorted(put(pq)) == ["a", "c"]
        assert (found.paused, found.error) == (False, "ImportError: no cronsim")
        assert caplog.text.count("can't be fired here: ImportError: no cronsim") == 1
        Ticker(pq._table).look()
        assert sorted(put(pq)) == ["a", "b", "c"]
        assert pq.schedules["b"].error is None

    def test_an_unknown_zone_is_only_noted(self, pq: PQ, sql: Sql, tick: Ticker) -> None:
        """Another machine may know it."""
        sql("update queue_schedules set zone = 'X' where name = 'b'")
        tick.look()
        tick.look()
        found = pq.schedules["b"]
        assert sorted(put(pq)) == ["a", "c"]
        assert not found.paused and found.error and "zone 'X' is unknown" in found.error

    def test_a_job_that_cant_be_put(self, pq: PQ, sql: Sql, tick: Ticker, monkeypatch: pytest.MonkeyPatch) -> None:
        sql(
            "create function no() returns trigger language plpgsql as $$ begin"
            " if new.data::text = '\"b\"' then raise 'not this one'; end if; return new; end $$;"
            " create trigger no before insert on queue for each row execute function no()"
        )
        tick.look()
        found = pq.schedules["b"]
        assert sorted(put(pq)) == ["a", "c"]
        assert not found.paused and found.error and "not this one" in found.error
        due = found.next_at
        sql("drop trigger no on queue")
        tick.look()
        assert pq.schedules["b"].next_at == due  # not so soon
        monkeypatch.setattr(ticker.time, "monotonic", lambda: 1e12)
        tick.look()
        assert (pq.schedules["b"].last_at, pq.schedules["b"].error) == (due, None)

    def test_a_connection_that_is_lost_is_no_fault_of_the_schedule(
        self, pq: PQ, tick: Ticker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        real = tick._run

        def lost(statement: str, *args: Any, **kwargs: Any) -> Any:
            if statement == "fire":
                pq._table.database.driver.raise_lost(None, "it is gone")
            return real(statement, *args, **kwargs)

        with monkeypatch.context() as patched:
            patched.setattr(tick, "_run", lost)
            assert tick.run_once() == ticker.AGAIN
        assert caplog.text.count("it is gone") == 1
        assert not any(pq.schedules[name].error for name in "abc")
        tick.run_once()
        assert sorted(put(pq)) == ["a", "b", "c"]

    def test_a_token_that_somebody_is_about_to_put(
        self, pq: PQ, sql: Sql, tick: Ticker, connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It waits for that as long as a lock may take, and not longer."""
        monkeypatch.setattr(ticker, "LOCK_TIMEOUT", 0.1)
        pq.schedules["b"] = Schedule("q", "b", every="1h", unique="t")
        conn = connect()
        pq["q"].put("other", unique="t", conn=conn)
        tick.look()
        assert sorted(put(pq)) == ["a", "c"]
        assert "lock" in (pq.schedules["b"].error or "")
        conn.rollback()
        Ticker(pq._table).look()
        assert sorted(put(pq)) == ["a", "b", "c"]


class TestRun:
    def test_until_it_is_stopped(self, pq: PQ, sql: Sql) -> None:
        pq.schedules["x"] = Schedule("q", 1, every="100ms")
        stop = threading.Event()
        running = Background(pq.schedules.run, stop)
        wait_until(lambda: len(put(pq)) >= 3, "three jobs")
        stop.set()
        running.result()
        count = len(put(pq))
        Ticker(pq._table)
        assert len(put(pq)) == count

    def test_until_the_pq_is_closed(self, dsn: str) -> None:
        pq = PQ(dsn)
        running = Background(pq.schedules.run)
        wait_until(lambda: any(thread.name == "pq schedules" for thread in threading.enumerate()), "the loop")
        pq.close()
        running.result()

    def test_the_first_error_is_raised(self, empty_dsn: str) -> None:
        with PQ(empty_dsn) as pq, pytest.raises(package.TableMissing):
            pq.schedules.run()

    def test_later_ones_are_told_once(self, pq: PQ, sql: Sql, tick: Ticker, caplog: pytest.LogCaptureFixture) -> None:
        tick.look()
        sql("alter table queue_schedules rename to hidden")
        assert [tick.run_once(), tick.run_once()] == [ticker.AGAIN] * 2
        assert caplog.text.count("schedules can't be looked at: ") == 1
        sql("alter table hidden rename to queue_schedules")
        assert tick.run_once() == ticker.PAUSE
        sql("alter table queue_schedules rename to hidden")
        tick.run_once()
        assert caplog.text.count("schedules can't be looked at: ") == 2
