"""What an application's type checker knows of pq: the type of each public name, as ``py.typed`` promises."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import pq

ROOT = Path(pq.__file__).parents[1]


def test_every_public_name_has_a_type() -> None:
    pytest.importorskip("pyright")
    command = [sys.executable, "-m", "pyright", "--verifytypes", "pq", "--ignoreexternal", "--outputjson"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    if not done.stdout.lstrip().startswith("{"):
        pytest.skip(f"pyright can't run here: {done.stderr.strip()[-300:]}")
    report = json.loads(done.stdout)["typeCompleteness"]
    assert report["symbols"], "pyright found no pq"
    unknown = [symbol for symbol in report["symbols"] if symbol["isExported"] and not symbol["isTypeKnown"]]
    assert [f"{symbol['name']}: {symbol['diagnostics'][:1]}" for symbol in unknown] == []
    assert report["completenessScore"] == 1
