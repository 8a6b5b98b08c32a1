"""The command doctor."""

from __future__ import annotations

import argparse
import json
from typing import Any

from .output import print_text
from .parser import Commands, database_options, opened, table_options
from .table import name_of


def add(commands: Any) -> None:
    """Declare the command."""
    doctor = Commands(commands, [database_options(), table_options()])
    parser = doctor.add(_doctor, "doctor", "tell what is wrong, and what to do about it")
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each finding")


def _doctor(args: argparse.Namespace) -> int:
    with opened(args) as pq:
        findings = pq.doctor()
    for finding in findings:
        print_text(json.dumps(finding._asdict()) if args.json else str(finding))
    if not findings and not args.json:
        print_text(f"table {name_of(args)}: nothing is wrong")
    return int(any(finding.severity != "note" for finding in findings))
