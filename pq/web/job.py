"""The page of a job."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from datetime import datetime
from operator import itemgetter
from typing import NamedTuple

from markupsafe import Markup

from .._jobs.info import JobInfo
from .._jobs.track import ratio
from .._looks.running import told
from .._looks.times import aware
from .._table.instruments import trace_of
from .._text import printable
from ..errors import JobNotFound, StatementTimeout
from .jobs import Detail
from .request import Refused
from .view import Page, View


class Moment(NamedTuple):
    """A point of a job's life.

    :ivar what: what happened then.
    :ivar at: when.
    :ivar since: seconds since the moment before; None: this is the first one.
    :ivar kind: ``'past'``, ``'now'`` or ``'future'``.
    """

    what: str
    at: datetime
    since: float | None
    kind: str


def job(view: View) -> Page:
    """Show a job."""
    id = view.number("id")
    found = None if id is None else view.jobs.job(id)
    if found is None or not view.may("look", found.queue):
        raise Refused(404, f"There is no job {id}, or none any more.")
    words = {
        "detail": found, "job": found.job, "name": found.queue, "moments": moments(found, view.now),
        "progress": progress_of(found), "commands": commands(view, found), "trace": trace_of(found.job.headers),
        "reasons": reasons(view, found),
    }  # fmt: skip
    return Page("job.html", words)


def reasons(view: View, found: Detail) -> list[Markup]:
    """Return why the job does not run, with links to the jobs that are named."""
    if found.job.state in ("running", "finished", "dead"):
        return []
    try:
        texts = [text for _, text in view.jobs.queue(found.queue).why(found.job.id).reasons]
    except JobNotFound:  # it has just gone
        return []
    except StatementTimeout as error:
        texts = [str(error)]
    return [linked(view, text[:1].upper() + text[1:]) for text in texts]


def linked(view: View, text: str) -> Markup:
    """Return a text in which each job that it names is a link to its page."""
    parts = re.split(r"\b(?<=[Jj]ob )([0-9]{1,18})\b", text)
    links = [Markup('<a href="{}">{}</a>').format(view.url("/job", id=id), id) for id in parts[1::2]]
    parts[1::2] = links
    return Markup("").join(parts)


def moments(found: Detail, now: datetime) -> list[Moment]:
    """Return what has happened to a job, and what will, in order."""
    job = found.job
    events: list[tuple[datetime | None, str]] = [(job.enqueued_at, "put")]
    if job.schedule_at is not None and job.attempts == 0:
        events.append((job.schedule_at, "due"))
    if job.first_failed_at is not None and job.attempts > 1 and not job.cancelled:
        events.append((job.first_failed_at, "first failure"))
    if job.state in ("running", "finished", "dead"):
        last = "taken" if job.state == "running" else _end(job)
        # only the row of a finished job keeps when it was taken: any other end is noted there, too
        if job.state == "finished" and not job.cancelled and job.finished_at != job.dequeued_at:
            events += [(job.dequeued_at, "taken"), (job.finished_at, last)]
        else:
            events.append((job.dequeued_at, last))
    if job.state == "running":
        events.append((job.due_at, "lease ends"))
    elif job.state == "scheduled" and job.attempts:
        events.append((job.due_at, "next attempt"))
    made: list[Moment] = []
    before: datetime | None = None
    for moment, what in sorted(((aware(at), what) for at, what in events if at is not None), key=itemgetter(0)):
        since = None if before is None else (moment - before).total_seconds()
        made.append(Moment(what, moment, since, "future" if moment > now else "past"))
        before = moment
    return made


def _end(job: JobInfo) -> str:
    if job.state == "dead":
        return "died"
    return "cancelled" if job.cancelled else "finished"


def progress_of(found: Detail) -> float | None:
    """Return how far a running job is, from 0 to 1, or None."""
    return ratio(told(found.result)) if found.job.state == "running" else None


def commands(view: View, found: Detail) -> list[tuple[str, str]]:
    """Return what can be done with the job from a shell, and the commands; none that a shell can't say.

    The command that puts such a job again needs all of its data to be here.
    """
    name = view.pq._table.name
    table = [] if name.name == "queue" else ["--table", name.name]
    table += [] if name.schema is None else ["--schema", name.schema]
    made = []
    if found.task is not None and found.job.state not in ("running", "finished"):
        made.append(("Try it, and roll all of it back", ["pq", "try", found.queue, str(found.job.id), *table]))
    if not found.is_cut:
        key = [] if found.job.key is None else ["--key", found.job.key]
        made.append(("The same again, from a shell", ["pq", "put", found.queue, found.job.text, *key, *table]))
    texts = [(what, shlex.join(parts)) for what, parts in made]
    return [(what, text) for what, text in texts if printable(text, newlines=True) == text]


PAGES: Mapping[str, Callable[[View], Page | str]] = {"/job": job}
