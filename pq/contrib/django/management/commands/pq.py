"""``manage.py pq``: the command line of pq, on the database of the setting ``PQ``."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from functools import partial
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError
from django.db import connections
from django.utils import autoreload

from pq._cli import work as work_command
from pq._cli.main import main
from pq._cli.parser import Where, where
from pq.contrib.django import conf, work
from pq.contrib.django.bases import BaseCommand
from pq.contrib.django.connections import dsn_of

#: Options with which a worker ends by itself, or has processes of its own: it is not loaded again.
_ENDING = {"--help", "-h", "--burst", "--max-jobs", "--max-idle", "--processes", "-p"}

#: Seconds that jobs have to end before the worker is loaded again.
RELOAD_TIMEOUT = 5.0


class Command(BaseCommand):
    """Passes its arguments on."""

    help: str = "The command line of pq. `manage.py pq -- --help` lists the commands; `work` performs the tasks."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""
        option = parser.add_argument
        option("--pq", default="default", metavar="NAME", help="an entry of the setting PQ (default: default)")
        option("--no-reload", action="store_true", help="with DEBUG: do not load a worker again when code changes")
        parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="COMMAND …", help="what pq is to do")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the command.

        :raises CommandError: it failed; the error has its exit code.
        """
        alias, arguments = options["pq"], [each for each in options["arguments"] if each != "--"]
        try:
            setting = conf.read().get(alias)
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from None
        if setting is None:
            raise CommandError(f"the setting PQ has no entry {alias!r}: it has {', '.join(conf.read())}")
        token = where.set(Where(partial(dsn_of, setting.database), setting.name.name, setting.name.schema))
        try:
            if arguments[:1] == ["work"]:
                code = self._work(alias, arguments[1:], settings.DEBUG and not options["no_reload"])
            else:
                code = main(arguments, "manage.py pq")
        finally:
            where.reset(token)
        if code:
            sys.exit(code)

    def _work(self, alias: str, arguments: list[str], reloads: bool) -> int:
        """Run a worker for this PQ, which is the one that the arguments need not name."""
        command = ["work", f"{work.__name__}:{alias}", *arguments]
        if not any(each.split("=")[0] == "--allow" for each in arguments):
            command += [part for name in work.packages() for part in ("--allow", name)]
        # processes of this one find the project, too: it may be elsewhere than the current folder
        paths = [sys.path[0], *filter(None, [os.environ.get("PYTHONPATH")])]
        os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
        if not reloads or any(each.split("=")[0] in _ENDING for each in arguments):
            return main(command, "manage.py pq")
        return _Reloading(command).run()


class _Reloading:
    """A worker that begins anew when code changes, as ``runserver`` does.

    :param command: the arguments for pq.
    """

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self._thread: threading.Thread | None = None

    def run(self) -> int:
        """Run until Ctrl-C or SIGTERM."""
        autoreload.file_changed.connect(self._stop_for_change, weak=False)
        try:
            autoreload.run_with_reloader(self._perform)
        finally:
            self._stop()
        return 0

    def _perform(self) -> None:
        """Run the worker, in the thread that Django has made for it."""
        self._thread = threading.current_thread()
        try:
            main(self._command, "manage.py pq")
        finally:
            connections.close_all()

    def _stop_for_change(self, **kwargs: Any) -> None:
        self._stop()

    def _stop(self) -> None:
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            for worker in list(work_command.running):
                worker.stop()
            thread.join(RELOAD_TIMEOUT)
