"""The pages of what stands beside the queues: schedules, limits, streams."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .view import Page, View


def schedules(view: View) -> Page:
    """Show the schedules."""
    found = [schedule for schedule in view.looks.schedules.list() if view.may("look", schedule.queue)]
    return Page("schedules.html", {"schedules": found})


def limits(view: View) -> Page:
    """Show the limits, and how many jobs run under each."""
    limits = view.looks.limits
    given = [(name, limit.queues or [name], limit) for name, limit in limits.items()]
    found = [(name, queues, limit) for name, queues, limit in given if all(view.may("look", each) for each in queues)]
    return Page("limits.html", {"limits": found, "taken": limits.taken()})


def streams(view: View) -> Page:
    """Show the streams and their subscriptions."""
    streams = view.looks.streams
    return Page("streams.html", {"streams": [streams[name].info() for name in streams]})


PAGES: Mapping[str, Callable[[View], Page | str]] = {"/schedules": schedules, "/limits": limits, "/streams": streams}
