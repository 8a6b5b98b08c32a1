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

from .checker import Report
from .nemesis import Nemesis
from .run import run
from .schedule import KINDS, Fault, Schedule
from .server import Server
from .shrink import shrink

#: Runs that `--shrink` may take.
RUNS = 30

#: Seconds for which a shorter schedule goes on after its last fault.
AFTER = 5.0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description="Torture pq, and see what is lost.")
    parser.add_argument("--seconds", type=float, default=60, help="how long (default: 60), without the draining")
    parser.add_argument("--seed", type=int, default=7, help="decides all faults (default: 7)")
    parser.add_argument("--interval", type=float, default=0.7, help="mean seconds between faults (default: 0.7)")
    kinds = [kind for kind in KINDS if kind != "promote" or Server.has_standby()]
    parser.add_argument("--faults", default=",".join(kinds), help="kinds, separated by commas; '' for none")
    parser.add_argument("--schedule", type=Path, help="play this one again, which --shrink has printed")
    parser.add_argument("--shrink", action="store_true", help="when it fails, print a smaller schedule that does")
    parser.add_argument("--small", action="store_true", help="few processes")
    parser.add_argument("--keyed", action="store_true", help="keys, tokens and limits")
    parser.add_argument("--streams", action="store_true", help="events of a stream")
    parser.add_argument("--against", choices=["1.9.1"], help="torture the real pq 1.9.1 instead, from PyPI")
    parser.add_argument("--old", type=Path, help="the folder that pq 1.9.1 was installed into; default: pip is asked")
    parser.add_argument("--drain", type=float, default=120, help="seconds for what is left at the end (default: 120)")
    parser.add_argument("--folder", type=Path, help="keep the histories here, in an empty folder")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    args = parser.parse_args()
    args.kinds = [kind for kind in args.faults.split(",") if kind]
    if args.schedule:
        try:
            args.schedule = Schedule.loads(args.schedule.read_text("utf-8"))
        except (OSError, ValueError) as error:
            parser.error(f"--schedule: {error}")
    if unknown := set(args.kinds) - KINDS.keys():
        parser.error(f"unknown faults: {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
    if args.against:
        # the one would upgrade the table, the other do nothing
        args.kinds = [kind for kind in args.kinds if kind not in ("create", "clock")]
    return args


def installed(folder: Path) -> Path:
    """pq 1.9.1, from PyPI, in a folder of its own."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), "pq==1.9.1"]
    subprocess.run(command, check=True)
    return folder


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def smaller(schedule: Schedule, report: Report, drain: float, old: Path | None) -> Schedule:
    """A part of a schedule at which something of what was wrong is wrong again."""

    def part(faults: list[Fault]) -> Schedule:
        seconds = min(schedule.seconds, faults[-1].at + AFTER) if faults else schedule.seconds
        return schedule._replace(faults=faults, seconds=seconds)

    def fails(faults: list[Fault]) -> bool:
        with tempfile.TemporaryDirectory(prefix="pq-torture-") as folder:
            again, _ = run(part(faults), Path(folder), drain, say, old)
        failed = bool(report.wrong.keys() & again.wrong.keys())
        say(f"{len(faults)} faults: {'fails' if failed else 'passes'}")
        return failed

    return part(shrink(schedule.faults, fails, RUNS))


def figures(seed: int, report: Report, nemesis: Nemesis, seconds: float) -> dict[str, object]:
    return {
        "seed": seed,
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
        "delivered in order": report.in_line,
        **report.counts,
        "recovery seconds p50": round(report.recovery(0.5), 3),
        "recovery seconds p99": round(report.recovery(0.99), 3),
        "recovery seconds max": round(report.recovery(1), 3),
        "wrong": {kind: len(what) for kind, what in report.wrong.items()},
    }


def main() -> int:
    args = arguments()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(f"ended by signal {number}"))  # leave nothing behind
    drawn = (args.seed, args.seconds, args.interval, args.kinds, args.small, args.keyed, args.streams)
    schedule = args.schedule or Schedule.drawn(*drawn)
    with tempfile.TemporaryDirectory(prefix="pq-torture-") as folder:
        began = time.monotonic()
        home = args.folder or Path(folder)
        home.mkdir(parents=True, exist_ok=True)
        old = (args.old or installed(Path(folder, "1.9.1"))) if args.against else None
        report, nemesis = run(schedule, home, args.drain, say, old)
        told = figures(schedule.seed, report, nemesis, time.monotonic() - began)
        shrunk = smaller(schedule, report, args.drain, old) if args.shrink and report.wrong else None
    if args.json:
        print(json.dumps(told))
    else:
        for name, figure in told.items():
            print(f"{name:>30}  {figure}")
    for kind, what in report.wrong.items():
        for item in what[:5]:
            say(f"{kind}: {item}")
    if shrunk is not None:
        print(shrunk.dumps())
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
