"""What is installed has each file that the library reads: a checkout on the path would not notice a missing one."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _files(folder: Path) -> set[str]:
    kinds = (".py", ".sql", ".typed", ".html", ".css", ".js", ".svg")
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix in kinds}


def test_each_file_of_the_package_is_installed(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", minversion="62.3")  # of which on ** is for folders, too
    command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)
    assert _files(tmp_path / "pq") == _files(ROOT / "pq")


def test_nobody_is_told_to_install_what_is_not_on_pypi() -> None:
    """As the README has it: from a checkout. ``pip install 'pq[web]'`` would bring 1.9.1, without that extra."""
    texts = [ROOT / "README.rst", *(ROOT / "docs").rglob("*.rst"), *(ROOT / "pq").rglob("*.py")]
    told = {path.name: re.findall(r"""pip install ["']?pq\[.*""", path.read_text("utf-8")) for path in texts}
    assert not {name: lines for name, lines in told.items() if lines}
