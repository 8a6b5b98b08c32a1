"""The commands for the table: create, sql, version."""

from __future__ import annotations

import argparse
from typing import Any

from .._args import UNSET, check_text
from .._streams import script
from .._table import migrations
from .._version import __version__
from ..sql import TableName
from .building import shown_indexes
from .output import print_text
from .parser import Commands, database_options, opened, span_or_none, table_options


def add(commands: Any) -> None:
    """Declare the commands."""
    with_table = Commands(commands, [database_options(), table_options()])
    create = with_table.add(_create, "create", "create the table, or upgrade it")
    span: dict[str, Any] = {"type": span_or_none, "default": UNSET, "metavar": "TIME"}
    create.add_argument("--retain", **span, help="keep finished jobs so long, as 7d; 0: not at all; none: for ever")
    create.add_argument("--retain-dead", **span, help="keep dead jobs so long; none: for ever")
    sql = Commands(commands, [table_options()]).add(_sql, "sql", "print the SQL that create executes")
    sql.add_argument("--stream", metavar="NAME", help="print the SQL that creates a stream instead")
    sql.add_argument("--no-transaction", action="store_true", help="without begin and commit: whoever runs it has them")
    direction = sql.add_mutually_exclusive_group()
    direction.add_argument(
        "--since",
        type=int,
        default=0,
        choices=range(migrations.VERSION + 1),
        metavar="VERSION",
        help="print only the steps after this version of the table",
    )
    direction.add_argument(
        "--down",
        type=int,
        nargs="?",
        const=migrations.VERSION - 1,
        choices=range(migrations.OLDEST, migrations.VERSION),
        metavar="VERSION",
        help="print the way back to an older version instead, by default the one before",
    )
    with_table.add(_version, "version", "print the version of the table and that of pq")


def name_of(args: argparse.Namespace) -> str:
    """Return the quoted name of the table."""
    return TableName(args.table, args.schema).quoted


def _create(args: argparse.Namespace) -> None:
    with opened(args) as pq:
        with shown_indexes(pq):
            pq.create(retain=args.retain, retain_dead=args.retain_dead)
        print_text(f"table {name_of(args)}: version {pq.version()}")


def _sql(args: argparse.Namespace) -> None:
    table = TableName(args.table, args.schema)
    if args.stream is not None:
        text = script(table, check_text("stream name", args.stream))
    else:
        text = migrations.script(table, args.since) if args.down is None else migrations.way_back(table, args.down)
    print(migrations.without_transaction(text) if args.no_transaction else text, end="")


def _version(args: argparse.Namespace) -> None:
    with opened(args) as pq:
        found = pq.version()
    state = f"version {found}" if found else "missing"
    hint = "" if found >= migrations.VERSION else "; run create to bring it up"
    print_text(f"pq {__version__}, for version {migrations.VERSION}; table {name_of(args)}: {state}{hint}")
