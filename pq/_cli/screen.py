"""The screen of `pq top`: what the keys do, and the lines that are shown. Pure but for what `Actions` does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from .._looks import DeadGroup, QueueOverview
from .._text import size
from .._times import age_text
from .cells import Line, fit
from .tables import (
    dead_lines,
    finding_lines,
    first_of,
    job_lines,
    queue_table,
    running_lines,
    style_of,
    text_lines,
)
from .watch import Snapshot

#: By what the queues can be sorted; names ascend, numbers descend.
SORTS = ("name", "ready", "age", "running", "dead")

#: Lines for running jobs below many queues.
RUNNING_LINES = 6

KEYS = {
    "queues": "s sort  / filter  p pause  Enter jobs  d dead groups  ? doctor  q quit",
    "jobs": "Enter why, and all about the job  Esc back  q quit",
    "job": "Esc back  q quit",
    "dead": "Enter all about the last job  r retry  x discard  Esc back  q quit",
    "doctor": "Esc back  q quit",
}


class Actions(Protocol):
    """What keys ask for, beside another page."""

    def jobs(self, queue: str) -> Sequence[Any]: ...
    def about(self, queue: str, id: int) -> str: ...
    def dead_groups(self) -> Sequence[DeadGroup]: ...
    def set_paused(self, queue: str, paused: bool) -> None: ...


class Screen:
    """What a person looks at: a page, a selected line, a sort and a filter.

    :ivar page: ``'queues'``, ``'jobs'``, ``'job'``, ``'dead'`` or ``'doctor'``.
    :ivar over: the person wants to leave.
    :ivar is_typing: keys are characters of the filter.
    """

    def __init__(self, table_name: str, actions: Actions) -> None:
        self.page: str = "queues"
        self.over: bool = False
        self.is_typing: bool = False
        self.sort: str = "name"
        self.filter: str = ""
        self._table_name = table_name
        self._actions = actions
        self._selected = ""  # a name, since the order changes
        self._asked: tuple[str, Callable[[], str]] | None = None  # a question, and what is done after a "y"
        self._came_from, self._back = "", 0  # the page before that of a job, and its chosen row
        self._at = 0  # the chosen row of other pages, or the first line that is shown
        self._text = ""
        self._jobs: Sequence[Any] = ()
        self._groups: Sequence[DeadGroup] = ()
        self._message = ""

    # -- keys

    def press(self, key: str, snapshot: Snapshot | None) -> None:
        """Do what a key asks for.

        :param key: a character, or ``'up'``, ``'down'``, ``'page up'``, ``'page down'``, ``'enter'``, ``'escape'``,
            ``'backspace'``.
        """
        self._message = ""
        queues = [] if snapshot is None else self._queues(snapshot)
        if self.is_typing:
            self._type(key)
        elif self._asked is not None:
            (_, act), self._asked = self._asked, None
            if key == "y":
                self._message = act()
        elif key == "q":
            self.over = True
        elif key in ("up", "down", "page up", "page down"):
            self._move(key, queues)
        elif self.page == "queues":
            self._press(key, self._chosen(queues))
        elif key in ("escape", "backspace"):
            self._open(self._came_from if self.page == "job" else "queues")
        elif self.page == "jobs" and key == "enter" and self._jobs:
            self._about(self._selected, self._jobs[self._at].id)
        elif self.page == "dead" and self._groups:
            self._press_dead(key, self._groups[self._at])

    def _press(self, key: str, chosen: QueueOverview | None) -> None:
        if key == "s":
            self.sort = SORTS[(SORTS.index(self.sort) + 1) % len(SORTS)]
        elif key == "/":
            self.is_typing = True
        elif key == "escape":
            self.filter = ""
        elif key == "p" and chosen is not None:
            self._ask_to_pause(chosen.name, not chosen.paused)
        elif key == "enter" and chosen is not None:
            self._jobs = self._actions.jobs(chosen.name)
            self._selected = chosen.name
            self._open("jobs")
        elif key == "d":
            self._groups = self._actions.dead_groups()
            self._open("dead")
        elif key == "?":
            self._open("doctor")

    def _ask_to_pause(self, queue: str, paused: bool) -> None:
        def act() -> str:
            self._actions.set_paused(queue, paused)
            return f"queue {queue!r} is {'paused' if paused else 'not paused any more'}"

        self._asked = f"{'Pause' if paused else 'Resume'} queue {queue!r}?", act

    def _press_dead(self, key: str, group: DeadGroup) -> None:
        def act(done: str, change: Callable[[], int]) -> str:
            count = change()
            self._groups = self._actions.dead_groups()
            self._at = max(0, min(self._at, len(self._groups) - 1))
            return f"{count} {done}"

        what = f"{group.count} dead jobs of queue {group.queue!r}: {group.error}"
        if key == "enter":
            self._about(group.queue, group.sample)
        elif key == "r":
            self._asked = f"Retry {what}?", partial(act, "will be tried again", group.retry)
        elif key == "x":
            self._asked = f"Discard {what}?", partial(act, "deleted", group.discard)

    def _about(self, queue: str, id: int) -> None:
        self._text = self._actions.about(queue, id)
        self._came_from, self._back = self.page, self._at
        self._open("job")

    def _type(self, key: str) -> None:
        if key in ("enter", "escape"):
            self.is_typing = False
            self.filter = self.filter if key == "enter" else ""
        elif key == "backspace":
            self.filter = self.filter[:-1]
        elif len(key) == 1:
            self.filter += key

    def _move(self, key: str, queues: Sequence[QueueOverview]) -> None:
        step = {"up": -1, "down": 1, "page up": -10, "page down": 10}[key]
        if self.page != "queues":
            rows = {"jobs": self._jobs, "dead": self._groups}.get(self.page)
            self._at = max(0, self._at + step if rows is None else min(self._at + step, len(rows) - 1))
        elif queues:
            names = [queue.name for queue in queues]
            at = names.index(self._selected) if self._selected in names else 0
            self._selected = names[min(max(at + step, 0), len(names) - 1)]

    def _open(self, page: str) -> None:
        self._at = self._back if self.page == "job" else 0
        self.page = page

    def fail(self, text: str) -> None:
        """Show that what a key has asked for has failed."""
        self._message = text

    # -- lines

    def lines(self, snapshot: Snapshot | None, width: int, height: int | None) -> list[Line]:
        """Return what is to be shown.

        :param width: cells of a line.
        :param height: how many lines at most; None: all there are, without the line about the keys.
        """
        if snapshot is None:
            return [Line(fit(f"{self._table_name}: looking ...", width), "title")]
        head = self._head(snapshot, width)
        if height is None:
            return [*head, *self._body(snapshot, width, None)]
        room = height - len(head) - 1
        body = self._body(snapshot, width, max(room, 1))[: max(room, 0)]
        empty = [Line(" " * width)] * (room - len(body))
        return [*head, *body, *empty, self._foot(width)][:height]

    def _head(self, snapshot: Snapshot, width: int) -> list[Line]:
        overview = snapshot.overview
        about = overview.table
        parts = [
            f"pq  table {self._table_name}", f"{overview.at:%H:%M:%S}Z", size(about.bytes),
            f"{about.dead_rows:,} dead rows",
        ]  # fmt: skip
        if snapshot.puts is not None:
            parts.append(f"{snapshot.puts:.1f} puts/s")
        if about.oldest_transaction is not None:
            parts.append(f"oldest transaction {age_text(about.oldest_transaction)}")
        parts.append(f"PostgreSQL {about.server_version}")
        lines = [Line(fit("  ".join(parts), width), "title")]
        if snapshot.error:
            lines.append(Line(fit(f"no answer since then: {snapshot.error}", width), "error"))
        elif snapshot.findings:
            names: dict[str, None] = dict.fromkeys(finding.name for finding in snapshot.findings)
            style = snapshot.findings[0].severity
            count = len(snapshot.findings)
            text = f"{count} finding{'s' * (count > 1)}: {', '.join(names)}"
            lines.append(Line(fit(text, width), style if style != "note" else "quiet"))
        else:
            looks = "the doctor looks ..." if snapshot.findings is None else "the doctor finds nothing wrong"
            lines.append(Line(fit(looks, width), "quiet"))
        return lines

    def _foot(self, width: int) -> Line:
        if self.is_typing:
            return Line(fit(f"filter: {self.filter}_  (Enter, Esc)", width), "heading")
        if self._asked is not None:
            return Line(fit(self._asked[0], max(width - 4, 0)) + fit(" y/n", min(4, width)), "heading")
        return Line(fit(self._message or KEYS[self.page], width), "warning" if self._message else "quiet")

    def _body(self, snapshot: Snapshot, width: int, room: int | None) -> list[Line]:
        if self.page == "queues":
            return self._main(snapshot, width, room)
        if self.page in ("jobs", "dead"):
            head, rows = (
                job_lines(self._selected, self._jobs, width)
                if self.page == "jobs"
                else dead_lines(self._groups, snapshot.overview.at, width)
            )
            first = first_of(self._at, len(rows), len(rows) if room is None else room - len(head))
            styles = ["selected" if number == self._at else "" for number in range(len(rows))]
            return [*head, *map(Line, rows[first:], styles[first:])]
        lines = text_lines(self._text, width) if self.page == "job" else finding_lines(snapshot.findings or (), width)
        if room is not None:
            self._at = max(0, min(self._at, len(lines) - room))
        return lines[self._at :]

    def _queues(self, snapshot: Snapshot) -> list[QueueOverview]:
        found = [queue for queue in snapshot.overview.queues if self.filter.lower() in queue.name.lower()]
        if self.sort == "age":
            return sorted(found, key=lambda queue: -(queue.next_age or 0.0))
        return found if self.sort == "name" else sorted(found, key=lambda queue: -int(getattr(queue, self.sort)))

    def _chosen(self, queues: Sequence[QueueOverview]) -> QueueOverview | None:
        return next((queue for queue in queues if queue.name == self._selected), next(iter(queues), None))

    def _main(self, snapshot: Snapshot, width: int, room: int | None) -> list[Line]:
        queues = self._queues(snapshot)
        running = running_lines(snapshot, width)
        heading, *rows = queue_table(queues, snapshot, self.sort, width)
        if room is not None:
            below = min(len(running), RUNNING_LINES + 2)
            space = max(1, room - 1 - min(below, max(room - 6, 0)))
        else:
            space = len(rows)
        chosen = self._chosen(queues)
        first = first_of(0 if chosen is None else queues.index(chosen), len(rows), space)
        lines = [Line(heading, "heading")]
        for number, (queue, row) in enumerate(zip(queues, rows, strict=True)):
            if first <= number < first + space:
                is_chosen = queue is chosen and room is not None
                lines.append(Line(row, "selected" if is_chosen else style_of(queue)))
        if not queues:
            lines.append(Line(fit("no queue has that in its name" if self.filter else "no jobs", width), "quiet"))
        return [*lines, *running]
