"""The command line: ``python -m pq``, or ``pq``."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import nullcontext, redirect_stderr
from typing import Any

from .. import errors
from .._db import interruptible, own_driver
from .._text import printable
from .._version import __version__
from . import call, dead, doctor, jobs, limits, queues, schedules, streams, table, top, trial, web, work
from .app import UsageError
from .output import silence, tell
from .parser import Parser

EPILOG = """\
The database is the first of: --dsn, PQ_DSN, DATABASE_URL, libpq's PGHOST, PGDATABASE and so on. Other users of the
machine can see arguments: keep a password in one of the variables, or in ~/.pgpass.

exit codes:
  0    done
  1    failed; or some of the jobs that were named could not be changed; or the answer was no. demo: a promise did not
       hold. doctor: something is wrong
  2    wrong usage: an argument, a name, data or a DSN that is not valid; a module that cannot be imported; --yes is
       missing where nobody can be asked
  3    no connection to the database
  130  interrupted by Ctrl-C
"""


def main(argv: list[str] | None = None, prog: str = "pq") -> int:
    """Run a command.

    :param argv: the arguments; default: those of the process.
    :param prog: what the help calls the program.
    :returns: the exit code, as the help text lists them.
    """
    if sys.stderr is None:  # print() would write to the standard output instead
        with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
            return main(argv, prog)
    code = 0
    try:
        try:
            code = _run(argv, prog)
        finally:
            print(end="", flush=True)  # now, while an error can still be told
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            _complain(error)
            code = 1
        # else whoever reads has enough, as head has: that is no failure, lest a script with pipefail stops
        if sys.stdout is not None:
            silence(sys.stdout)
    return code


def _run(argv: list[str] | None, prog: str) -> int:
    parser = _parser(prog)
    args = parser.parse_args(argv)
    if args.run is None:
        parser.print_help()
        return 0
    try:
        # the others have threads
        with interruptible() if hasattr(args, "dsn") and not hasattr(args, "own_signals") else nullcontext():
            return int(args.run(args) or 0)
    except (ValueError, TypeError, UsageError) as error:
        _complain(error)
        return 2
    except (errors.ConnectionFailed, errors.ConnectionLost) as error:
        _complain(f"no connection: {error}")
        return 3
    except errors.TableMissing as error:
        _complain(f"{error} From a shell: {prog} create")
        return 1
    except (errors.PQError, ImportError) as error:  # an extra is not there, or a driver
        _complain(error)
        return 1
    except own_driver().Error as error:
        _complain(str(error).partition("\n")[0])  # the other lines show where in pq's SQL
        return 1
    except KeyboardInterrupt:
        return 130


def _complain(error: object) -> None:
    """Print an error in one line; an `EmbeddedError` in several, since it ends with the server's last words."""
    text = str(error) if isinstance(error, errors.EmbeddedError) else " ".join(str(error).split())
    tell(f"pq: {printable(text, newlines=True)}")


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = Parser(
        prog=prog,
        description="A transactional job queue for PostgreSQL.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"pq {__version__}")
    parser.set_defaults(run=None)
    commands: Any = parser.add_subparsers(metavar="COMMAND")
    for module in (table, doctor, top, jobs, queues, limits, work, call, trial, dead, schedules, streams, web):
        module.add(commands)
    demo = commands.add_parser("demo", help="watch jobs go through a PostgreSQL of its own, for a few seconds")
    demo.add_argument("folder", nargs="?", metavar="DIR", help="keep the database here (default: a temporary folder)")
    demo.set_defaults(run=_demo)
    return parser


def _demo(args: argparse.Namespace) -> int:
    from .demo import Demo

    return Demo(args.folder).run()
