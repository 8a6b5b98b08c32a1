"""The command line: ``python -m pq``."""

from __future__ import annotations

import argparse
import sys

from . import __version__, _sql, errors, schema
from .manager import PQ


def main(argv: list[str] | None = None) -> int:
    """Run a command.

    :param argv: the arguments; default: those of the process.
    :returns: the exit code: 0 done, 1 it failed, 2 wrong usage, 3 no connection.
    """
    args = _parser().parse_args(argv)
    try:
        return int(args.run(args) or 0)
    except (ValueError, TypeError) as error:
        print(f"pq: {error}", file=sys.stderr)
        return 2
    except (errors.ConnectionFailed, errors.ConnectionLost) as error:
        print(f"pq: no connection: {error}", file=sys.stderr)
        return 3
    except errors.PQError as error:
        print(f"pq: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pq", description="A transactional job queue for PostgreSQL.")
    parser.add_argument("--version", action="version", version=f"pq {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    database = argparse.ArgumentParser(add_help=False)
    database.add_argument("--dsn", help="where the table is (default: PQ_DSN, DATABASE_URL, or libpq's PG* variables)")
    table = argparse.ArgumentParser(add_help=False)
    table.add_argument("--table", default="queue", help="its name (default: queue)")
    table.add_argument("--schema", help="its schema (default: the search path decides)")

    create = commands.add_parser("create", parents=[database, table], help="create the table, or upgrade it")
    create.set_defaults(run=_create)

    sql = commands.add_parser("sql", parents=[table], help="print the SQL that create executes")
    sql.add_argument("--since", type=int, default=0, metavar="VERSION", help="only the steps after this version")
    sql.set_defaults(run=_sql_script)

    version = commands.add_parser("version", parents=[database, table], help="print the table's version and pq's")
    version.set_defaults(run=_version)

    demo = commands.add_parser("demo", help="watch jobs go through a PostgreSQL of one's own")
    demo.add_argument("folder", nargs="?", metavar="DIR", help="keep the database here (default: a temporary folder)")
    demo.set_defaults(run=_demo)
    return parser


def _create(args: argparse.Namespace) -> None:
    with PQ(args.dsn, table=args.table, schema=args.schema) as pq:
        pq.create()
        print(f"table {args.table}: version {pq.version()}")


def _sql_script(args: argparse.Namespace) -> None:
    print(schema.script(_sql.Table(args.table, args.schema), args.since), end="")


def _version(args: argparse.Namespace) -> None:
    with PQ(args.dsn, table=args.table, schema=args.schema) as pq:
        print(f"pq {__version__}, table {args.table}: version {pq.version()} of {schema.VERSION}")


def _demo(args: argparse.Namespace) -> int:
    from .demo import Demo

    return int(Demo(args.folder).run())
