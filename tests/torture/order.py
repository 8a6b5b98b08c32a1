"""The order in which a single consumer gets what was put without priority. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple

from .history import Event


class Turn(NamedTuple):
    """A job of the line that was delivered.

    :ivar begun: when its put began; monotonic seconds, as all here.
    :ivar acknowledged: when it was; None: it was not.
    :ivar delivered: for the first time.
    :ivar attempt: the one of that delivery.
    """

    key: str
    begun: float
    acknowledged: float | None
    delivered: float
    attempt: int


def turns(puts: Iterable[Event], acknowledged: Iterable[Event], delivered: Iterable[Event]) -> list[Turn]:
    """Of the jobs whose put is marked as one of the line; in order of delivery."""
    begun = {key: put["at"] for put in puts if put.get("line") for key in put["keys"]}
    known = {key: event["at"] for event in acknowledged for key in event["keys"] if key in begun}
    first: dict[str, Event] = {}
    for event in delivered:
        key = event["key"]
        if key in begun and (key not in first or event["at"] < first[key]["at"]):
            first[key] = event
    found = [Turn(key, begun[key], known.get(key), event["at"], event["attempt"]) for key, event in first.items()]
    return sorted(found, key=lambda turn: turn.delivered)


def passed_over(line: list[Turn], sessions: Iterable[float]) -> set[str]:
    """Jobs that were delivered too late. This is what is asserted:

    If the put of a job was acknowledged before the put of another began, then that other one is not delivered first.
    Deliveries are the first ones of each job, as the consumer has noted them. There are two excuses:

    * What the consumer notes as the first delivery is a later attempt. Then there was a claim of which nobody heard,
      and the job was leased to nobody, or its consumer was killed before it could note it.
    * A session of the consumer ended between the put and the other one's delivery. Its last claim may have gone on in
      the server, held the job while the next session took the other one, and then come to nothing. There is one
      consumer, without threads, so that each end of a session excuses one job and no more.

    That jobs may be seen up to a second late when they become ready more than 1,000 ids behind plays no part: one
    producer at a time puts into the line, and waits for the answer. So when a put is acknowledged, no job that was put
    later can have been taken.

    :param line: in order of delivery.
    :param sessions: when those of the consumer began.
    """
    late: list[tuple[float, float, str]] = []  # when the first one passed it, when its put began, which
    latest: list[Turn] = []  # those so far whose put began later than those of all before them
    for turn in line:
        if turn.acknowledged is not None and turn.attempt == 1:
            first = bisect_right(latest, turn.acknowledged, key=lambda other: other.begun)
            if first < len(latest):
                late.append((latest[first].delivered, turn.begun, turn.key))
        if not latest or turn.begun > latest[-1].begun:
            latest.append(turn)
    wrong = set()
    excuses = sorted(sessions)
    for passed, begun, key in sorted(late):
        excuse = bisect_right(excuses, begun)
        if excuse < len(excuses) and excuses[excuse] < passed:
            del excuses[excuse]
        else:
            wrong.add(key)
    return wrong
