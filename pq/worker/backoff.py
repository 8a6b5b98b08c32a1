"""The pauses of a worker while the database does not serve it."""

from __future__ import annotations

import random
import threading

from .._logs import worker_log as logger

#: Seconds of the first pause. Each further one is twice as long, up to the longest.
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0


class Backoff:
    """Growing pauses, shared by the threads of a worker. The log has a line when the database stops serving the worker,
    and one when it serves it again.

    :ivar error: why the database does not serve the worker now; None: it does.
    :ivar served: whether it ever has.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pause = FIRST_PAUSE
        self.error: BaseException | None = None
        self.served: bool = False

    def pause(self, error: BaseException) -> float:
        """Note an error that a thread met; return the seconds for which that thread must not use the database."""
        with self._lock:
            began = self.error is None
            self.error = error
            pause = self._pause
            self._pause = min(2 * pause, LONGEST_PAUSE)
        if began:
            text = " ".join(str(error).split())
            logger.warning("the database does not serve this worker: %s: %s", type(error).__name__, text)
        return pause * random.uniform(0.5, 1)  # not all workers at once, when the database is back

    @property
    def state(self) -> str:
        """``'ok'``, or the name of the error's class."""
        return "ok" if self.error is None else type(self.error).__name__

    def over(self) -> None:
        """Note that a thread was served."""
        self.served = True
        if self.error is not None:
            with self._lock:
                self.error = None
                self._pause = FIRST_PAUSE
            logger.warning("the database serves this worker again")
