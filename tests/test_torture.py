"""Nothing is lost under faults; and the check that says so would notice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torture.checker import Report, Row, check
from torture.history import History, read
from torture.nemesis import KINDS, schedule

ROOT = Path(__file__).parents[1]

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
    command = [sys.executable, "-m", "tests.torture", "--small", "--json", *args]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_nothing_is_lost_under_torture():
    """A short run; long ones are for the command line."""
    figures = torture("--seconds", "20", "--seed", "7", "--interval", "0.5")
    assert figures["lost"] == 0 and figures["wrong"] == {}
    assert figures["acknowledged puts"] > 100
    assert figures["faults"] > 10
    assert figures["redelivered"] > 0, "no fault hit a running job"


def test_nothing_is_delivered_twice_without_faults():
    figures = torture("--seconds", "3", "--faults", "")
    assert figures["acknowledged puts"] > 10
    assert (figures["faults"], figures["redelivered"], figures["handled more than once"]) == (0, 0, 0)


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
    assert schedule(7, 60, 0.7, kinds) == schedule(7, 60, 0.7, kinds) != schedule(8, 60, 0.7, kinds)
    assert {fault.kind for fault in schedule(7, 600, 0.7, kinds)} == set(kinds)
