"""The shape of the package: who may import whom, who touches a driver, how long a module may be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import pq

PACKAGE = Path(pq.__file__).parent
#: From the bottom up: a module imports from lower layers, never from its own.
LAYERS = [
    {"errors", "_numbers", "_when", "_codec", "_sql", "_findings", "failure"},
    {"_db", "_bulk", "embedded", "retry"},
    {"retention"},
    {"schema", "_rows"},
    {"job", "settlement", "doctor", "browse", "control"},
    {"lease", "dead"},
    {"_claim", "_iterators", "item"},
    {"queue"},
    {"manager"},
    {"attempt"},
    {"worker"},
    {"tasks", "utils"},
    {"__init__"},
    {"demo", "_output"},
    {"_work"},
    {"_commands"},
    {"cli"},
    {"__main__"},
]
PARTS = set().union(*LAYERS)
DRIVERS = {"psycopg2", "psycopg2cffi", "psycopg", "psycopg_pool", "asyncpg", "pg8000"}

MODULES = sorted(path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py"))


def parsed(module: Path) -> ast.Module:
    return ast.parse((PACKAGE / module).with_suffix(".py").read_text("utf-8"))


def imports(module: Path) -> Iterator[str]:
    """The dotted names that a module imports when it runs, anywhere in it; its own package's begin with "pq."."""
    package = ("pq", *module.parent.parts)
    for node in running(parsed(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            origin = ".".join(filter(None, [base, node.module]))
            # "from . import x": x may be a module, or a name of the package
            yield from (f"{origin}.{alias.name}" if origin == base else origin for alias in node.names)


def running(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes below, without what is for type checkers alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from running(child)


def layer(part: str) -> int:
    return next(number for number, names in enumerate(LAYERS) if part in names)


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_point_downwards(module: Path) -> None:
    own = module.parts[0]
    for name in imports(module):
        package, _, rest = name.partition(".")
        other = rest.split(".")[0]
        if package == "pq" and other != own:
            # what is no module is a name of the package itself
            assert layer(other if other in PARTS else "__init__") < layer(own), f"{module} imports {name}"


def test_there_are_no_cycles() -> None:
    """Module by module, inside the packages, too."""
    graph = {
        module: {other for name in imports(module) for other in MODULES if name == ".".join(["pq", *other.parts])}
        for module in MODULES
        if module.stem != "__init__"
    }
    while graph:
        leaves = [module for module, others in graph.items() if not others & graph.keys()]
        assert leaves, f"these import each other: {', '.join(map(str, graph))}"
        for module in leaves:
            del graph[module]


@pytest.mark.parametrize("module", [m for m in MODULES if m.parts[0] != "_db"], ids=str)
def test_no_module_but_those_of_db_touches_a_driver(module: Path) -> None:
    assert not {name.split(".")[0] for name in imports(module)} & DRIVERS
    for node in ast.walk(parsed(module)):  # nor by its name: import_module("psycopg2")
        assert not (isinstance(node, ast.Constant) and node.value in DRIVERS), f"{module}:{node.lineno}"


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_no_module_is_long(module: Path) -> None:
    lines = (PACKAGE / module).with_suffix(".py").read_text("utf-8").count("\n")
    assert lines <= 300


def test_pure_modules_read_no_clock_and_open_nothing() -> None:
    for name in sorted(LAYERS[0]):
        found = {imported.split(".")[0] for imported in imports(Path(name))}
        assert not found & {"os", "socket", "threading", "time", "select", "subprocess"}, name


def test_the_design_page_shows_these_layers() -> None:
    page = PACKAGE.parent / "docs" / "explanation" / "design.rst"
    if not page.exists():
        pytest.skip("tested as installed, without the source tree")
    section = page.read_text("utf-8").partition("\nLayers\n")[2]
    table = section.partition("code-block:: text\n\n")[2].partition("\n\n")[0]
    rows = [line[3:].partition("   ")[0].split() for line in table.splitlines()]
    assert [set(names) for names in rows if names] == LAYERS


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


def test_every_layer_is_there() -> None:
    """A renamed module must not escape these tests."""
    assert {module.parts[0] for module in MODULES} == PARTS
