"""Packages of others, each in a folder of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def download(folders: pytest.TempPathFactory, package: str, *others: str) -> Path:
    """Return a folder with a package in it, and with others, but without what these depend on.

    The test is skipped where they can't be had.
    """
    name = package.partition("==")[0]
    folder = folders.mktemp(name)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--target", str(folder), package, *others]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"{name} can't be had from PyPI: {done.stderr.strip().splitlines()[-1:]}")
    return folder
