"""What was found: as data, as text, and as tables for the documentation. Pure, but for the first function."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping, Sequence
from typing import Any

from . import plot
from .limits import limits
from .run import Bench
from .stats import median, shown, spread

#: What the JSON file holds.
Found = dict[str, Any]

#: Where the figures go, and those that are told apart, since their columns are no peers.
MAIN = "performance-figures.rst"
APART = {
    "settings": "performance-settings.rst", "keyed": "performance-keyed.rst", "limited": "performance-keyed.rst",
    "profile": "performance-profile.rst",
}

#: Of these units more is better; of others, less.
RATES = ("jobs/s", "events/s")

#: By how much a peer has to be better to be told.
NOTABLE = 1.05

#: Peers that a limit names, since it is not for pq as it is out of the box.
VARIANTS = ("pq-conn", "pq-psycopg3", "pq-retain0")

#: Those that are no other libraries.
OURS = ("pq", *VARIANTS, "raw", "raw-triggers", "raw-unprepared")

#: The figures that are drawn: what is counted, as their cases name it, and a title.
PLOTS = {
    "backlog": ("ready", "get, jobs/s, by jobs that are ready"),
    "queues": ("queue", "get, jobs/s, by other queues"),
    "keys": ("key", "leased get and done, jobs/s, by keys"),
    "crowd": ("waiting", "put, jobs/s, by consumers that wait"),
}


def found(bench: Bench, seconds: float) -> Found:
    """Of a run that took so many seconds."""
    from .figures import FIGURES

    bounds = [(limit, limit.reached(bench.results)) for limit in limits(bench.sizes) if limit.figure in bench.results]
    return {
        "size": bench.sizes.name,
        "seconds": round(seconds),
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
    made = {"performance-run.rst": summary(found) + "\n"}
    if found["limits"]:
        made["performance-limits.rst"] = f"{list_table(limit_rows(found))}\n{verdict(found)}\n"
    if rows := better(found):
        made["performance-peers.rst"] = list_table([("peer", "faster, or needs less, in"), *rows])
    for name in (MAIN, *dict.fromkeys(APART.values())):
        if tables := [titled(figure) for figure in found["figures"] if APART.get(figure["name"], MAIN) == name]:
            made[name] = "\n".join(tables)
    if panels := series(found):
        made["rates.svg"] = plot.svg(panels)
    return made


# -- its parts


def summary(found: Found) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    server = ", ".join(f"{name} = {value}" for name, value in found["server"].items())
    return (
        f"Size: {found['size']}, {found['seconds'] / 60:.0f} minutes. {found['machine']}. {versions}. {server}."
        " Medians, in parentheses the least and the most of the rounds."
    )


def better(found: Found) -> list[tuple[str, str]]:
    """Each library beside pq, and how many times better it was, by figures and cases."""
    rows: dict[str, dict[str, list[str]]] = {}
    for figure in found["figures"]:
        for case, measured in figure["cases"].items() if figure["name"] not in APART else ():
            for peer, values in measured.items():
                if "pq" in measured and peer not in OURS:
                    row = rows.setdefault(peer, {})
                    pair = median(values), median(measured["pq"])
                    more, less = pair if figure["unit"] in RATES else pair[::-1]
                    if more > 0 and more >= NOTABLE * less:
                        row.setdefault(figure["name"], []).append(f"{case} {f'{more / less:.2f}' if less else 'none'}")
    return [
        (peer, "; ".join(f"*{name}*: {', '.join(cases)}" for name, cases in row.items()) or "nothing that was measured")
        for peer, row in rows.items()
    ]


def titled(figure: Mapping[str, Any]) -> str:
    return f"**{figure['name']}**: {figure['what']}{unit(figure)}\n\n{list_table(table(figure['cases']))}"


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
                ", ".join([limit["figure"], limit["case"], *(peer for peer in [limit["peer"]] if peer in VARIANTS)]),
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


def series(found: Found) -> list[plot.Panel]:
    """What is drawn, of what was measured."""
    figures = {figure["name"]: figure["cases"] for figure in found["figures"]}
    panels = []
    for name, (what, title) in PLOTS.items():
        lines: dict[str, list[tuple[str, float]]] = {}
        for case, measured in figures.get(name, {}).items():
            if match := re.fullmatch(rf"(\S+) {what}s?", case):
                for peer, values in measured.items():
                    lines.setdefault(peer, []).append((match[1], median(values)))
        if lines:
            panels.append(plot.Panel(title, lines))
    return panels


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
