"""The command line."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from . import report
from .figures import FIGURES
from .install import ROOT, Installed
from .peers import PEERS
from .run import Bench, say
from .server import Server
from .sizes import FULL, QUICK, TINY, Sizes

#: Where the pages of the documentation include the results from.
GENERATED = ROOT / "docs" / "_generated"


def main(arguments: list[str] | None = None) -> int:
    args = parsed(arguments)
    if args.list:
        for figure in FIGURES:
            print(f"{figure.name:14} {figure.what}{f' ({figure.unit})' if figure.unit else ''}")
        return 0
    try:
        found = measured(args)
    except KeyboardInterrupt:
        print("\ninterrupted: nothing was left behind", file=sys.stderr)
        return 130
    print(report.text(found))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    if args.docs:
        for name, content in report.files(found).items():
            (GENERATED / name).write_text(content, "utf-8")
    return 0


def measured(args: argparse.Namespace) -> report.Found:
    begun = time.monotonic()
    sizes: Sizes = args.sizes
    figures = [figure for figure in FIGURES if figure.name in (args.only or usual(sizes))]
    peers = args.peers or list(PEERS)
    with ExitStack() as stack:
        stack.enter_context(interruptible())
        say("installing the peers")
        folder = args.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pq-benchmark-peers-")))
        installed = Installed(folder, peers, {"pgque": args.pgque} if args.pgque else {})
        say("starting PostgreSQL")
        server = stack.enter_context(Server())
        bench = Bench(server, installed, sizes, peers, begun + sizes.budget)
        if not args.only and (others := {figure.name for figure in FIGURES} - usual(sizes)):
            bench.notes.append(f"{', '.join(sorted(others))}: too slow for this size, unless asked for with --only")
        bench.run(figures)
        say("")
        return report.found(bench, time.monotonic() - begun)


def usual(sizes: Sizes) -> set[str]:
    """Names of the figures that are measured unless others are asked for."""
    return {figure.name for figure in FIGURES if figure.brief or not sizes.brief}


@contextmanager
def interruptible() -> Iterator[None]:
    """A signal ends it in order, whatever it is at; further ones do not disturb that."""

    def interrupt(*_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description="Measure pq and its peers side by side.")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", dest="sizes", action="store_const", const=QUICK, help="in three to four minutes")
    size.add_argument("--tiny", dest="sizes", action="store_const", const=TINY, help="only to see that it runs")
    parser.add_argument("--only", nargs="+", metavar="FIGURE", choices=[f.name for f in FIGURES], help="see --list")
    parser.add_argument("--peers", nargs="+", metavar="PEER", choices=list(PEERS), help=", ".join(PEERS))
    parser.add_argument("--rounds", type=int, metavar="N", help="how often everything is measured")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="install the peers there, or find them there")
    parser.add_argument("--pgque", type=Path, metavar="FILE", help="its sql/pgque.sql, which is downloaded otherwise")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured, round by round")
    parser.add_argument("--docs", action="store_true", help="write the tables and the plot to docs/_generated")
    parser.add_argument("--list", action="store_true", help="list the figures")
    parser.set_defaults(sizes=FULL)
    args = parser.parse_args(arguments)
    if args.docs and (args.only or args.peers):
        parser.error("--docs replaces all tables: it goes with neither --only nor --peers")
    if args.rounds is not None:
        args.sizes = replace(args.sizes, rounds=max(1, args.rounds))
    if args.keep:
        args.keep = Path(os.path.abspath(args.keep))
        args.keep.mkdir(parents=True, exist_ok=True)
    return args


if __name__ == "__main__":
    sys.exit(main())
