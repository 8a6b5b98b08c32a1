"""What a worker does while the database cannot be reached."""

from __future__ import annotations

import random
import threading

from .._logs import worker_log as logger
from .._text import describe

#: Seconds of the first pause; each further one is twice as long, up to the longest.
FIRST = 0.1
LONGEST = 5.0


class Outage:
    """Shared by the threads of a worker: one line in the log when it begins, one when it ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pause = FIRST
        self.error: BaseException | None = None
        self.served = False  # ever

    def pause(self, error: BaseException) -> float:
        """A thread has met this error. Returns for how many seconds it is to leave the database alone."""
        with self._lock:
            if self.error is None:
                logger.warning("the database does not serve this worker: %s", describe(error))
            self.error = error
            pause = self._pause
            self._pause = min(2 * pause, LONGEST)
        return pause * random.uniform(0.5, 1)  # not all workers at once, when it is back

    def over(self) -> None:
        """A thread was served."""
        self.served = True
        if self.error is not None:
            with self._lock:
                self.error = None
                self._pause = FIRST
            logger.warning("the database serves this worker again")
