"""The page of all queues."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from .._looks import Count, History, QueueOverview
from .._looks.history import finished_lately
from .view import Page, View
from .words import span

#: Queues on a page.
QUEUES = 100

#: The states whose jobs are counted, as the page orders them.
STATES = ("ready", "running", "scheduled", "held", "dead")

#: How queues can be sorted: by which figure, the largest first.
ORDERS = {each: each for each in STATES} | {"age": "next_age"}

#: Minutes that the pictures show.
MINUTES = 60


class Picture(NamedTuple):
    """A small picture.

    :ivar title: what it shows.
    :ivar latest: the figure beside the title.
    :ivar values: one for each minute.
    :ivar bad: what stands on top of these, in red.
    :ivar labels: likewise.
    """

    title: str
    latest: str
    values: Sequence[float]
    bad: Sequence[float]
    labels: Sequence[str]


def overview(view: View) -> Page:
    """Show the queues."""
    found = view.overview()
    seen = [queue for queue in found.queues if view.may("look", queue.name)]
    wanted, order = view.request.get("name"), view.request.get("sort")
    queues = [queue for queue in seen if wanted.casefold() in queue.name.casefold()]
    queues.sort(key=lambda queue: queue.name)
    if order in ORDERS:
        queues.sort(key=lambda queue: getattr(queue, ORDERS[order]) or 0, reverse=True)
    first = min(view.number("from") or 0, len(queues))
    # of the whole table, so not for whoever sees only some of its queues
    puts = view.rate.puts(found) if len(seen) == len(found.queues) else None
    words = {
        "rates": {"Put": puts, "Done": done_per_second(view)},
        "overview": found, "queues": queues[first : first + QUEUES], "count": len(queues), "seen": len(seen),
        "wanted": wanted, "order": order, "first": first, "page": QUEUES, "sums": sums(seen),
        "waiting": sum(queue.waiting for queue in seen), "findings": view.findings(), "pictures": pictures(view),
    }  # fmt: skip
    return Page("overview.html", words)


def sums(queues: Sequence[QueueOverview]) -> dict[str, Count]:
    """Return the numbers of jobs in all queues together."""
    made = {}
    for state in STATES:
        counts: list[Count] = [getattr(queue, state) for queue in queues]
        made[state] = Count(sum(counts), any(count.is_cut for count in counts))
    return made


def done_per_second(view: View) -> float | None:
    """Return how many jobs a second were finished in the last whole minute, of those looked at; None: unknown."""
    found = view.history()
    if found is None:
        return None
    return sum(count for name, count in finished_lately(found, view.now).items() if view.may("look", name)) / 60


def pictures(view: View) -> list[Picture]:
    """Return the pictures of the last hour; none if the server has taken too long to tell."""
    found = view.history()
    if found is None:
        return []
    return drawn(found, view.now, lambda name: view.may("look", name))


def drawn(found: History, now: datetime, seen: Callable[[str], bool]) -> list[Picture]:
    """Return the pictures of the last hour.

    :param seen: whether a queue is shown.
    """
    finished: dict[datetime, int] = {}
    died: dict[datetime, int] = {}
    waited: dict[datetime, float] = {}
    allowed: dict[str, bool] = {}
    for minute in found:
        if minute.queue not in allowed:
            allowed[minute.queue] = seen(minute.queue)
        if allowed[minute.queue]:
            finished[minute.at] = finished.get(minute.at, 0) + minute.finished
            died[minute.at] = died.get(minute.at, 0) + minute.dead
            waited[minute.at] = max(waited.get(minute.at, 0.0), minute.waited_most or 0.0)
    last = now.replace(second=0, microsecond=0)
    times = [last - timedelta(minutes=back) for back in range(MINUTES - 1, -1, -1)]
    made = [finished.get(at, 0) for at in times]
    dead = [died.get(at, 0) for at in times]
    longest = [waited.get(at, 0.0) for at in times]
    is_cut = found.since is not None and found.since > times[0]
    text = f"{sum(made):,}{'+' if is_cut else ''}" + (f" and {sum(dead):,} dead" if any(dead) else "")
    return [
        Picture(
            "Finished per minute", text, made, dead,
            [
                f"{at:%H:%M}: {count:,} finished" + (f", {bad:,} died" if bad else "")
                for at, count, bad in zip(times, made, dead, strict=True)
            ],
        ),
        Picture(
            "Longest wait before that", span(max(longest)) if any(longest) else "–", longest, [],
            [f"{at:%H:%M}: {span(most)}" for at, most in zip(times, longest, strict=True)],
        ),
    ]  # fmt: skip


PAGES: Mapping[str, Callable[[View], Any]] = {"/": overview}
