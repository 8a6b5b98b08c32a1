"""The command top: the queues, refreshed until somebody has seen enough."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from .._jobs.info import JobInfo
from .._logs import queue_log
from .._looks import DeadGroup
from .._looks.overview import COUNTED
from .._manager import PQ
from .._table.look import looking
from .._text import cut, describe
from .cells import Line
from .output import print_json, print_text
from .parser import Commands, database_options, opened, seconds, table_options
from .screen import Screen
from .table import name_of
from .watch import Snapshot, Watch

#: How many jobs of a queue are shown, and how many characters of the data of one.
JOBS = 100
DATA = 10_000

#: Seconds for which a key is waited for, until what was seen meanwhile is shown.
TICK = 0.2

NAMES = {
    "KEY_UP": "up", "KEY_DOWN": "down", "KEY_PPAGE": "page up", "KEY_NPAGE": "page down", "KEY_ENTER": "enter",
    "\n": "enter", "\r": "enter", "\x1b": "escape", "KEY_BACKSPACE": "backspace", "\x7f": "backspace",
    "\b": "backspace", "k": "up", "j": "down",
}  # fmt: skip


def add(commands: Any) -> None:
    """Declare the command."""
    top = Commands(commands, [database_options(), table_options()])
    parser = top.add(_top, "top", "show the queues and what runs, again and again", "--json")
    parser.add_argument("--once", action="store_true", help="show it once, as text; so without a terminal")
    interval = "seconds from one look to the next, from 0.5 (default: 2)"
    parser.add_argument("--interval", type=_seconds, default=2.0, metavar="S", help=interval)
    parser.set_defaults(own_signals=True)


def _seconds(text: str) -> float:
    found = seconds(text)
    if not 0.5 <= found <= 3600:
        raise argparse.ArgumentTypeError(f"must be from 0.5 to 3600 seconds: {text}")
    return found


def _top(args: argparse.Namespace) -> None:
    with opened(args) as pq:
        watch = Watch(pq, args.interval)
        if args.json:
            print_json(document(watch.look()))
            return
        screen = Screen(name_of(args), _Actions(pq))
        if args.once or not _has_terminal():
            width = shutil.get_terminal_size((160, 0)).columns
            for line in screen.lines(watch.look(), width, None):
                print_text(line.text.rstrip())
            return
        watch.look(doctor=False)  # an error here ends the command
        _show(screen, watch)


def document(snapshot: Snapshot) -> dict[str, Any]:
    """Return what was seen, for JSON."""
    overview = asdict(snapshot.overview)
    for queue in overview["queues"]:
        queue["cut"] = [name for name in COUNTED if queue[name].is_cut]
        queue["finished_last_minute"] = snapshot.finished.get(queue["name"])
    findings = [finding._asdict() for finding in snapshot.findings or ()]
    overview["puts_per_second"] = snapshot.puts
    return overview | {"running": [asdict(job) for job in snapshot.running], "findings": findings}


def _has_terminal() -> bool:
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout)) and (
        os.environ.get("TERM", "dumb") != "dumb"
    )


class _Actions:
    def __init__(self, pq: PQ) -> None:
        self._changed = pq
        self._pq = pq._on(looking(pq._table))  # a locked table must not stop the keys

    def jobs(self, queue: str) -> Sequence[JobInfo]:
        return self._pq[queue].list(limit=JOBS)

    def about(self, queue: str, id: int) -> str:
        job = self._pq[queue][id]
        times = {"put": job.enqueued_at, "due": job.due_at, "taken": job.dequeued_at}
        told = [f"{name} {time:%Y-%m-%d %H:%M:%S}Z" for name, time in times.items() if time is not None]
        lines = [f"job {id} of queue {queue!r}: {job.state}, {job.attempts} attempts, {', '.join(told)}"]
        lines += [f"- {reason.text}" for reason in self._pq[queue].why(id).reasons]
        lines += ["", cut(job.text, DATA)]  # as it stands in the table: a pickle is not loaded
        if job.error is not None:
            lines += ["", job.error.traceback or str(job.error)]
        return "\n".join(lines)

    def dead_groups(self) -> Sequence[DeadGroup]:
        return self._changed.dead_groups()

    def set_paused(self, queue: str, paused: bool) -> None:
        if paused:
            self._changed[queue].pause()
        else:
            self._changed[queue].resume()


def _show(screen: Screen, watch: Watch) -> None:
    import curses  # not on Windows, and not for the other commands

    queue_log.logger.disabled = True  # it would write across the screen
    watch.loop.start()
    try:
        curses.wrapper(lambda window: _run(curses, window, screen, watch))
    except KeyboardInterrupt:
        pass  # one way to leave
    except curses.error as error:
        raise ValueError(f"this terminal can't be used ({error}): add --once") from None
    finally:
        watch.loop.stop(1.0)
        queue_log.logger.disabled = False


def _run(curses: Any, window: Any, screen: Screen, watch: Watch) -> None:
    styles = _styles(curses)
    try:
        curses.curs_set(0)
    except curses.error:
        pass
    curses.set_escdelay(25)
    window.timeout(int(TICK * 1000))
    while not screen.over:
        width, height = os.get_terminal_size(sys.stdout.fileno())
        if curses.is_term_resized(height, width):  # whatever LINES and COLUMNS say
            curses.resizeterm(height, width)
        _draw(curses, window, screen.lines(watch.snapshot, width, height), styles)
        try:
            key = window.get_wch()
        except curses.error:  # no key in this time
            continue
        name = key if isinstance(key, str) else curses.keyname(key).decode()
        if not isinstance(key, str) and name not in NAMES:  # another key, or a terminal of another size
            continue
        if not (screen.is_typing and name in "kj"):
            name = NAMES.get(name, name)
        try:
            screen.press(name, watch.snapshot)
        except Exception as error:  # of the database: the screen goes on
            screen.fail(describe(error))
        watch.loop.wake()


def _draw(curses: Any, window: Any, lines: Sequence[Line], styles: dict[str, int]) -> None:
    window.erase()
    for number, line in enumerate(lines):
        try:
            window.addstr(number, 0, line.text, styles.get(line.style, 0))
        except curses.error:  # the last cell can't be written, and the terminal may have become smaller
            pass
    window.refresh()


def _styles(curses: Any) -> dict[str, int]:
    """Return the attributes; colours only where the terminal has them and ``NO_COLOR`` is not set."""
    styles = {
        "title": curses.A_BOLD, "heading": curses.A_REVERSE, "selected": curses.A_BOLD | curses.A_UNDERLINE,
        "error": curses.A_BOLD, "warning": curses.A_BOLD, "quiet": curses.A_DIM,
    }  # fmt: skip
    if os.environ.get("NO_COLOR") or not curses.has_colors():
        return styles
    curses.use_default_colors()
    for number, (style, colour) in enumerate((("error", curses.COLOR_RED), ("warning", curses.COLOR_YELLOW)), 1):
        curses.init_pair(number, colour, -1)
        styles[style] |= curses.color_pair(number)
    return styles
