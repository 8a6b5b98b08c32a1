"""The page of the documentation: its files make a project, and its commands run in it."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import psycopg2.extensions
import pytest
from django_site import HAS_TASKS, ROOT

PAGE = ROOT / "docs" / "howto" / "django.rst"
BLOCK = re.compile(r"^\.\. code-block:: (python|sh)\n(?: {3}:caption: (\S+)\n)?\n((?: {3}.*\n|\n)+)", re.MULTILINE)

DATABASES = """
import os
DATABASES["default"] |= {name: os.environ[f"PAGE_{name}"] for name in ("NAME", "USER", "HOST", "PORT")}
"""


def test_the_page(empty_dsn: str, tmp_path: Path) -> None:
    if not PAGE.exists():
        pytest.skip("tested as installed, without the source tree")
    if not HAS_TASKS:
        pytest.skip("the page needs django.tasks")
    given = psycopg2.extensions.parse_dsn(empty_dsn)
    names = {"NAME": "dbname", "USER": "user", "HOST": "host", "PORT": "port"}
    environment = {
        **{name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"},
        **{f"PAGE_{name}": given[key] for name, key in names.items()},
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    has_web = importlib.util.find_spec("jinja2") is not None
    for language, caption, indented in BLOCK.findall(PAGE.read_text("utf-8")):
        text = re.sub(r"^ {3}", "", indented, flags=re.MULTILINE)
        if language == "python":
            path = tmp_path / caption
            if path.name == "settings.py":
                path.write_text(f"{path.read_text()}\n{text}" + (DATABASES if "DATABASES" in text else ""))
            else:
                path.write_text(text if has_web else re.sub(".*pq.contrib.django.urls.*", "", text))
            continue
        for line in text.strip().splitlines():
            command, _, expected = line.partition("  # ")
            arguments = shlex.split(command)
            if arguments[0] == "pip":
                continue
            program = {"python": [sys.executable], "django-admin": [sys.executable, "-m", "django"]}[arguments[0]]
            done = subprocess.run(
                [*program, *arguments[1:]], cwd=tmp_path, env=environment, text=True, timeout=60,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            assert done.returncode == 0, f"{command}:\n{done.stdout}"
            said = " ".join(done.stdout.split())
            assert " ".join(expected.split()) in said, f"{command}:\n{done.stdout}"
