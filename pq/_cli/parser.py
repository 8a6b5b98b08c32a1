"""What the commands have in common: options, the forms of arguments, and the table that a command is for."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple, NoReturn

from .._args import JOB_IDS
from .._manager import PQ
from .._queue.browse import STATES
from .._table.look import looking
from .._text import printable
from .._times import Delay, TimeSpec, duration, wait_of
from ..errors import StatementTimeout
from .exact import dumps, loads
from .output import tell

#: The largest number that PostgreSQL can hold.
MOST = JOB_IDS.stop - 1

TIME = "30s or 1h30m from now, or a time such as 2030-01-31T08:00Z"

#: Marks what stands behind ``--``. No argument of a process has this character.
_ARGUMENT = "\0"

_INTEGER = re.compile(r"[+-]?[0-9]{1,1000}")


class Parser(argparse.ArgumentParser):
    """Takes options between arguments, as in ``cancel mail --yes 1 2``, which `argparse` takes for the end of the ids.

    It does not repeat a password that stands where no DSN is expected.
    """

    _mixed = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register("type", None, plain)
        self.register("type", int, whole)

    def add_subparsers(self, **kwargs: Any) -> Any:
        self._mixed = False  # only a parser of a command can mix them
        return super().add_subparsers(**kwargs)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if not self._mixed:
            return super().parse_known_args(args, namespace)
        if "--" in args:  # which is gone after the first of two passes
            at = args.index("--") + 1
            args = [*args[:at], *(f"{_ARGUMENT}{each}" for each in args[at:])]
        self._mixed = False
        try:
            found, left = self.parse_known_intermixed_args(args, namespace)
        finally:
            self._mixed = True
        return found, [plain(each) for each in left]

    def error(self, message: str) -> NoReturn:
        message = re.sub(r"://\S*@", "://***@", message)
        message = re.sub(r"(password\s*=\s*)('[^']*'|\S+)", r"\1***", message)
        tell(f"{self.format_usage()}{self.prog}: error: {message}")
        sys.exit(2)


def plain(text: str) -> str:
    """Return an argument as it was given."""
    return text.removeprefix(_ARGUMENT)


def whole(text: str) -> int:
    """Read what PostgreSQL writes. int() takes ``3_7`` for a number, too."""
    if not _INTEGER.fullmatch(text := plain(text)):
        raise argparse.ArgumentTypeError(f"must be a whole number, not {text!r}")
    return int(text)


class Where(NamedTuple):
    """Which table the commands are for, where no option says it.

    :ivar dsn: a DSN, or a function that returns it; None: the environment says it.
    """

    dsn: str | Callable[[], str] | None = None
    table: str = "queue"
    schema: str | None = None


#: What a framework has set in place of the options.
_NOWHERE = Where()
where: ContextVar[Where] = ContextVar("pq_where", default=_NOWHERE)


def database_options() -> Parser:
    """Return the options that say where the database is."""
    return _options(where.get())[0]


def table_options() -> Parser:
    """Return the options that say which table of the database."""
    return _options(where.get())[1]


@lru_cache(1)  # making them anew for each command takes much of the time of `pq --help`
def _options(where: Where) -> tuple[Parser, Parser]:
    dsn, table, schema = where
    database = Parser(add_help=False)
    default = "PQ_DSN, DATABASE_URL, or libpq's PG* variables" if dsn is None else "that of the settings"
    database.add_argument("--dsn", default=dsn, help=f"the database (default: {default})")
    parser = Parser(add_help=False)
    parser.add_argument("--table", default=table, help=f"name of the table (default: {table})".replace("%", "%%"))
    default = (schema or "the search path decides").replace("%", "%%")
    parser.add_argument("--schema", default=schema, help=f"schema of the table (default: {default})")
    return database, parser


def opened(args: argparse.Namespace) -> PQ:
    """Return the PQ that these options mean."""
    return PQ(args.dsn, table=args.table, schema=args.schema, encode=dumps, decode=loads)


@contextmanager
def looks(args: argparse.Namespace) -> Iterator[PQ]:
    """Yield the PQ for a command that only looks, and does not wait for a session that has locked a table."""
    with opened(args) as pq:
        yield pq._on(looking(pq._table, None))


def warn_unknown(pq: PQ, name: str) -> None:
    """Tell on the standard error output that the name of a queue may be misspelt."""
    queue = pq[name].name
    try:
        others = [each.name for each in pq.overview().queues]
    except StatementTimeout:  # the command itself has done what it should
        return
    if queue not in others:
        known = f"those that have: {', '.join(map(repr, others[:10]))}{', ...' if others[10:] else ''}"
        text = f"pq: queue {queue!r} has no jobs that are not finished; {known if others else 'no queue has'}"
        tell(printable(text))


class Commands:
    """Declares commands with arguments that several of them have.

    :param commands: the subparsers of `argparse`.
    :param parents: the options that all of them have.
    """

    def __init__(self, commands: Any, parents: Sequence[argparse.ArgumentParser] = ()) -> None:
        self._commands = commands
        self._parents = parents
        self._known: dict[str, dict[str, Any]] = {
            "queue": {"metavar": "QUEUE", "help": "name of the queue"},
            "schedule": {"metavar": "NAME", "help": "name of the schedule"},
            "stream": {"metavar": "STREAM", "help": "name of the stream"},
            "subscription": {"metavar": "SUBSCRIPTION", "help": "name of the subscription"},
            "id": {"metavar": "ID", "type": int, "help": "id of the job"},
            "--json": {"action": "store_true", "help": "print a JSON document"},
            "--yes": {"action": "store_true", "help": "do not ask"},
            "--state": {"choices": STATES, "metavar": "STATE", "help": f"only jobs that are {', '.join(STATES)}"},
        }

    def add(self, run: Any, name: str, help: str, *arguments: str) -> argparse.ArgumentParser:
        """Declare one.

        :param run: what it does; it is called with the parsed arguments, and may return an exit code.
        """
        parser: argparse.ArgumentParser = self._commands.add_parser(name, parents=self._parents, help=help)
        parser.set_defaults(run=run)
        for argument in arguments:
            parser.add_argument(argument, **self._known[argument])
        return parser


# -- the forms of arguments, for `argparse`

#: A number of seconds. What is longer may be a date without hyphens.
_SECONDS = re.compile(r"[0-9]{1,7}(\.[0-9]+)?")


def positive(text: str) -> int:
    """Read a whole number of at least 1."""
    number = whole(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1: {number}")
    if number > MOST:
        raise argparse.ArgumentTypeError(f"must be at most {MOST}: {number}")
    return number


def time(text: str) -> TimeSpec:
    """Read a time, relative or absolute."""
    if _SECONDS.fullmatch(text):
        return float(text)
    try:
        duration("time", text)
        return text
    except ValueError:
        pass
    try:
        # before Python 3.11 "Z" is not understood
        return datetime.fromisoformat(f"{text[:-1]}+00:00" if text[-1:] in ("Z", "z") else text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a time is {TIME}, not {text!r}") from None


def time_or_none(text: str) -> TimeSpec:
    """Read a time, or the word ``none``."""
    return None if text == "none" else time(text)


def span_or_none(text: str) -> Delay | None:
    """Read how long something is kept; ``none``: for ever."""
    return None if text == "none" else span(text)


def span(text: str) -> Delay:
    """Read how long something is: ``30s``, or a number of seconds."""
    return float(text) if _SECONDS.fullmatch(text) else text


def seconds(text: str) -> float:
    """Read a number of seconds, or ``30s``."""
    try:
        return wait_of(span(text), "a time")
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def json_value(text: str, what: str) -> Any:
    """Read JSON, from the standard input if the text is ``-``.

    :raises ValueError: it is not JSON.
    """
    if text == "-":
        text = sys.stdin.read() if sys.stdin is not None else ""
    return parsed(text, what)


def parsed(text: str, what: str) -> Any:
    """Read JSON.

    :raises ValueError: it is not JSON.
    """
    try:
        text.encode()  # bytes of an argument that are not UTF-8 became lone surrogates
        return loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what} must be JSON: {error}") from None
