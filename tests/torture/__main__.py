"""``python -m tests.torture``: exit code 0 if all held, else 1."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .cast import FULL, OLD, SMALL
from .checker import Report
from .nemesis import KINDS, Nemesis, schedule
from .run import run


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description="Torture pq, and see what is lost.")
    parser.add_argument("--seconds", type=float, default=60, help="how long (default: 60), without the draining")
    parser.add_argument("--seed", type=int, default=7, help="decides all faults (default: 7)")
    parser.add_argument("--interval", type=float, default=0.7, help="mean seconds between faults (default: 0.7)")
    parser.add_argument("--faults", default=",".join(KINDS), help="kinds, separated by commas; '' for none")
    parser.add_argument("--small", action="store_true", help="few processes")
    parser.add_argument("--against", choices=["1.9.1"], help="torture the real pq 1.9.1 instead, from PyPI")
    parser.add_argument("--old", type=Path, help="the folder that pq 1.9.1 was installed into; default: pip is asked")
    parser.add_argument("--drain", type=float, default=120, help="seconds for what is left at the end (default: 120)")
    parser.add_argument("--folder", type=Path, help="keep the histories here, in an empty folder")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    args = parser.parse_args()
    args.kinds = [kind for kind in args.faults.split(",") if kind]
    if unknown := set(args.kinds) - KINDS.keys():
        parser.error(f"unknown faults: {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
    if args.against:
        args.kinds = [kind for kind in args.kinds if kind != "create"]  # that would upgrade the table
    return args


def installed(folder: Path) -> Path:
    """pq 1.9.1, from PyPI, in a folder of its own."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), "pq==1.9.1"]
    subprocess.run(command, check=True)
    return folder


def figures(args: argparse.Namespace, report: Report, nemesis: Nemesis, seconds: float) -> dict[str, object]:
    return {
        "seed": args.seed,
        "seconds": round(seconds, 1),
        "acknowledged puts": report.acknowledged,
        "puts of unknown outcome": report.unknown,
        "aborted puts": report.aborted,
        "faults": nemesis.done.total(),
        "faults by kind": dict(nemesis.done),
        "faults that fell into others": len(nemesis.errors),
        "lost": report.lost,
        "jobs delivered": report.delivered,
        "redelivered": report.redelivered,
        "redelivery rate": round(report.redelivered / max(1, report.delivered), 5),
        "handled more than once": report.duplicates,
        "dead": report.dead,
        "recovery seconds p50": round(report.recovery(0.5), 3),
        "recovery seconds p99": round(report.recovery(0.99), 3),
        "recovery seconds max": round(report.recovery(1), 3),
        "wrong": {kind: len(what) for kind, what in report.wrong.items()},
    }


def main() -> int:
    args = arguments()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(f"ended by signal {number}"))  # leave nothing behind
    faults = schedule(args.seed, args.seconds, args.interval, args.kinds)

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="pq-torture-") as folder:
        began = time.monotonic()
        home = args.folder or Path(folder)
        home.mkdir(parents=True, exist_ok=True)
        old = (args.old or installed(Path(folder, "1.9.1"))) if args.against else None
        roles = OLD if old else SMALL if args.small else FULL
        report, nemesis = run(roles, args.seed, args.seconds, faults, home, args.drain, say, old)
        told = figures(args, report, nemesis, time.monotonic() - began)
    if args.json:
        print(json.dumps(told))
    else:
        for name, figure in told.items():
            print(f"{name:>30}  {figure}")
    for kind, what in report.wrong.items():
        for item in what[:5]:
            say(f"{kind}: {item}")
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
