"""The documentation: its snippets run, in the order of the page, on a real database."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psycopg2
import pytest
from support.driver import driver

import pq as package
from pq import PQ
from pq._cli.main import main

ROOT = Path(package.__file__).parents[1]
DOCS = [page for page in sorted((ROOT / "docs").rglob("*.rst")) if "_build" not in page.parts]
PAGES = [ROOT / "README.rst", ROOT / "CHANGES.rst", *DOCS]

#: The database in the snippets, which stands for the test's.
PLACEHOLDER = "postgresql://localhost/example"

#: The role in the snippets: roles belong to the whole server, so each test has one of its own.
ROLE = "app_role"

#: And those that have some of its rights, of which table/test_grants.py makes each.
OTHER_ROLES = re.compile(r"\bto (?:producer|planner|consumer|cleaner|operator|scheduler);")

#: Seconds that the snippets of a page may take: only one that hangs takes so long.
PATIENCE = 60

BLOCK = re.compile(
    r"^(?P<skip>\.\. skip: \S.*\n\n)?"
    r"(?P<indent> *)\.\. code-block:: (?P<language>\w+)\n"
    r"(?: +:.*\n)*\n"
    r"(?P<text>(?:(?P=indent) {3}.*\n|\n)+)",
    re.MULTILINE,
)


class Block(NamedTuple):
    language: str
    text: str
    line: int


def blocks(page: Path, *languages: str) -> list[Block]:
    """The code blocks of a page in these languages; without those that are marked ``.. skip: reason``."""
    source = page.read_text("utf-8")
    found = []
    for match in BLOCK.finditer(source):
        if match["language"] in languages and not match["skip"]:
            text = re.sub(rf"^ {{{len(match['indent']) + 3}}}", "", match["text"], flags=re.MULTILINE)
            found.append(Block(match["language"], text, source.count("\n", 0, match.start("text")) + 1))
    return found


#: Pages whose blocks are the files of a project; django/test_django_page.py runs it.
PROJECTS = {"django"}


def pages_with(*languages: str) -> Any:
    found = [page for page in PAGES if blocks(page, *languages) and page.stem not in PROJECTS]
    return pytest.mark.parametrize("page", found, ids=lambda page: page.stem)


@pytest.fixture
def folder() -> Iterator[Path]:
    """To run in. Not tmp_path: where the tests run as root, the embedded server's user could not enter it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.fixture
def role(sql: Callable[..., Any]) -> Iterator[str]:
    """A role without any rights."""
    ((number,),) = sql("select txid_current()")
    name = f"{ROLE}_{os.getpid()}_{number}"
    sql(f"create role {name}")
    yield name
    sql(f"drop owned by {name}")
    sql(f"drop role {name}")


def as_script(page: Path) -> str:
    """The Python of a page, each line where it is on the page, so that a traceback leads there."""
    lines: list[str] = []
    for block in blocks(page, "python"):
        lines += [""] * (block.line - 1 - len(lines)) + block.text.splitlines()
    return "\n".join(lines) + "\n"


@pages_with("python")
def test_python_runs_and_prints_what_its_comments_say(page: Path, dsn: str, folder: Path) -> None:
    if page.stem == "drivers":
        pytest.importorskip("psycopg_pool")
    script = folder / f"page_{page.stem.replace('-', '_')}.py"  # a name that can be imported, and is no other module's
    script.write_text(as_script(page).replace(PLACEHOLDER, dsn), "utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", script.name],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PQ_DSN": dsn},
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    printed = iter(done.stdout.splitlines())
    for expected in re.findall(r"^ *(?:print|\w+\.work)\(.*\)  # (.+)", as_script(page), re.MULTILINE):
        assert expected in printed, f"{expected!r} is not printed, or not in its place:\n{done.stdout}"


@pages_with("sh", "sql")
def test_commands_and_sql_run(
    page: Path, dsn: str, sql: Callable[..., Any], role: str, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.setenv("PQ_DSN", dsn)
    for block in blocks(page, "sh", "sql"):
        text = block.text.replace(PLACEHOLDER, shlex.quote(dsn)).replace(ROLE, role)
        text = OTHER_ROLES.sub(f"to {role};", text)
        if block.language == "sql":
            sql(text)
            continue
        for line in text.strip().splitlines():
            command, _, pipe = line.partition(" | ")
            run(shlex.split(command))
            output = capsys.readouterr().out
            if pipe:
                assert shlex.split(pipe) == ["psql", dsn]
                sql(output)


def run(command: list[str]) -> None:
    """Run a command of the documentation as far as can be done in a test."""
    match command:
        case ["python", "-m", "pq", "demo"]:
            pass  # have their own tests, and the page of the commands its options
        case ["python", "-m", "pq", "web", *_]:
            pass  # goes on until it is stopped, and has its own tests
        case ["python", "-m", "pq", "doctor", *_]:
            assert main(command[3:]) == 1  # the server of the tests has fsync off
        case ["python", "-m", "pq", "dead", "retry", _, "17", "18"]:
            assert main(command[3:]) == 1  # there are no such jobs
        case ["python", "-m", "pq", "try", "orders", "17", *_]:
            assert main(command[3:]) in (1, 2)  # there is no such job, nor the application
        case ["python", "-m", "pq", "schedules", _, "nightly"]:
            assert main(command[3:]) == 1  # there is no such schedule
        case ["python", "-m", "pq", *arguments]:
            assert main(arguments) == 0
        case ["python", "-m", "tests.torture" | "tests.soak", *_]:
            pass  # have their own tests
        case ["python", "-m", "pytest"]:
            pass  # is running
        case ["pip", "install", *options, target]:
            assert options in ([], ["-e"])
            extra = re.fullmatch(r"\.(?:\[(\w+)\])?", target)
            assert extra and extra[1] in [None, *extras()]
        case _:
            pytest.fail(f"a command that this test does not know: {shlex.join(command)}")


def extras() -> list[str]:
    """The names in extras_require of setup.py."""
    (given,) = (
        keyword.value
        for node in ast.walk(ast.parse((ROOT / "setup.py").read_text("utf-8")))
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "extras_require"
    )
    assert isinstance(given, ast.Dict)
    return [ast.literal_eval(key) for key in given.keys if key is not None]


def test_the_grants_of_the_operations_page_suffice(dsn: str, sql: Callable[..., Any], role: str) -> None:
    with PQ(dsn, schema="jobs") as owner:
        owner.create()
    with PQ(psycopg2.extensions.make_dsn(dsn, options=f"-c role={role}"), schema="jobs") as pq:
        with pytest.raises(driver.errors.InsufficientPrivilege):
            pq["a"].put(1)
        for block in blocks(ROOT / "docs" / "howto" / "operations.rst", "sql"):
            if block.text.startswith("grant") and ROLE in block.text:
                sql(block.text.replace(ROLE, role))
        pq.create()
        pq["a"].put(1)
        with pq["a"]:
            job = pq["a"].get()
            assert job is not None
            job.data = 2
        assert pq["a"].get(timeout=0.01) is None
        assert len(pq["a"]) == 0
        pq["a"].put(1, schedule_at="1h")
        assert list(pq) == ["a"]
        pq["a"].clear()
        assert "a" not in pq


def test_the_reference_names_all_that_is_public() -> None:
    text = (ROOT / "docs" / "reference" / "api.rst").read_text("utf-8")
    assert [name for name in package.__all__ if not re.search(rf"\bpq\.{name}\b", text)] == []


def test_the_page_of_the_commands_names_all_of_them_and_their_options(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs" / "reference" / "commands.rst").read_text("utf-8")
    options = set()
    commands = ["create", "sql", "version", "doctor", "top", "put", "load", "list", "count", "show", "why", "cancel"]
    commands += ["reschedule", "move", "pause", "resume", "clear", "queues", "prune", "limit", "work", "call", "try"]
    commands += ["dead", "schedules", "streams", "stream", "web", "demo"]
    parts = [f"schedules {action}" for action in ("list", "run", "pause", "resume", "fire", "remove")]
    parts += [f"dead {action}" for action in ("list", "retry", "discard")]
    actions = ("create", "info", "read", "publish", "seek", "pause", "resume", "rotate", "rebase", "drop")
    parts += [f"stream {action}" for action in actions]
    for command in ("", *commands, *parts):
        with pytest.raises(SystemExit):
            main([*command.split(), "--help"])
        usage = capsys.readouterr().out
        options |= set(re.findall(r"--[\w-]+", usage))
        if not command:
            assert re.findall(r"^    (\w+)(?:  |$)", usage, re.MULTILINE) == commands
        assert f"``{command}" in text
    assert {option for option in options if f"``{option}" not in text} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_snippet_escapes_these_tests(page: Path) -> None:
    source = page.read_text("utf-8")
    found = list(BLOCK.finditer(source))
    assert len(found) == source.count("code-block::"), "a block that the pattern does not see"
    assert {match["language"] for match in found} <= {"python", "sql", "sh", "text"}
    assert source.count(".. skip:") == sum(bool(match["skip"]) for match in found) <= 1
    assert not re.search(r"^(?!.*\.\. ).*::$", source, re.MULTILINE), "a literal block, which is not run"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_pictures_of_a_page_are_there(page: Path) -> None:
    published = "https://raw.githubusercontent.com/malthe/pq/main/"
    for name in re.findall(r"\.\. (?:image|figure):: (\S+)", page.read_text("utf-8")):
        if name.startswith(published):
            picture = ROOT / name.removeprefix(published)
        else:
            picture = ROOT / "docs" / name[1:] if name.startswith("/") else page.parent / name
        assert picture.is_file()


@pytest.mark.parametrize("page", ["guarantees", "losses"])
def test_the_tests_that_a_page_names_are_there(page: str) -> None:
    text = (ROOT / "docs" / "reference" / f"{page}.rst").read_text("utf-8")
    named = set(re.findall(r"((?:\w+/)*test_\w+\.py)(?:::(\w+))?", text))
    assert len(named) > 10
    for path, name in named:
        files = list((ROOT / "tests").rglob(path))
        assert len(files) == 1, f"{path}: there must be one such file, name its folder: {files}"
        source = files[0].read_text("utf-8")
        assert not name or f"def {name}(" in source, f"{path}::{name}"


def test_the_tests_that_the_page_of_the_keys_names_alone_are_there_once() -> None:
    text = (ROOT / "docs" / "reference" / "keys.rst").read_text("utf-8")
    named = set(re.findall(r"``(test_\w+)``", text))
    assert len(named) > 10
    sources = [file.read_text("utf-8") for file in (ROOT / "tests").rglob("test_*.py")]
    found = Counter(name for source in sources for name in re.findall(r"^ *def (test_\w+)\(", source, re.MULTILINE))
    assert {name: found[name] for name in named if found[name] != 1} == {}


def test_the_files_and_folders_that_the_architecture_page_names_are_there() -> None:
    text = (ROOT / "docs" / "explanation" / "architecture.rst").read_text("utf-8")
    files = set(re.findall(r"``([\w/]+\.(?:py|sql))``", text))
    assert len(files) > 15
    assert [name for name in files if not (ROOT / "pq" / name).exists() and not (ROOT / name).exists()] == []
    tree = text.partition("   pq/\n")[2].partition("\n   examples/")[0]
    for line in filter(str.strip, tree.splitlines()):
        indent, names = len(line) - len(line.lstrip()), re.split(r"  +", line.strip())[0].split()
        if indent == 5:
            folder = ROOT / "pq" / names[0] if names[0].endswith("/") else ROOT / "pq"
        for name in names if indent == 7 or folder == ROOT / "pq" else ():
            assert (folder / name).is_dir() or (folder / f"{name}.py").exists(), f"{folder}: {name}"
