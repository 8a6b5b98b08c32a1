"""What the forms do. Each action is asked of `can`, done by the methods of queues, and logged without any data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from .._logs import Log
from .._looks import DeadGroup
from .._times import NOW, when
from .request import Refused
from .view import View

#: Bytes of data of a job that can be put again.
LARGEST = 16 * 1024 * 1024

log: Log = Log("pq.web")


class Done(NamedTuple):
    """What an action has done.

    :ivar queue: the name of the queue.
    :ivar which: which jobs, or the name of a schedule, for the log.
    :ivar text: what the page is to say.
    """

    queue: str
    which: str
    text: str


def act(view: View, name: str) -> str:
    """Do what a form asks for, and return the address of the page that tells of it."""
    back = view.request.sent("back", "/")
    if not back.startswith("/") or back.startswith(("//", "/\\")) or not back.isascii() or not back.isprintable():
        raise Refused(400, "The form names no page of these to go back to.")
    done = ACTIONS[name](view)
    user = view.request.user
    log.info("%s: %s in queue %r: %s", "somebody" if user is None else f"user {user!r}", name, done.queue, done.which)
    return view.saying(back, done.text)


def _queue(view: View, action: str) -> str:
    return view.allowed(action, view.request.sent_name("queue"))


def _ids(view: View) -> list[int]:
    given = view.request.form.get("id", [])
    if not all(text.isascii() and text.isdigit() and len(text) < 20 for text in given):
        raise Refused(400, "The form names jobs by something else than their ids.")
    return [int(text) for text in dict.fromkeys(given)]


def _told(count: int, given: list[int], verb: str, why: str) -> str:
    """Say how many jobs were changed, and why others were not."""
    if not given:
        return "No job was chosen."
    if len(given) == 1:
        return f"Job {given[0]} {verb}." if count else f"Job {given[0]} is not {verb}: {why}."
    rest = "" if count == len(given) else f"; the others are {why}"
    return f"{count:,} of {len(given):,} jobs {verb}{rest}."


def _which(ids: list[int]) -> str:
    return ", ".join(map(str, ids[:20])) + (f" and {len(ids) - 20} more" if len(ids) > 20 else "")


def pause(view: View) -> Done:
    """Pause a queue."""
    name = _queue(view, "pause")
    view.jobs.queue(name).pause()
    return Done(name, "all", f"Queue {name!r} is paused: none of its jobs is started.")


def resume(view: View) -> Done:
    """End the pause of a queue."""
    name = _queue(view, "resume")
    view.jobs.queue(name).resume()
    return Done(name, "all", f"Queue {name!r} goes on.")


def retry(view: View) -> Done:
    """Have dead jobs tried again."""
    name, ids = _queue(view, "retry"), _ids(view)
    count = view.jobs.queue(name).dead.retry(ids) if ids else 0
    return Done(name, _which(ids), _told(count, ids, "tried again", "not dead any more"))


def discard(view: View) -> Done:
    """Delete dead jobs."""
    name, ids = _queue(view, "discard"), _ids(view)
    count = view.jobs.queue(name).dead.discard(ids) if ids else 0
    return Done(name, _which(ids), _told(count, ids, "deleted", "not dead any more"))


def retry_group(view: View) -> Done:
    """Have a group of dead jobs tried again."""
    group = _group(view, "retry")
    rate = view.request.sent("rate").strip() or None
    try:
        count = group.retry(rate)
    except ValueError as error:
        raise Refused(400, str(error)) from None
    spread = "" if rate is None else f", {rate}"
    return Done(group.queue, f"group {group.key}", f"{count:,} jobs of queue {group.queue!r} are tried again{spread}.")


def discard_group(view: View) -> Done:
    """Delete a group of dead jobs."""
    group = _group(view, "discard")
    count = group.discard()
    return Done(group.queue, f"group {group.key}", f"{count:,} jobs of queue {group.queue!r} were deleted.")


def _group(view: View, action: str) -> DeadGroup:
    return view.dead_group(_queue(view, action), view.request.sent("group"))


def cancel(view: View) -> Done:
    """Cancel jobs."""
    name, ids = _queue(view, "cancel"), _ids(view)
    count = view.jobs.queue(name).cancel(ids) if ids else 0
    return Done(name, _which(ids), _told(count, ids, "cancelled", "finished, or held by a transaction"))


def run(view: View) -> Done:
    """Make jobs ready now, or at a time."""
    name, ids, text = _queue(view, "run"), _ids(view), view.request.sent("at").strip()
    try:
        at = when("the time", text or None)
        count = view.jobs.queue(name).reschedule(ids, schedule_at=text or None) if ids else 0
    except ValueError as error:
        raise Refused(400, str(error)) from None
    done = "ready" if at is NOW else f"scheduled, in {text}"
    return Done(name, _which(ids), _told(count, ids, done, "neither ready, scheduled nor held, or in a transaction"))


def move(view: View) -> Done:
    """Move jobs to another queue."""
    name, ids, target = _queue(view, "move"), _ids(view), view.request.sent("target").strip()
    view.allowed("move", target)
    try:
        count = view.jobs.queue(name).move(ids, target) if ids else 0
    except ValueError as error:
        raise Refused(400, str(error)) from None
    text = _told(count, ids, f"moved to queue {target!r}", "running, dead or finished, or held by a transaction")
    return Done(name, _which(ids), text)


def put(view: View) -> Done:
    """Put a job again, as a new one."""
    name, ids = _queue(view, "put"), _ids(view)
    found = view.jobs.job(ids[0]) if len(ids) == 1 else None
    if found is None or found.queue != name:
        raise Refused(404, "The job is not there any more.")
    if found.size > LARGEST:
        raise Refused(413, "The data of the job is too large to be put from a page.")
    queue = view.jobs.queue(name, "data_text")
    id = queue.put(queue[found.job.id].text, key=found.job.key)
    return Done(name, f"{found.job.id} as {id}", f"Put again, as job {id}.")


def fire(view: View) -> Done:
    """Put the job of a schedule now."""
    name, queue = _schedule(view, "fire")
    id = view.pq.schedules[name].fire()
    text = "has put nothing: a job with its token waits already" if id is None else f"has put job {id}"
    return Done(queue, f"schedule {name!r}", f"Schedule {name!r} {text}.")


def pause_schedule(view: View) -> Done:
    """Put nothing at the times of a schedule."""
    name, queue = _schedule(view, "pause")
    view.pq.schedules[name].pause()
    return Done(queue, f"schedule {name!r}", f"Schedule {name!r} is paused.")


def resume_schedule(view: View) -> Done:
    """End the pause of a schedule."""
    name, queue = _schedule(view, "resume")
    view.pq.schedules[name].resume()
    return Done(queue, f"schedule {name!r}", f"Schedule {name!r} goes on.")


def _schedule(view: View, action: str) -> tuple[str, str]:
    name = view.request.sent_name("schedule")
    if name not in view.pq.schedules:
        raise Refused(404, "There is no such schedule any more.")
    queue = view.pq.schedules[name].queue
    view.require(action, queue)
    return name, queue


#: By the end of their addresses.
ACTIONS: Mapping[str, Callable[[View], Done]] = {
    "pause": pause,
    "resume": resume,
    "retry": retry,
    "discard": discard,
    "retry-group": retry_group,
    "discard-group": discard_group,
    "cancel": cancel,
    "run": run,
    "move": move,
    "put": put,
    "fire": fire,
    "pause-schedule": pause_schedule,
    "resume-schedule": resume_schedule,
}
