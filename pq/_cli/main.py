"""The command line: ``python -m pq``, or ``pq``."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from contextlib import nullcontext
from typing import Any, NoReturn

from .. import __version__, errors
from .. import sql as _sql
from .._db import interruptible, own_driver
from .._table import schema
from . import jobs as _commands
from . import work as _work
from .jobs import positive
from .output import print_text, printable

EPILOG = """\
The database is the first of: --dsn, PQ_DSN, DATABASE_URL, libpq's PGHOST, PGDATABASE and so on. Others can see
arguments: a password is better kept in one of the variables, or in ~/.pgpass.

exit codes:
  0    done
  1    it failed, or not all that was named was there to be changed, or the answer was no; for demo: something did
       not hold; for doctor: something is wrong
  2    wrong usage: an argument, a name, data or a DSN that cannot be, a module that cannot be imported; --yes is
       missing where nobody can be asked
  3    no connection to the database
  130  interrupted by Ctrl-C
"""


def main(argv: list[str] | None = None) -> int:
    """Run a command.

    :param argv: the arguments; default: those of the process.
    :returns: the exit code, as the help text lists them.
    """
    try:
        try:
            return _run(argv)
        finally:
            print(end="", flush=True)  # now, while an error can still be told
    except OSError as error:
        if not isinstance(error, BrokenPipeError):  # whoever read has enough: | head
            _complain(error)
        if sys.stdout is not None:  # Python flushes once more at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _run(argv: list[str] | None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    if args.run is None:
        parser.print_help()
        return 0
    try:
        with interruptible() if hasattr(args, "dsn") else nullcontext():  # the others have threads
            return int(args.run(args) or 0)
    except (ValueError, TypeError, _work.UsageError) as error:
        _complain(error)
        return 2
    except (errors.ConnectionFailed, errors.ConnectionLost) as error:
        _complain(f"no connection: {error}")
        return 3
    except errors.PQError as error:
        _complain(error)
        return 1
    except own_driver().Error as error:
        _complain(str(error).partition("\n")[0])  # what follows is where in our SQL
        return 1
    except KeyboardInterrupt:
        return 130


def _complain(error: object) -> None:
    """One line, but for an `EmbeddedError`, which ends with the server's last words."""
    text = str(error) if isinstance(error, errors.EmbeddedError) else " ".join(str(error).split())
    print(f"pq: {printable(text)}", file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    """Does not repeat a password that stands where no DSN is expected."""

    def error(self, message: str) -> NoReturn:
        message = re.sub(r"://\S*@", "://***@", message)
        super().error(re.sub(r"(password\s*=\s*)('[^']*'|\S+)", r"\1***", message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="pq",
        description="A transactional job queue for PostgreSQL.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"pq {__version__}")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(metavar="COMMAND")

    database = _Parser(add_help=False)
    database.add_argument("--dsn", help="where the table is (default: PQ_DSN, DATABASE_URL, or libpq's PG* variables)")
    table = _Parser(add_help=False)
    table.add_argument("--table", default="queue", help="its name (default: queue)")
    table.add_argument("--schema", help="its schema (default: the search path decides)")

    create = commands.add_parser("create", parents=[database, table], help="create the table, or upgrade it")
    create.set_defaults(run=_create)

    sql = commands.add_parser("sql", parents=[table], help="print the SQL that create executes")
    sql.add_argument(
        "--since",
        type=int,
        default=0,
        choices=range(schema.VERSION + 1),
        metavar="VERSION",
        help="only the steps after this version of the table",
    )
    sql.set_defaults(run=_sql_script)

    version = commands.add_parser("version", parents=[database, table], help="print the table's version and pq's")
    version.set_defaults(run=_version)

    doctor = commands.add_parser("doctor", parents=[database, table], help="what is wrong, and what to do about it")
    doctor.add_argument("--json", action="store_true", help="a line of JSON for each finding")
    doctor.set_defaults(run=_doctor)

    _commands.add(commands, [database, table])
    _add_work(commands)
    _add_dead(commands, [database, table])

    demo = commands.add_parser("demo", help="watch jobs go through a PostgreSQL of one's own, for a few seconds")
    demo.add_argument("folder", nargs="?", metavar="DIR", help="keep the database here (default: a temporary folder)")
    demo.set_defaults(run=_demo)
    return parser


def _add_work(commands: Any) -> None:
    work = commands.add_parser("work", help="perform tasks")
    work.add_argument("target", metavar="MODULE:ATTRIBUTE", help="a PQ of pq.tasks, one of its queues, or a Worker")
    work.add_argument("-q", "--queues", metavar="A,B", help="these queues (default: all that have tasks)")
    work.add_argument("-c", "--threads", type=positive, help="how many jobs run at a time (default: 1)")
    work.add_argument("-p", "--processes", type=positive, default=1, help="so many such workers (default: 1)")
    work.add_argument("--batch", type=positive, metavar="N", help="how many are taken together at most (default: 500)")
    work.add_argument("--burst", action="store_true", help="stop when there are no jobs")
    work.add_argument("--max-jobs", type=positive, metavar="N", help="stop after so many")
    work.add_argument("--max-idle", type=float, metavar="S", help="stop after so many seconds without a job")
    work.add_argument(
        "--shutdown-timeout",
        type=int,
        metavar="S",
        help="seconds that running jobs have when the worker is to stop (default: 30)",
    )
    work.add_argument("-v", "--verbose", action="store_true", help="log more")
    work.add_argument("--log-json", action="store_true", help="log lines of JSON")
    work.add_argument("--supervised", type=int, help=argparse.SUPPRESS)
    work.set_defaults(run=_work.work, **_work.DEFAULTS)


def _add_dead(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    dead = commands.add_parser("dead", help="the jobs that were given up")
    actions = dead.add_subparsers(metavar="ACTION", required=True, dest="action")
    for name, text in (("list", "show them"), ("retry", "have them tried again"), ("discard", "delete them")):
        action = actions.add_parser(name, parents=parents, help=text)
        action.add_argument("queue", help="its name")
        if name == "list":
            action.add_argument("--limit", type=positive, default=100, help="at most so many (default: 100)")
            action.add_argument("--json", action="store_true", help="a JSON document, with the jobs' data")
        else:
            action.add_argument("ids", nargs="*", type=int, metavar="ID")
            action.add_argument("--all", action="store_true", help="all of them")
        if name == "retry":
            action.add_argument("--in", dest="within", metavar="TIME", help="after this time, such as 30s or 1h30m")
        if name == "discard":
            action.add_argument("--yes", action="store_true", help="do not ask")
    dead.set_defaults(run=_work.dead)


def _create(args: argparse.Namespace) -> None:
    with _work.opened(args) as pq:
        pq.create()
        print_text(f"table {_name(args)}: version {pq.version()}")


def _sql_script(args: argparse.Namespace) -> None:
    print(schema.script(_sql.TableName(args.table, args.schema), args.since), end="")


def _version(args: argparse.Namespace) -> None:
    with _work.opened(args) as pq:
        found = pq.version()
    state = f"version {found}" if found else "missing"
    hint = "" if found >= schema.VERSION else ", to be brought up by create"
    print_text(f"pq {__version__}, for version {schema.VERSION}; table {_name(args)}: {state}{hint}")


def _doctor(args: argparse.Namespace) -> int:
    with _work.opened(args) as pq:
        findings = pq.doctor()
    for finding in findings:
        print_text(json.dumps(finding._asdict()) if args.json else str(finding))
    if not findings and not args.json:
        print_text(f"table {_name(args)}: nothing is wrong")
    return int(any(finding.severity != "note" for finding in findings))


def _name(args: argparse.Namespace) -> str:
    return _sql.TableName(args.table, args.schema).quoted


def _demo(args: argparse.Namespace) -> int:
    from .demo import Demo

    return Demo(args.folder).run()
