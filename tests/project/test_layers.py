"""The shape of the package: who may import whom, who touches a driver, how long a module may be.

Imports for type checkers count, too: a module that names a type of a higher rank can't be read without it.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import subsets

import pq

PACKAGE = Path(pq.__file__).parent

#: No connection, no clock, no thread.
PURE = {
    "errors", "retry", "sql", "_after", "_args", "_calls", "_codec", "_text", "_times", "_traceback", "_unique",
    "_version",
}  # fmt: skip
#: What all others may import. These import each other, too, without circles.
BASE = PURE | {"_logs", "_loop"}

#: From the bottom up: a package imports from lower ranks, never from its own. So features don't import each other.
RANKS = [
    {"_db", "embedded"},
    {"_wait"},
    {"_table"},
    {"_jobs"},
    {"_queue"},
    {"_looks", "_schedules", "_streams", "doctor", "schema"},
    {"_manager", "worker"},
    {"tasks", "utils", "web"},
    {"__init__", "_cli"},
]
#: A program of one line, above all of them, and what only those import who need it.
TOP = {"__main__", "contrib", "pgqueue", "testing"}

#: Names with an underscore that packages use of each other, and why. The classes are public: a public name in them
#: would be a promise (test_public.py).
SHARED = {
    "_table": "of a PQ and of a queue: the table that they are in",
    "_on": "of a queue or a PQ: the same on another connection, or one that only looks",
    "_text": "of a queue, for its jobs: encodes the data of a put",
    "_encoded": "of a queue, for its jobs: encodes a result",
    "_decoded": "of a queue, for its jobs",
    "_update": "of a queue, for its jobs: replaces the data in the row",
    "_transaction": "of a queue, for transactional tasks: a block with the cursor that the queue is to give",
    "_put_events": "of a queue, for a worker: puts jobs that it has made of events",
    "_place": "of a job: its place in the order in which jobs are listed",
    "_retry_each": "of the dead jobs of a queue, for groups of them",
    "_with_tasks": "of a PQ with tasks, for a worker",
    "_codec": "of a stream, for the command line: which keeps the digits of numbers",
    "_packages": "of a queue with tasks, for the command line: where functions may be found",
}
#: Of the standard library, and of SQLAlchemy's adapters.
FOREIGN = {"_asdict", "_connection", "_current_frames", "_exit", "_fields", "_getframe", "_replace"}

DRIVERS = {"psycopg2", "psycopg", "psycopg_pool", "asyncpg", "pg8000"}
LINES = 300

MODULES = sorted(path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py"))
#: Their dotted names; a package has the name of its folder.
NAMES = {".".join(["pq", *module.parts]).removesuffix(".__init__"): module for module in MODULES}


def parsed(module: Path) -> ast.Module:
    return ast.parse((PACKAGE / module).with_suffix(".py").read_text("utf-8"))


def imports(module: Path) -> Iterator[str]:
    """The dotted names of what a module imports, anywhere in it: modules where they are modules, else names in them."""
    package = ("pq", *module.parent.parts)
    for node in ast.walk(parsed(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            origin = ".".join(filter(None, [base, node.module]))
            for alias in node.names:
                name = f"{origin}.{alias.name}"
                yield name if name in NAMES or node.module is None else origin


def own_imports(module: Path) -> Iterator[str]:
    """The modules of pq among them."""
    for name in imports(module):
        if name.split(".")[0] == "pq":
            yield name if name in NAMES else name.rpartition(".")[0]


def part(name: str) -> str:
    """The package or module at the top of pq that a dotted name belongs to."""
    return [*name.split("."), "__init__"][1]


def rank(part: str) -> int:
    ranks = [BASE, *RANKS, TOP]
    return next(number for number, parts in enumerate(ranks) if part in parts)


def test_everything_has_a_rank() -> None:
    assert {part(name) for name in NAMES} == set().union(BASE, *RANKS, TOP)
    assert len(RANKS) <= 9


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_point_to_lower_ranks(module: Path) -> None:
    own = module.parts[0]
    for name in own_imports(module):
        other = part(name)
        if other != own:
            below = rank(other) < rank(own) or {own, other} <= BASE
            assert below, f"{module} imports {name}, which is not below"


def test_there_are_no_circles() -> None:
    """Module by module, inside the packages, too. A package may import its parts: then they don't import it."""
    graph = {NAMES[name]: {NAMES[other] for other in own_imports(NAMES[name]) if other != name} for name in NAMES}
    while graph:
        leaves = [module for module, others in graph.items() if not others & graph.keys()]
        assert leaves, f"these import each other: {', '.join(sorted(map(str, graph)))}"
        for module in leaves:
            del graph[module]


def names_defined(module: Path) -> Iterator[str]:
    for node in ast.walk(parsed(module)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            yield node.attr


def family(part: str) -> set[Path]:
    """The modules of a package, and those that its classes inherit from."""
    own = {name: module for name, module in NAMES.items() if module.parts[0] == part}
    classes = [each for name in own for each in vars(importlib.import_module(name)).values() if isinstance(each, type)]
    bases = {base.__module__ for each in classes if each.__module__ in own for base in each.__mro__}
    return {NAMES[name] for name in {*own, *bases} if name in NAMES}


def test_packages_use_no_private_names_of_each_other() -> None:
    """But for a few, which are listed."""
    used: dict[str, list[str]] = {}
    for part in {module.parts[0] for module in MODULES} - TOP:
        known = {name for module in family(part) for name in names_defined(module)}
        for module in (module for module in MODULES if module.parts[0] == part):
            for node in ast.walk(parsed(module)):
                name = node.attr if isinstance(node, ast.Attribute) else ""
                if name.startswith("_") and not name.startswith("__") and name not in known | FOREIGN:
                    used.setdefault(name, []).append(f"{module}:{node.lineno}")
    assert used.keys() - SHARED.keys() == set(), used
    assert SHARED.keys() - used.keys() == set(), "no more used"


@pytest.mark.parametrize("module", [m for m in MODULES if m.parts[0] != "_db"], ids=str)
def test_no_module_but_those_of_db_touches_a_driver(module: Path) -> None:
    assert not {name.split(".")[0] for name in imports(module)} & DRIVERS
    for node in ast.walk(parsed(module)):  # nor by its name: import_module("psycopg2")
        assert not (isinstance(node, ast.Constant) and node.value in DRIVERS), f"{module}:{node.lineno}"


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_no_module_is_long(module: Path) -> None:
    assert (PACKAGE / module).with_suffix(".py").read_text("utf-8").count("\n") <= LINES


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_docstrings_stand_alone(module: Path) -> None:
    """Who reads one in an editor does not see the one above it."""
    for node in ast.walk(parsed(module)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node) or ""
            assert not text.startswith(("The same", "As `", "As of")), f"{module}: {text}"


def is_pure(module: Path) -> bool:
    first = (ast.get_docstring(parsed(module)) or "").partition("\n\n")[0]
    return module.parts[0] in PURE or "Pure" in first


@pytest.mark.parametrize("module", [m for m in MODULES if is_pure(m)], ids=str)
def test_pure_modules_read_no_clock_and_open_nothing(module: Path) -> None:
    """Those of the lowest rank, and those that say so in the first sentences of their docstring."""
    found = {name.split(".")[0] for name in imports(module)}
    assert not found & {"os", "socket", "threading", "time", "select", "subprocess", "contextvars"}
    for node in ast.walk(parsed(module)):
        if isinstance(node, ast.Attribute):
            assert node.attr not in {"now", "utcnow", "today"}, f"{module}:{node.lineno}"
        assert not (isinstance(node, ast.Name) and node.id == "open"), f"{module}:{node.lineno}"


def test_public_modules_are_in_the_reference() -> None:
    """A name without an underscore is a promise. `pq.sql` has the statements, which nobody imports."""
    page = PACKAGE.parent / "docs" / "reference" / "api.rst"
    if not page.exists():
        pytest.skip("tested as installed, without the source tree")
    text = page.read_text("utf-8")
    public = {part(name) for name in NAMES if not part(name).startswith("_")} - {"sql"}
    assert {name for name in public if f"pq.{name}" not in text} == set()


def test_the_design_page_shows_these_ranks() -> None:
    page = PACKAGE.parent / "docs" / "explanation" / "design.rst"
    if not page.exists():
        pytest.skip("tested as installed, without the source tree")
    section = page.read_text("utf-8").partition("\nLayers\n")[2]
    table = section.partition("code-block:: text\n\n")[2].partition("\n\n")[0]
    lines = [(line[:9].strip(), set(line[9:].partition("   ")[0].split())) for line in table.splitlines()]
    ranks = [set[str]()] * (len(RANKS) + 1)
    for number, names in lines:
        ranks[int(number or 0)] = ranks[int(number or 0)] | names
    assert ranks == [BASE, *RANKS]


def test_the_choices_of_tests_name_what_is_there() -> None:
    chosen = [*subsets.FAST, *subsets.EVERY_PYTHON, *subsets.LONG]
    assert [part for part in chosen if not (subsets.TESTS / part).exists()] == []


def test_setup_does_not_import_pq() -> None:
    setup = PACKAGE.parent / "setup.py"
    if not setup.exists():
        pytest.skip("tested as installed, without the source tree")
    names = {
        name
        for node in ast.walk(ast.parse(setup.read_text("utf-8")))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or "pq"])
    }
    assert "setuptools" in names
    assert not any(name.split(".")[0] == "pq" for name in names)
