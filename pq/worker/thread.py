"""Threads that perform one job after the other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import count

from .._loop import mark_own_thread


class WorkerThread:
    """Holds a thread instead of being one: `threading.Thread` has private names, which differ between Pythons.

    :param perform_next: performs one job; returns whether the thread is to go on.
    :param ended: called at the end of the thread, with what `perform_next` raised, or None.
    :ivar abandoned: the handler hangs, and another thread has taken the place of this one, which ends with the handler.
    """

    def __init__(
        self,
        name: str,
        perform_next: Callable[[WorkerThread], bool],
        ended: Callable[[WorkerThread, BaseException | None], object],
    ) -> None:
        self.abandoned = False
        self._name = name
        self._perform_next = perform_next
        self._ended = ended
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def ident(self) -> int | None:
        return self._thread.ident

    def start(self) -> None:
        """
        :raises RuntimeError: no thread can be started.
        """
        self._thread.start()

    def show(self, job_id: int | None) -> None:
        """Have the name of the thread end with the id of the job that it runs."""
        self._thread.name = self._name if job_id is None else f"{self._name}: job {job_id}"

    def _run(self) -> None:
        error: BaseException | None = None
        mark_own_thread()
        try:
            while not self.abandoned and self._perform_next(self):
                pass
        except BaseException as raised:
            error = raised
        self._ended(self, error)


class ThisThread:
    """The thread that called `Worker.run_once`."""

    def __init__(self) -> None:
        self.ident: int = threading.get_ident()

    def show(self, job_id: int | None) -> None:
        """It has a name of its own."""


class Threads:
    """The threads of a worker.

    :param name: of the worker.
    :param perform_next: as of `WorkerThread`.
    :param ended: called when a thread has ended, with its error, or None.
    :ivar running: those that perform jobs.
    :ivar abandoned: those whose handlers hang.
    """

    def __init__(
        self,
        name: str,
        perform_next: Callable[[WorkerThread], bool],
        ended: Callable[[BaseException | None], object],
    ) -> None:
        self.running: set[WorkerThread] = set()
        self.abandoned: set[WorkerThread] = set()
        self._name = name
        self._perform_next = perform_next
        self._ended = ended
        self._lock = threading.Lock()
        self._numbers = count(1)

    def start(self) -> None:
        """Start one more.

        :raises RuntimeError: no thread can be started.
        """
        thread = WorkerThread(f"{self._name} {next(self._numbers)}", self._perform_next, self._end)
        with self._lock:
            self.running.add(thread)
        try:
            thread.start()
        except BaseException:
            self._forget(thread)
            raise

    def abandon(self, thread: WorkerThread) -> int:
        """Do not wait for a thread any longer; return how many there are of these."""
        thread.abandoned = True
        with self._lock:
            self.running.discard(thread)
            self.abandoned.add(thread)
            return len(self.abandoned)

    def _end(self, thread: WorkerThread, error: BaseException | None) -> None:
        self._forget(thread)
        self._ended(error)

    def _forget(self, thread: WorkerThread) -> None:
        with self._lock:
            self.running.discard(thread)
            self.abandoned.discard(thread)
