"""Streams under faults; and the checker of their histories finds what it is for."""

from __future__ import annotations

from typing import Any

import pytest

from torture.streams import SUBSCRIPTIONS, TYPES, Told, Truth, check_streams
from torture.test_torture import torture

#: Three events, of which the first two are of one key, and of transactions one after the other.
TRUTH = [Truth(1, 10, "one", "k", "a"), Truth(2, 11, "two", "k", "a"), Truth(3, 12, "three", "l", "w")]

TRUTH_OF_WORKERS = [each._replace(type="w") for each in TRUTH]


def put(name: str, at: float) -> list[dict[str, Any]]:
    return [
        {"event": "put", "names": [name], "at": at},
        {"event": "acknowledged", "names": [name], "at": at + 0.5},
    ]


EVENTS = [*put("one", 1.0), *put("two", 2.0), *put("three", 3.0)]
HANDLED = [{"event": "handled", "names": ["one", "two", "three"], "at": 5.0}]


def told(truth: list[Truth] = TRUTH, aside: Any = (), **seen: list[str]) -> Told:
    """What each subscription has seen, if not all that it wants."""
    all_seen = {
        name: [each.name for each in TRUTH if each.type in TYPES[name]] for name in SUBSCRIPTIONS if name != "lease"
    }
    return Told(truth, {**all_seen, **seen}, set(aside), {})


def wrong(told: Told, events: list[dict[str, Any]] | None = None) -> set[str]:
    return set(check_streams([*EVENTS, *HANDLED] if events is None else events, told).wrong)


def test_a_history_in_which_all_is_well():
    report = check_streams([*EVENTS, *HANDLED], told())
    assert report.wrong == {}
    assert (report.acknowledged, report.delivered, report.counts["events"]) == (3, 21, 3)


@pytest.mark.parametrize("name", [name for name in SUBSCRIPTIONS if name != "lease"])
def test_what_is_lost_or_comes_twice(name):
    all_seen = told().seen[name]
    assert wrong(told(**{name: all_seen[1:]})) == {"lost"}
    assert wrong(told(**{name: [*all_seen, all_seen[-1]]})) == {"twice"}
    assert wrong(told(**{name: [*all_seen, "undone"]})) == {"of no transaction"}


@pytest.mark.parametrize(
    "told, events, found",
    [
        (told(block=["two", "one", "three"]), None, {"out of order"}),
        (told(parted=["two", "one", "three"]), None, {"out of order"}),
        (told(parted=["three", "one", "two"]), None, set()),  # of another key
        (told(block=["three", "one", "two"]), None, {"out of order"}),
        (told(shared=["two", "one", "three"]), None, set()),
        (told(block=["two", "one", "three"], aside=[("block", "one")]), None, set()),
        (told(TRUTH_OF_WORKERS, worker=["two", "one", "three"], types=[]), None, {"out of order"}),
        (told(types=["one", "two", "three"]), None, {"not wanted"}),
        (told(), EVENTS, {"lost"}),
        (told(), [*EVENTS, {**HANDLED[0], "names": ["two", "one", "three"]}], {"out of order"}),
        (told(), [*EVENTS, *HANDLED, *HANDLED], set()),  # at least once
        (told(), [*EVENTS, *HANDLED, *put("four", 4.0)], {"acknowledged, and not there"}),
        (told(), [*EVENTS, *HANDLED, {"event": "aborted", "names": ["one"], "at": 2.0}], {"aborted, but there"}),
        (told(), [*EVENTS[2:], *HANDLED], {"never published"}),
        (told([*TRUTH, TRUTH[0]]), None, {"published twice"}),
        (told(), [*EVENTS, *HANDLED, {"event": "too many", "n": 1, "got": 2, "at": 2.0}], {"too many in a batch"}),
        (told()._replace(left={"dead": ["one"]}), None, {"dead"}),
    ],
)
def test_the_checker_finds(told, events, found):
    assert wrong(told, events) == found


def test_the_order_of_transactions_that_overlap_is_not_known():
    overlapping = [*put("one", 1.0), *put("two", 1.2), *put("three", 3.0), *HANDLED]
    assert wrong(told(block=["two", "one", "three"]), overlapping) == set()
    same = [TRUTH[0], TRUTH[1]._replace(tx=10), TRUTH[2]]  # but that of one transaction is
    assert wrong(told(same, block=["two", "one", "three"]), overlapping) == {"out of order"}


def test_streams_under_torture():
    for seconds in ("10", "30", "60"):  # on a busy machine the processes take longer to begin
        figures = torture("--streams", "--small", "--seconds", seconds, "--seed", "7")
        assert figures["wrong"] == {}
        if figures["events"] > 100 and figures["faults"] > 5 and figures["rotations"]:
            return
    pytest.fail(f"nothing much was done: {figures}")
