"""Nothing is lost under faults; and the check that says so would notice."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from torture.checker import Report, Row, check
from torture.history import History, read
from torture.schedule import KINDS, Fault, Schedule
from torture.server import Server
from torture.shrink import shrink

ROOT = Path(__file__).parents[2]

PUT = {"event": "put", "keys": ["l1"]}
ACKNOWLEDGED = {"event": "acknowledged", "keys": ["l1"]}
DELIVERED = {"event": "delivered", "key": "l1", "begun": 10.0}
HANDLED = {"event": "handled", "key": "l1"}
DONE = {"event": "done", "key": "l1", "begun": 10.0}
ROW = Row(1, "l1", "done")
GOOD = [PUT, ACKNOWLEDGED, DELIVERED, HANDLED, DONE]


def checked(events: list[dict[str, Any]], rows: list[Row], **more: Any) -> Report:
    return check(events, rows, **{"effects": [], "orders": [], **more})


def of(key: str, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same history, of another job."""
    return [{**event, **({"keys": [key]} if "keys" in event else {"key": key})} for event in events]


def torture(*args: str) -> dict[str, Any]:
    """The figures of a run in which all held."""
    command = [sys.executable, "-m", "tests.torture", "--json", *args]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_nothing_is_lost_under_torture():
    """A short run; long ones are for the command line."""
    figures = torture("--small", "--seconds", "12", "--seed", "7", "--interval", "0.4")
    assert figures["lost"] == 0 and figures["wrong"] == {}
    assert figures["acknowledged puts"] > 100
    assert figures["faults"] > 10
    assert figures["redelivered"] > 0, "no fault hit a running job"


def test_nothing_is_delivered_twice_without_faults():
    for seconds in ("3", "10", "30"):  # on a busy machine the processes take longer to begin
        figures = torture("--small", "--seconds", seconds, "--faults", "")
        assert (figures["faults"], figures["redelivered"], figures["handled more than once"]) == (0, 0, 0)
        if figures["acknowledged puts"] > 10 and figures["delivered in order"] >= 5:
            return
    pytest.fail(f"nothing much was done: {figures}")


def test_a_history_without_faults_passes():
    report = checked(GOOD, [ROW])
    assert report.wrong == {}
    assert (report.acknowledged, report.delivered, report.redelivered, report.lost) == (1, 1, 0, 0)


@pytest.mark.parametrize("last", [PUT, {"event": "unknown", "keys": ["l1"]}], ids=["killed", "unknown"])
def test_a_put_of_unknown_outcome_may_be_handled_or_not(last):
    assert checked([PUT, last], []).wrong == {}
    report = checked([PUT, last, DELIVERED, HANDLED], [ROW])
    assert report.wrong == {}
    assert report.unknown == 1


def test_a_second_delivery_is_no_fault_and_is_counted():
    report = checked([*GOOD[:4], {**DELIVERED, "begun": 7.5}, HANDLED, DONE], [ROW])
    assert report.wrong == {}
    assert (report.redelivered, report.duplicates, report.recoveries) == (1, 1, [2.5])


EFFECT = of("e1", [PUT, ACKNOWLEDGED, DELIVERED, DONE])
EFFECT_ROW = Row(1, "e1", "done")
POISON = of("p1", [PUT, ACKNOWLEDGED, DELIVERED])


@pytest.mark.parametrize(
    "events, rows, more, wrong",
    [
        ([PUT, ACKNOWLEDGED], [], {}, {"lost"}),
        ([PUT, ACKNOWLEDGED, DELIVERED], [ROW], {}, {"lost"}),
        (GOOD, [], {}, {"lost"}),
        ([PUT, ACKNOWLEDGED], [ROW._replace(state="open")], {}, {"lost", "unfinished"}),
        (EFFECT, [EFFECT_ROW], {}, {"lost", "done without effect"}),
        (EFFECT, [EFFECT_ROW], {"effects": ["e1", "e1"]}, {"effect more than once"}),
        (
            EFFECT,
            [EFFECT_ROW._replace(state="open")],
            {"effects": ["e1"]},
            {"unfinished", "effect of a job that is not done"},
        ),
        ([{**PUT, "not_before": 10.5}, *GOOD[1:]], [ROW], {}, {"early"}),
        ([*GOOD, {**DELIVERED, "begun": 10.5}], [ROW], {}, {"delivered after done"}),
        ([PUT, {"event": "aborted", "keys": ["l1"]}, DELIVERED], [], {}, {"aborted, but there"}),
        ([PUT, {"event": "aborted", "keys": ["l1"]}], [ROW], {}, {"aborted, but there"}),
        ([PUT, {"event": "aborted", "keys": ["l1"]}], [], {"orders": ["l1"]}, {"aborted, but there"}),
        (GOOD[2:], [ROW], {}, {"never put"}),
        (GOOD, [ROW, ROW._replace(id=2)], {}, {"put twice"}),
        ([{**PUT, "order": True}, *GOOD[1:]], [ROW], {}, {"order without job, or job without order"}),
        ([{**PUT, "order": True}], [], {"orders": ["l1"]}, {"order without job, or job without order"}),
        ([PUT, ACKNOWLEDGED, DELIVERED], [ROW._replace(state="dead")], {}, {"dead"}),
        ([PUT, ACKNOWLEDGED], [ROW._replace(state="dead")], {}, {"dead", "dead without a delivery"}),
        (GOOD, [ROW._replace(state="dead")], {}, {"dead", "dead and done"}),
        (POISON, [Row(1, "p1", "done")], {}, {"lost"}),
        ([*GOOD, HANDLED], [ROW], {"faults": False}, {"handled twice without a fault"}),
    ],
)
def test_the_checker_finds(events, rows, more, wrong):
    assert set(checked(events, rows, **more).wrong) == wrong


def test_a_job_that_always_fails_is_to_be_dead():
    assert checked(POISON, [Row(1, "p1", "dead")]).wrong == {}


def test_a_line_that_a_kill_has_cut_short_is_left_out(tmp_path):
    history = History(tmp_path, "producer1")
    history.note("put", keys=["l1"])
    history.close()
    with (tmp_path / "producer1.jsonl").open("ab") as file:
        file.write(b'{"event": "ackn')
    assert [(event["event"], event["who"]) for event in read(tmp_path)] == [("put", "producer1")]


def test_the_seed_decides_the_faults():
    kinds = list(KINDS)
    assert Schedule.drawn(7, 60, 0.7, kinds).faults == Schedule.drawn(7, 60, 0.7, kinds).faults
    assert Schedule.drawn(7, 60, 0.7, kinds).faults != Schedule.drawn(8, 60, 0.7, kinds).faults
    assert {fault.kind for fault in Schedule.drawn(7, 600, 0.7, kinds).faults} == set(kinds)


# -- order


def line(*jobs: tuple[float, float | None, float, int]) -> list[dict[str, Any]]:
    """A history of jobs a, b, …: when the put began, was acknowledged, and was delivered, in which attempt."""
    events: list[dict[str, Any]] = []
    for letter, (begun, acknowledged, delivered, attempt) in zip("abcd", jobs, strict=False):
        key = f"l-{letter}"
        events.append({"event": "put", "keys": [key], "at": begun, "line": True})
        if acknowledged is not None:
            events.append({"event": "acknowledged", "keys": [key], "at": acknowledged})
        for number in range(attempt, 3):
            delivery = {"event": "delivered", "key": key, "attempt": number, "begun": 0.0}
            events.append({**delivery, "at": delivered + 10 * (number - attempt)})
        events.append({"event": "handled", "key": key})
    return events


def session(at: float) -> dict[str, Any]:
    return {"event": "session", "at": at}


def passed_over(events: list[dict[str, Any]]) -> list[str]:
    keys = {event["key"] for event in events if event["event"] == "handled"}
    report = checked(events, [Row(0, key, "done") for key in keys])
    assert report.wrong.keys() <= {"passed over"}
    assert report.in_line == len(keys)
    return report.wrong.get("passed over", [])


FIRST, SECOND, THIRD = (1, 2, 11, 1), (3, 4, 12, 1), (5, 6, 13, 1)
LATE = (1, 2, 14, 1)


@pytest.mark.parametrize(
    "events",
    [
        line(FIRST, SECOND, THIRD),
        line((1, 4, 14, 1), SECOND),  # b's put began before a's was acknowledged
        line((1, None, 14, 1), SECOND),  # or it never was
        line((1, 2, 14, 2), SECOND),  # nobody has heard of the first claim of a
        [*line(LATE, SECOND), session(11)],
        [*line(LATE, LATE, SECOND), session(11), session(11.5)],
        # each session has one of them, if it is the right one
        [*line((1, 2, 14, 1), (3, 4, 20, 1), (7, 8, 12, 1), (5, 6, 19, 1)), session(2), session(4), session(6)],
    ],
)
def test_an_order_that_is_right(events):
    assert passed_over(events) == []


@pytest.mark.parametrize(
    "events, keys",
    [
        (line(LATE, SECOND), ["l-a"]),
        (line(FIRST, (3, 4, 14, 1), THIRD), ["l-b"]),
        (line(LATE, (3, 4, 12, 2)), ["l-a"]),  # a later attempt of b is no excuse
        ([*line(LATE, SECOND), session(0.5)], ["l-a"]),  # nor is the end of a session before,
        ([*line(LATE, SECOND), session(12.5)], ["l-a"]),  # or after
        ([*line(LATE, LATE, SECOND), session(11)], ["l-b"]),  # or one for two
    ],
)
def test_the_checker_finds_jobs_that_were_passed_over(events, keys):
    assert passed_over(events) == keys


# -- schedules


@pytest.mark.parametrize("culprits", [set(), {7}, {3, 4}, {0, 19}, {2, 9, 15}, set(range(20))])
def test_what_is_not_needed_is_left_out(culprits):
    tried: list[list[int]] = []

    def fails(part: list[int]) -> bool:
        assert part not in tried
        tried.append(part)
        return culprits <= set(part)

    assert shrink(list(range(20)), fails, runs=1000) == sorted(culprits)


def test_only_what_has_failed_is_the_result():
    """Also where a failure comes by chance, and when there are no runs left."""
    luck = random.Random(7)
    runs: list[tuple[list[int], bool]] = [(list(range(50)), True)]

    def fails(part: list[int]) -> bool:
        runs.append((part, 7 in part and luck.random() < 0.5))
        return runs[-1][1]

    result = shrink(list(range(50)), fails, runs=12)
    assert len(runs) == 1 + 12
    assert (result, True) in runs
    assert len(result) < 50


def test_a_schedule_is_written_and_read():
    schedule = Schedule.drawn(7, 60, 0.7, list(KINDS), small=True)
    assert schedule.faults
    assert Schedule.loads(schedule.dumps()) == schedule


UNKNOWN = '{"seed": 1, "seconds": 1, "small": true, "faults": [[1, "x", 0, 0]]}'


@pytest.mark.parametrize("text", ["", "[]", "{}", UNKNOWN])
def test_what_is_no_schedule_is_refused(text):
    with pytest.raises(ValueError, match=r"schedule|Expecting value"):
        Schedule.loads(text)


def test_a_schedule_is_played_again(tmp_path):
    """With a promotion, where that can be, and clocks that jump."""
    kinds = ["clock", "cut", "clock", *(["promote"] if Server.has_standby() else []), "restart", "kill"]
    faults = [Fault(0.5 + number / 2, kind, number / 7, 0.5) for number, kind in enumerate(kinds)]
    (tmp_path / "schedule.json").write_text(Schedule(3, 4, True, faults).dumps())
    figures = torture("--schedule", str(tmp_path / "schedule.json"))
    assert figures["seed"] == 3
    assert figures["faults by kind"] == Counter(kinds)
    assert figures["delivered in order"] >= 5


# -- the clock


CLOCK = """
import time
from tests.torture import clock
clock.install()
from datetime import datetime, timezone
import psycopg2
before = time.monotonic()
for jumped in (False, True, False):
    told = [time.time(), time.time_ns() / 1e9, datetime.now().timestamp(), datetime.now(timezone.utc).timestamp(),
            datetime.utcnow().replace(tzinfo=timezone.utc).timestamp()]
    assert all((abs(at - clock.now()) > 3000) == jumped for at in told), (jumped, told, clock.now())
    signal = __import__("signal")
    signal.raise_signal(signal.SIGUSR2)
assert time.monotonic() - before < 3000
made = psycopg2.extensions.PYDATETIME("2020-01-01 00:00:00", None)
assert isinstance(made, datetime) and made == datetime(2020, 1, 1)
"""


def test_the_clock_jumps_to_and_fro():
    subprocess.run([sys.executable, "-c", CLOCK], cwd=ROOT, check=True, timeout=60)
