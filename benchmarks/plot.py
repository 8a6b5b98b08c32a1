"""Rates against sizes: small pictures side by side, with logarithmic rates. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

from .sizes import amount

#: In a row, and the size of each, with what is around its lines.
COLUMNS = 2
WIDTH, HEIGHT = 350, 240
LEFT, RIGHT, TOP, BOTTOM = 48, 16, 34, 30

#: Of the line that names the colours.
LEGEND = 28

#: Of lines, by their order: each to be told from the others, and from white and from black.
COLOURS = ("#888888", "#2f81f7", "#e5534b", "#3fa45b", "#b57edc")

#: Colours of what is no line follow the reader's choice of light or dark.
STYLE = """
    text { font: 12px sans-serif; fill: #444 }
    .title { font-weight: bold }
    .grid { stroke: #ccc; stroke-width: 1 }
    @media (prefers-color-scheme: dark) { text { fill: #bbb } .grid { stroke: #444 } }
"""


class Panel(NamedTuple):
    """
    :ivar lines: by their labels: the sizes, as they are written, and the rates, all above 0.
    """

    title: str
    lines: Mapping[str, Sequence[tuple[str, float]]]


def svg(panels: Sequence[Panel]) -> str:
    labels = list(dict.fromkeys(label for panel in panels for label in panel.lines))
    colours = dict(zip(labels, COLOURS, strict=False))
    width, height = WIDTH * min(COLUMNS, len(panels)), LEGEND + HEIGHT * math.ceil(len(panels) / COLUMNS)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"'
        f' aria-label="{escape("; ".join(panel.title for panel in panels))}">',
        f"  <style>{STYLE}  </style>",
    ]
    for number, (label, colour) in enumerate(colours.items()):
        x = LEFT + 110 * number
        parts.append(f'  <line x1="{x}" y1="14" x2="{x + 18}" y2="14" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'  <text x="{x + 24}" y="18">{escape(label)}</text>')
    for number, panel in enumerate(panels):
        row, column = divmod(number, COLUMNS)
        parts += drawn(panel, colours, WIDTH * column, LEGEND + HEIGHT * row)
    return "\n".join([*parts, "</svg>"]) + "\n"


def drawn(panel: Panel, colours: Mapping[str, str], left: int, top: int) -> list[str]:
    """
    :param left: where it begins, as `top`.
    """
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    sizes = list(dict.fromkeys(size for line in panel.lines.values() for size, _ in line))
    rates = ticks([rate for line in panel.lines.values() for _, rate in line])
    lowest, highest = math.log10(rates[0]), math.log10(rates[-1])

    def place(size: str, rate: float) -> tuple[float, float]:
        x = left + LEFT + width * (sizes.index(size) + 0.5) / len(sizes)
        return x, top + TOP + height * (highest - math.log10(rate)) / (highest - lowest)

    parts = [f'  <text class="title" x="{left + LEFT}" y="{top + TOP - 12}">{escape(panel.title)}</text>']
    for size in sizes:
        x, y = place(size, rates[0])
        parts.append(f'  <text x="{x:.1f}" y="{y + 18:.1f}" text-anchor="middle">{escape(size)}</text>')
    for rate in rates:
        x, y = left + LEFT, place(sizes[0], rate)[1]
        parts.append(f'  <line class="grid" x1="{x}" y1="{y:.1f}" x2="{x + width}" y2="{y:.1f}"/>')
        parts.append(f'  <text x="{x - 8}" y="{y + 4:.1f}" text-anchor="end">{tick(rate)}</text>')
    for label, line in panel.lines.items():
        points = [place(*point) for point in line]
        path, colour = " ".join(f"{x:.1f},{y:.1f}" for x, y in points), colours[label]
        parts.append(f'  <polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'  <circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
    return parts


def ticks(rates: Sequence[float]) -> list[float]:
    """From below to above all of them: powers of ten; with their doubles and fivefolds if those are few."""
    first, last = math.floor(math.log10(min(rates))), math.ceil(math.log10(max(rates)))
    fine = [step * 10.0**power for power in range(first, max(last, first + 1)) for step in (1, 2, 5)]
    fine.append(10.0 ** max(last, first + 1))
    low = max(n for n, value in enumerate(fine) if value <= min(rates))
    high = max(low + 1, min(n for n, value in enumerate(fine) if value >= max(rates)))
    if high - low <= 4:
        return fine[low : high + 1]
    return [value for n, value in enumerate(fine) if n % 3 == 0]


def tick(rate: float) -> str:
    return amount(int(rate)) if rate >= 1 else f"{rate:g}"
