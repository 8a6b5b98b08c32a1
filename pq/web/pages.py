"""The pages of jobs and queues, but for that of one job."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .._looks.overview import COUNTED
from .._queue.browse import STATES
from ..errors import JobNotFound
from .jobs import CAP, Row
from .request import Refused
from .view import Page, View

#: Tasks that are named above the jobs of a queue.
TASKS = 8

#: Jobs on a page, and running ones.
JOBS = 50
RUNNING = 200

#: Seconds for which the page of the doctor shows what it has said.
HEALTH = 2.0

#: Dead jobs of each queue that are looked at, and groups of these that are shown.
DEAD = 500
GROUPS = 100


def queue(view: View) -> Page:
    """Show jobs of a queue in a state."""
    name = view.queue_asked_for()
    figures = next((each for each in view.overview().queues if each.name == name), None)
    state = view.request.get("state") or next((each for each in COUNTED if getattr(figures, each, 0)), "ready")
    if state not in STATES:
        raise Refused(404, f"There is no state {state[:40]!r}.")
    after = view.number("after")
    more: int | None
    if state == "finished":
        rows, more = view.jobs.newest(JOBS, after, queue=name, state=state)
    else:
        try:
            rows = view.jobs.page(name, state, JOBS + 1, after)
        except (JobNotFound, ValueError):  # the last job of the page before has gone on since
            raise Refused(404, "The jobs have moved on meanwhile: begin with the first page.") from None
        more = rows[JOBS - 1].job.id if len(rows) > JOBS else None
        rows = rows[:JOBS]
    # finished jobs are found by no index; on further pages there is nothing new
    tasks, looked_at = view.jobs.tasks(name, state) if state != "finished" and after is None else ([], 0)
    words = {
        "tasks": tasks[:TASKS], "tasks_left": len(tasks) > TASKS, "looked_at": looked_at,
        "name": name, "state": state, "states": STATES, "rows": rows, "more": more, "after": after, "cap": CAP,
        "figures": figures, "paused": view.jobs.is_paused(name),
    }  # fmt: skip
    return Page("queue.html", words)


def running(view: View) -> Page:
    """Show what runs, of all queues."""
    jobs = [job for job in view.pq.running(RUNNING) if view.may("look", job.queue)]
    return Page("running.html", {"jobs": jobs, "most": RUNNING})


def workers(view: View) -> Page:
    """Show who runs jobs, and who waits for them."""
    return Page("workers.html", {"workers": view.pq.workers(RUNNING)})


def dead(view: View) -> Page:
    """Show dead jobs, in groups."""
    name = view.queue_asked_for() if view.request.get("q") else None
    # of each queue, and five times as many in all
    groups = [group for group in view.dead_groups(name, DEAD) if view.may("look", group.queue)]
    return Page("dead.html", {"name": name, "groups": groups[:GROUPS], "left": max(len(groups) - GROUPS, 0)})


def retrying(view: View) -> Page:
    """Show the jobs that have failed and will be tried again."""
    names = [queue.name for queue in view.overview().queues if view.may("look", queue.name)]
    rows, cap = view.jobs.retrying(names, JOBS)
    return Page("retrying.html", {"rows": rows, "cap": cap, "most": JOBS})


def finished(view: View) -> Page:
    """Show the jobs that were put last, of those that have finished."""
    before = view.number("before")
    rows, more = view.jobs.newest(JOBS, before, state="finished")
    return Page("finished.html", {"rows": _seen(view, rows), "more": more, "before": before, "cap": CAP})


def search(view: View) -> Page | str:
    """Find a job by its id, or jobs by a text in their data."""
    text, name, state = (view.request.get(field).strip() for field in ("text", "q", "state"))
    if state and state not in STATES:
        raise Refused(404, f"There is no state {state[:40]!r}.")
    number = text.removeprefix("#")
    if number.isascii() and number.isdigit() and len(number) < 19:
        job = view.jobs.job(int(number))
        if job is not None and view.may("look", job.queue):
            return view.url("/job", id=number)
    before = view.number("before")
    rows: list[Row] = []
    more = None
    if name:
        view.allowed("look", name)
    if text and name and state and state != "finished":
        rows = view.jobs.matching(name, state, text, JOBS)
    elif text:
        found, more = view.jobs.newest(JOBS, before, name or None, state or None, text)
        rows = _seen(view, found)
    words = {"text": text, "name": name, "state": state, "states": STATES, "rows": rows, "more": more, "cap": CAP}
    return Page("search.html", words)


def health(view: View) -> Page:
    """Show what the doctor says."""
    return Page("health.html", {"findings": view.findings(HEALTH)})


def _seen(view: View, rows: list[Row]) -> list[Row]:
    allowed = {name: view.may("look", name) for name in {row.queue for row in rows}}
    return [row for row in rows if allowed[row.queue]]


PAGES: Mapping[str, Callable[[View], Page | str]] = {
    "/queue": queue,
    "/running": running,
    "/workers": workers,
    "/dead": dead,
    "/retrying": retrying,
    "/finished": finished,
    "/search": search,
    "/health": health,
}
