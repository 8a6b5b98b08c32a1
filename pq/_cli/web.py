"""The command web: the pages that show the queues."""

from __future__ import annotations

import argparse
import signal
from typing import Any

from . import logs
from .app import UsageError
from .output import print_text
from .parser import Commands, database_options, opened, table_options


def add(commands: Any) -> None:
    """Declare the command."""
    web = Commands(commands, [database_options(), table_options()]).add(_web, "web", "show the queues in a browser")
    option = web.add_argument
    option("--host", default="127.0.0.1", help="the address to listen on (default: 127.0.0.1)")
    option("--port", type=int, default=8420, metavar="N", help="the port (default: 8420; 0: a free one)")
    option("--read-only", action="store_true", help="let nobody change anything")
    option("--password-file", metavar="FILE", help="a file of lines NAME:PASSWORD, which nobody else may read")
    option(
        "--name", action="append", default=[], metavar="NAME", help="a name under which browsers reach it; repeatable"
    )
    web.set_defaults(own_signals=True)


def _web(args: argparse.Namespace) -> int:
    try:
        from ..web.serve import read_passwords, serve
    except ImportError as error:
        raise UsageError(f"pq web needs its extra: pip install '.[web]' in pq's checkout ({error})") from error
    if not 0 <= args.port < 65536:
        raise ValueError(f"--port must be from 0 to 65535: {args.port}")
    passwords = None if args.password_file is None else read_passwords(args.password_file)
    logs.set_up("info", False)
    signal.signal(signal.SIGTERM, _stop)
    with opened(args) as pq:
        serve(
            pq, args.host, args.port, read_only=args.read_only, passwords=passwords, names=args.name,
            started=lambda url: print_text(f"Serving on {url} - stop with Ctrl-C"),
        )  # fmt: skip
    return 0


def _stop(number: int, frame: object) -> None:
    raise KeyboardInterrupt
