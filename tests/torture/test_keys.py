"""Keys, tokens and limits under faults; and the checker of their histories finds what it is for."""

from __future__ import annotations

from typing import Any

import pytest

from torture.audit import RATE, Audit, Change
from torture.keys import Limits, check_keys, waits
from torture.schedule import CYCLE, KINDS, Schedule
from torture.test_torture import torture

FIRST = Change(1, 1.0, 1.0, 1, 1, "keyed", "k", None, None, None, 0, False, "ready", {"name": "k-1"}, 1.0)


def change(n: int, at: float, id: int, state: str, committed: float | None = None, **more: Any) -> Change:
    """A change of a job of the key "k" in a transaction of its own."""
    data = {"name": f"k-{id}"}
    at_last = at if committed is None else committed
    new = FIRST._replace(n=n, at=at, began=at, tx=n, id=id, state=state, committed=at_last, data=data)
    return new._replace(**more)


def take(n: int, at: float, id: int, committed: float | None = None, **more: Any) -> Change:
    """A delivery under a lease of two seconds."""
    given = {"taken": True, "dequeued": at, "due": at + 2, "attempts": 1, "state": "running", **more}
    return change(n, at, id, given.pop("state"), committed, **given)


def known(*ids: int, wall: float = 1.1, **more: Any) -> list[dict[str, Any]]:
    event = {"event": "acknowledged", "created": [True], "wall": wall, **more}
    return [{**event, "names": [f"k-{id}"], "ids": [id]} for id in ids]


def wrong(changes: list[Change], events: list[dict[str, Any]] | None = None, **more: Any) -> set[str]:
    audit = Audit(changes, more.pop("joins", {}), {})
    return set(check_keys(known(*{each.id for each in changes}) if events is None else events, audit, [], **more).wrong)


PUTS = [change(1, 1.0, 1, "ready"), change(2, 1.0, 2, "held")]
ONE = [take(3, 2.0, 1), change(4, 3.0, 1, "done")]
TWO = [change(5, 3.0, 2, "ready"), take(6, 3.5, 2), change(7, 4.0, 2, "done")]


def test_a_history_in_which_all_is_well():
    assert wrong([*PUTS, *ONE, *TWO]) == set()
    assert waits([*PUTS, *ONE, *TWO], Limits("pairs", 2)) == [1.0, 0.5]


def late(at: float, attempts: int = 1) -> list[Change]:
    """The second one begins, before or after the end of the first."""
    return [change(5, 1.5, 2, "ready", attempts=0), take(6, at, 2, attempts=attempts), change(7, 9.0, 2, "done")]


@pytest.mark.parametrize(
    "changes, found",
    [
        ([*PUTS, *ONE, *late(2.5)], {"two of a key", "out of order"}),
        ([*PUTS, take(3, 2.0, 1), change(4, 2.4, 1, "done", 2.6), *late(2.5)], {"two of a key", "out of order"}),
        ([*PUTS, take(3, 2.0, 1), change(4, 2.4, 1, "scheduled", attempts=1, due=3.0), *late(2.5)], {"two of a key"}),
        ([*PUTS, take(3, 2.0, 1), *late(7.0)], {"two of a key"}),  # its lease has expired, but it is in line
        ([*PUTS, take(3, 2.0, 1), change(4, 2.4, 1, "ready"), *late(2.5)], set()),  # it was released
        ([*PUTS, take(3, 2.0, 1), change(4, 2.4, 1, "done", 2.6, tx=6), *late(2.5)], set()),  # by the same transaction
    ],
)
def test_one_at_a_time(changes, found):
    assert wrong(changes) - {"out of order"} == found - {"out of order"}


@pytest.mark.parametrize(
    "expected, at, found",
    [(None, 2.5, {"before one that was given back"}), (None, 3.5, set()), (1.0, 2.5, set())],
)
def test_who_was_given_back_for_a_while_keeps_its_place(expected, at, found):
    given_back = [take(3, 2.0, 1), change(4, 2.4, 1, "scheduled", due=3.0), change(5, 3.2, 1, "ready")]
    assert wrong([*PUTS, *given_back, take(6, at, 2, expected=expected)]) - {"out of order"} == found


@pytest.mark.parametrize(
    "puts, walls, found",
    [
        (PUTS, (1.1, 1.1), {"out of order"}),
        (PUTS, (1.6, 1.1), set()),  # it was not known yet when the other one became ready
        ([PUTS[0]._replace(expected=9.0), PUTS[1]._replace(expected=8.0)], (1.1, 1.1), set()),
        ([PUTS[0]._replace(expected=9.0), PUTS[1]], (1.1, 1.1), {"out of order"}),
        ([PUTS[0]._replace(state="scheduled", due=1.5), PUTS[1]], (1.1, 1.1), set()),
    ],
)
def test_in_order(puts, walls, found):
    events = [*known(1, wall=walls[0]), *known(2, wall=walls[1])]
    changes = [*puts, change(3, 1.5, 2, "ready"), take(4, 2.0, 2), change(5, 2.5, 2, "done"), take(6, 3.0, 1)]
    assert wrong(changes, events) == found


def empty(since: float, wall: float) -> dict[str, Any]:
    return {"event": "empty", "queue": "keyed", "since": since, "wall": wall}


HELD = [*PUTS, *ONE, change(5, 9.0, 2, "ready"), take(6, 9.1, 2)]  # from 3.0 to 9.0 nobody is in line
HELD_UP = {"event": "touched", "queue": "keyed", "key": "k"}


@pytest.mark.parametrize(
    "changes, events, found",
    [
        (HELD, [], set()),
        (HELD, [empty(4.0, 4.5)], set()),  # within two seconds
        (HELD, [empty(5.0, 5.5)], {"stuck"}),
        (HELD, [empty(9.0, 9.5)], set()),  # too late to tell
        (HELD, [empty(5.0, 5.5), {**HELD_UP, "wall": 4.0}], set()),
        (HELD, [empty(6.0, 6.5), {**HELD_UP, "wall": 4.0}], {"stuck"}),
        ([*PUTS, *ONE], [empty(5.0, 5.5)], {"stuck", "lost"}),  # for ever
        ([*PUTS, take(3, 2.0, 1, due=20.0)], [empty(5.0, 5.5)], {"lost"}),  # somebody has it
        ([*PUTS, take(3, 2.0, 1)], [empty(6.0, 6.5)], {"lost", "stuck"}),  # its lease expired at 4.0
        (HELD, [{**empty(5.0, 5.5), "queue": "pairs"}], set()),
    ],
)
def test_none_is_stuck(changes, events, found):
    assert wrong(changes, [*known(1, 2), *events]) == found
    faults = check_keys([*known(1, 2), *events], Audit(changes, {}, {}), [(0.0, 30.0)]).wrong
    assert "stuck" not in faults


JOINED = {**known(1)[0], "names": ["j"], "created": [False], "began": 1.4, "modes": ["keep"]}


@pytest.mark.parametrize(
    "joined, found",
    [
        ({}, set()),
        ({"began": 3.0}, {"joined, and not started"}),
        ({"open": True}, set()),
        ({"open": True, "names": ["late"]}, {"joined, and not started"}),
        ({"modes": ["merge"]}, {"joined, and not started"}),
        ({"modes": ["merge"], "names": ["merged"]}, set()),
        ({"modes": [None], "began": 3.0}, set()),
    ],
)
def test_who_has_joined_a_job_sees_it_start(joined, found):
    changes = [PUTS[0], take(3, 2.0, 1, data={"name": "k-1", "items": ["merged"]}), change(4, 3.0, 1, "done")]
    events = [*known(1), {**JOINED, **joined}]
    assert wrong(changes, events, joins={"j": 1.6, "late": 2.2}) == found
    cancelled = [*changes, change(5, 4.0, 1, "cancelled")]
    assert wrong(cancelled, events, joins={"j": 1.6, "late": 2.2}) == set()


@pytest.mark.parametrize(
    "fourth, found",
    [
        ({}, {"more than the limit"}),
        ({"at": 4.1, "dequeued": 4.1}, set()),  # the leases of two have expired
        ({"tx": 101, "state": "done", "due": None}, set()),  # as the third, in one transaction, one after the other
    ],
)
def test_limits(fourth, found):
    puts = [change(id, 1.0, id, "ready", queue="limited", key=None) for id in range(1, 5)]
    running = [take(10 + id, 2.0, id, 5.0, queue="limited", key=None) for id in (1, 2)]
    block = take(13, 2.1, 3, 5.0, queue="limited", key=None, tx=101, state="done", due=None)
    last = take(14, 2.2, 4, 5.0, queue="limited", key=None)._replace(**fourth)
    assert wrong([*puts, *running, block, last]) == found


@pytest.mark.parametrize(
    "set_at, most, found",
    [
        (1.4, 2, set()),  # by then both may run
        (2.6, 2, {"two of a key"}),
        (1.4, 3, set()),
        (None, 2, set()),  # nobody knows when, or whether
    ],
)
def test_a_limit_that_changes(set_at, most, found):
    setting = {"event": "setting", "limit": "pairs", "most": 1, "began": 0.5, "wall": 0.5}
    events = [*known(1, 2), setting, {**setting, "event": "set", "wall": 0.6}]
    began = 1.3 if set_at is None else set_at
    events.append({**setting, "began": began, "most": most})
    if set_at is not None:
        events.append({**setting, "event": "set", "began": began, "wall": set_at + 0.1})
    pairs = [each._replace(queue="pairs") for each in [*PUTS, *ONE, *late(2.5)]]
    assert wrong(pairs, events) == found


def test_a_limit_is_known_when_another_one_was_set_after_it():
    setting = {"event": "setting", "limit": "a", "wall": 0.0}
    events = [{**setting, "most": 2, "began": 1.0}, {**setting, "most": 4, "began": 2.0}]
    events.append({**setting, "most": 3, "began": 12.5})
    events.append({"event": "set", "limit": "a", "began": 12.5, "wall": 13.0})
    limits = Limits("a", 1, events)
    assert limits.between(0.0, 0.9) == [1]
    assert limits.between(2.0, 2.0) == [1, 2, 4]
    assert limits.between(12.6, 12.6) == [1, 2, 4, 3]
    assert limits.between(13.5, 13.5) == [3]


@pytest.mark.parametrize(
    "between, began, found",
    [
        ([], 1.4, {"a second one with a token"}),
        ([take(3, 1.3, 1), change(4, 3.0, 1, "done")], 1.4, set()),
        ([change(3, 1.3, 1, "scheduled", due=1.35)], 1.4, set()),
        ([], 1.05, set()),  # the first was not known yet
        ([], 40.0, set()),
    ],
)
def test_a_token_is_had_by_one(between, began, found):
    token = {"tokens": ["t"], "modes": ["keep"]}
    events = [*known(1, began=1.0, **token), *known(2, began=began, wall=began + 0.1, **token)]
    changes = [PUTS[0], *between, PUTS[1]._replace(at=began, began=began, committed=began)]
    assert wrong(changes, events) - {"lost"} - {"joined, and not started"} == found


@pytest.mark.parametrize("seconds, found", [(0.99, {"more than the rate"}), (1.0, set())])
def test_rates(seconds, found):
    ids = range(1, RATE + 2)
    puts = [change(id, 1.0, id, "ready", queue="rated", key=None) for id in ids]
    takes = [take(100 + id, 2.0, id, queue="rated", key=None) for id in ids]
    takes[-1] = takes[-1]._replace(dequeued=2.0 + seconds)
    assert wrong([*puts, *takes]) == found


@pytest.mark.parametrize(
    "events, found",
    [
        ([{**HELD_UP, "event": "held", "id": 1, "wall": 2.1, "begun": 2.0}], set()),
        ([{**HELD_UP, "event": "held", "id": 1, "wall": 2.1, "begun": 2.5}], {"delivered without a take"}),
        ([{"event": "aborted", "names": ["k-1"], "wall": 1.2}], {"aborted, but there"}),
        (known(7), {"lost"}),
    ],
)
def test_what_the_processes_note_and_what_is_there(events, found):
    assert wrong([PUTS[0], *ONE], events) == found


def test_nothing_is_left():
    report = check_keys([], Audit([], {}, {"a place leaked": ["limited 1"]}), [])
    assert report.wrong == {"a place leaked": ["limited 1"]}


def test_a_job_is_put_once():
    again = change(9, 1.0, 9, "ready", data={"name": "k-1"})
    assert wrong([PUTS[0], *ONE, again, take(10, 5.0, 9), change(11, 6.0, 9, "done")], []) == {"put twice"}


def test_a_part_of_each_cycle_is_quiet():
    faults = Schedule.drawn(7, 100, 0.3, list(KINDS), keyed=True).faults
    assert faults and all(fault.at % CYCLE <= CYCLE * 2 / 3 for fault in faults)


def test_keys_under_torture():
    figures = torture("--keyed", "--small", "--seconds", "15", "--seed", "7")
    assert figures["wrong"] == {}
    assert figures["acknowledged puts"] > 100
    assert figures["faults"] > 5
