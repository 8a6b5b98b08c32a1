"""The loggers ``pq`` and ``pq.tasks``, made safe: no row can forge a line, and no handler can end a worker."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from ._text import printable
from ._traceback import traceback_of

if TYPE_CHECKING:
    Adapter = logging.LoggerAdapter[logging.Logger]
else:
    Adapter = logging.LoggerAdapter  # before Python 3.11 it can't be subscripted


class Safe(logging.Filter):
    """Escapes what others wrote, before any handler of the application's sees it.

    A traceback holds the message of its exception, and so whatever that quotes of a row. Its lines are indented, so
    that none of them can pass for a line of the log. `exc_info` stays what it is, for handlers that report exceptions.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            message = record.getMessage()
            if not message.isprintable():
                record.msg, record.args = printable(message), None
            if record.exc_info and record.exc_info[1] is not None and record.exc_text is None:
                text = traceback_of(record.exc_info[1]) or ""
                record.exc_text = "\n".join(f"  {printable(line)}" for line in text.split("\n") if line)
        except Exception:  # arguments that do not fit the message: logging itself tells of that
            pass
        return True


class Log(Adapter):
    """A logger that never raises: a handler, a filter or a record factory of the application's may."""

    def __init__(self, name: str) -> None:
        logger = logging.getLogger(name)
        super().__init__(logger, {})
        logger.addFilter(Safe())

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        return msg, kwargs

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        try:
            super().log(level, msg, *args, **kwargs)
        except BaseException as error:  # there is nowhere left to tell it
            # sys.exit() would end just this thread; in the main thread a signal handler may have raised it
            if not isinstance(error, Exception) and threading.current_thread() is threading.main_thread():
                raise


#: What queues tell, and what workers tell.
queue_log = Log("pq")
worker_log = Log("pq.tasks")
