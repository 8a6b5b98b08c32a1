"""``python -m tests.soak``: exit code 0 if all held, else 1."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from pq.embedded import find_binaries

from .run import Options, run

#: The PostgreSQL that applications have most often: that of the system.
SYSTEM = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="All of pq at once: what grows?")
    parser.add_argument("--minutes", type=float, default=65, help="how long (default: 65), without the draining")
    parser.add_argument("--seed", type=int, default=7, help="of what producers do by chance (default: 7)")
    parser.add_argument("--rate", type=float, default=100, help="jobs and events a second, about (default: 100)")
    parser.add_argument("--retain", type=float, help="seconds that jobs and events are kept (default: up to 300)")
    parser.add_argument("--every", type=float, help="seconds between two samples (default: up to 30)")
    parser.add_argument("--pg-bin", type=Path, help="of the PostgreSQL (default: the system's, else the wheel's)")
    parser.add_argument("--seeded", default="", help="for tests: have this go wrong: ledger, memory")
    parser.add_argument("--folder", type=Path, help="keep samples and logs here")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    return parser.parse_args()


def lines(figures: dict[str, Any], before: str = "") -> list[str]:
    """As a text, one line for each figure."""
    told = []
    for name, figure in figures.items():
        if isinstance(figure, dict) and any(isinstance(each, dict) for each in figure.values()):
            told += lines(figure, f"{before}{name} · ")
        else:
            told.append(f"{before + name:>45}  {figure}")
    return told


def main() -> int:
    args = arguments()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(f"ended by signal {number}"))  # leave nothing behind
    seconds = args.minutes * 60
    options = Options(
        args.minutes, args.seed, args.rate,
        retain=args.retain or max(5.0, min(300.0, seconds / 12)),
        every=args.every or max(1.0, min(30.0, seconds / 40)),
        step=1.0 if args.minutes >= 30 else 20.0,
        binaries=args.pg_bin or (SYSTEM[-1].parent if SYSTEM else find_binaries()),
        seeded=args.seeded,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="pq-soak-") as scratch:
        folder = args.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        figures = run(options, folder, lambda text: print(text, file=sys.stderr, flush=True))
    if args.json:
        print(json.dumps(figures))
    else:
        print("\n".join(lines({**figures, "wrong": {kind: len(texts) for kind, texts in figures["wrong"].items()}})))
    for kind, texts in figures["wrong"].items():
        for text in texts[:5]:
            print(f"{kind}: {text}", file=sys.stderr)
    return 1 if figures["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
