"""The command doctor."""

from __future__ import annotations

import argparse
from typing import Any

from .output import print_json, print_text
from .parser import Commands, database_options, opened, table_options
from .table import name_of


def add(commands: Any) -> None:
    """Declare the command."""
    doctor = Commands(commands, [database_options(), table_options()])
    doctor.add(_doctor, "doctor", "tell what is wrong, and what to do about it", "--json")


def _doctor(args: argparse.Namespace) -> int:
    with opened(args) as pq:
        findings = pq.doctor()
    if args.json:
        print_json([finding._asdict() for finding in findings])
    elif findings:
        print_text("\n".join(map(str, findings)))
    else:
        print_text(f"table {name_of(args)}: nothing is wrong")
    return int(any(finding.severity != "note" for finding in findings))
