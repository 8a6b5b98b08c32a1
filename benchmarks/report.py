"""What was found: as data, as text, and as tables for the documentation. Pure, but for the first function."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from . import plot
from .limits import limits
from .run import Bench
from .sizes import amount
from .stats import median, shown, spread

#: What the JSON file holds.
Found = dict[str, Any]

#: The figure with columns of its own, which has a table of its own in the documentation.
SETTINGS = "settings"


def found(bench: Bench, seconds: float) -> Found:
    """Of a run that took so many seconds."""
    from .figures import FIGURES

    bounds = [(limit, limit.reached(bench.results)) for limit in limits(bench.sizes) if limit.figure in bench.results]
    return {
        "size": bench.sizes.name,
        "seconds": round(seconds),
        "backlog": {amount(number): number for number in bench.sizes.series},
        "versions": {
            "PostgreSQL": bench.server.version, "Python": platform.python_version(), **bench.installed.versions
        },
        "machine": f"{os.cpu_count()} processors, {platform.system()} {platform.machine()}",
        "server": bench.server.settings,
        "figures": [
            {
                "name": figure.name, "what": figure.what, "unit": figure.unit, "cases": bench.results[figure.name],
                "seconds": round(bench.spent.get(figure.name, 0), 1),
            }
            for figure in FIGURES
            if figure.name in bench.results
        ],
        "limits": [
            {
                "figure": limit.figure, "case": limit.case, "peer": limit.peer, "wanted": limit.wanted,
                "reached": reached, "met": reached is not None and limit.met(reached),
            }
            for limit, reached in bounds
        ],
        "notes": bench.notes,
    }  # fmt: skip


def text(found: Found) -> str:
    """For a terminal."""
    parts = [summary(found)]
    for figure in found["figures"]:
        rows = table(figure["cases"])
        parts.append(f"{figure['name']}: {figure['what']}{unit(figure)}, {figure['seconds']:g} s\n{grid(rows)}")
    if found["limits"]:
        parts.append(f"limits\n{grid(limit_rows(found))}\n\n{verdict(found)}")
    if found["notes"]:
        parts.append("\n".join(["not measured", *(f"  {note}" for note in found["notes"])]))
    return "\n\n".join(parts)


def files(found: Found) -> dict[str, str]:
    """What the documentation includes, by the names of files; only what was measured."""
    figures = {figure["name"]: figure for figure in found["figures"]}
    made = {"performance-run.rst": summary(found) + "\n"}
    if found["limits"]:
        made["performance-limits.rst"] = f"{list_table(limit_rows(found))}\n{verdict(found)}\n"
    made["performance-figures.rst"] = "\n".join(
        f"**{figure['name']}**: {figure['what']}{unit(figure)}\n\n{list_table(table(figure['cases']))}"
        for name, figure in figures.items()
        if name != SETTINGS
    )
    if SETTINGS in figures:
        made["performance-settings.rst"] = list_table(table(figures[SETTINGS]["cases"]))
    if lines := series(found):
        made["backlog.svg"] = plot.svg(lines, "jobs ready", "get, jobs/s")
    return made


# -- its parts


def summary(found: Found) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    server = ", ".join(f"{name} = {value}" for name, value in found["server"].items())
    return (
        f"Size: {found['size']}, {found['seconds'] / 60:.0f} minutes. {found['machine']}. {versions}. {server}."
        " Medians, in parentheses the least and the most of the rounds."
    )


def unit(figure: Mapping[str, Any]) -> str:
    return f" ({figure['unit']})" if figure["unit"] else ""


def table(cases: Mapping[str, Mapping[str, Sequence[float]]]) -> list[list[str]]:
    """A row for each case, a column for each peer."""
    peers = list(dict.fromkeys(peer for measured in cases.values() for peer in measured))
    rows = ([case, *(spread(of[peer]) if peer in of else "" for peer in peers)] for case, of in cases.items())
    return [["", *peers], *rows]


def limit_rows(found: Found) -> list[list[str]]:
    return [
        ["", "wanted", "reached", ""],
        *(
            [
                f"{limit['figure']}, {limit['case']}",
                limit["wanted"],
                "not measured" if limit["reached"] is None else shown(limit["reached"]),
                "" if limit["met"] else "missed" if limit["reached"] is not None else "?",
            ]
            for limit in found["limits"]
        ),
    ]


def verdict(found: Found) -> str:
    met = sum(limit["met"] for limit in found["limits"])
    return f"{met} of {len(found['limits'])} limits are met."


def series(found: Found) -> dict[str, list[tuple[float, float]]]:
    """Peer: jobs that are ready, and how many of them a second it gets."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for figure in found["figures"]:
        for size, number in found["backlog"].items() if figure["name"] == "backlog" else ():
            for peer, values in figure["cases"].get(f"{size} ready", {}).items():
                lines.setdefault(peer, []).append((number, median(values)))
    return {peer: points for peer, points in lines.items() if len(points) > 1}


def grid(rows: Sequence[Sequence[str]]) -> str:
    """Columns under each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def line(first: str, *others: str) -> str:
        cells = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        return "  ".join([first.ljust(widths[0]), *cells]).rstrip()

    return "\n".join(line(*row) for row in rows)


def list_table(rows: Sequence[Sequence[str]]) -> str:
    """In reStructuredText."""
    lines = [f"   {'  ' if number else '* '}- {cell}".rstrip() for row in rows for number, cell in enumerate(row)]
    return "\n".join([".. list-table::", "   :header-rows: 1", "", *lines]) + "\n"
