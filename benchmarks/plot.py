"""Lines in a picture, both axes logarithmic. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from .sizes import amount

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 64, 112, 16, 48

#: Of lines, in their order: each to be told from the others, and from white and from black.
COLOURS = ("#888888", "#2f81f7", "#e5534b", "#3fa45b", "#b57edc")

#: Colours of what is no line follow the reader's choice of light or dark.
STYLE = """
    text { font: 12px sans-serif; fill: #444 }
    .grid { stroke: #ccc; stroke-width: 1 }
    @media (prefers-color-scheme: dark) { text { fill: #bbb } .grid { stroke: #444 } }
"""

Points = Sequence[tuple[float, float]]


def svg(lines: Mapping[str, Points], across: str, upwards: str) -> str:
    """
    :param lines: by their labels; at least two points altogether, all above 0.
    :param across: what the axis says, as `upwards`.
    """
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    points = [point for line in lines.values() for point in line]
    (x_first, x_last), (y_first, y_last) = (decades([point[axis] for point in points]) for axis in (0, 1))

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + width * (math.log10(x) - x_first) / (x_last - x_first),
            TOP + height * (y_last - math.log10(y)) / (y_last - y_first),
        )

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
        f' aria-label="{escape(upwards)} against {escape(across)}">',
        f"  <style>{STYLE}  </style>",
    ]
    for power in range(x_first, x_last + 1):
        x, _ = place(10**power, 10**y_first)
        parts.append(f'  <line class="grid" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{TOP + height}"/>')
        parts.append(f'  <text x="{x:.1f}" y="{TOP + height + 18}" text-anchor="middle">{tick(power)}</text>')
    for power in range(y_first, y_last + 1):
        _, y = place(10**x_first, 10**power)
        parts.append(f'  <line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{LEFT + width}" y2="{y:.1f}"/>')
        parts.append(f'  <text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick(power)}</text>')
    parts.append(f'  <text x="{LEFT + width / 2:.1f}" y="{HEIGHT - 10}" text-anchor="middle">{escape(across)}</text>')
    turned = f"translate(14 {TOP + height / 2:.1f}) rotate(-90)"
    parts.append(f'  <text transform="{turned}" text-anchor="middle">{escape(upwards)}</text>')
    labels = apart([(place(*line[-1])[1], label) for label, line in lines.items()])
    for (label, line), colour in zip(lines.items(), COLOURS, strict=False):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in line))
        parts.append(f'  <polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for x, y in (place(*point) for point in line):
            parts.append(f'  <circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')
        x = place(*line[-1])[0] + 10
        parts.append(f'  <text x="{x:.1f}" y="{labels[label] + 4:.1f}" style="fill: {colour}">{escape(label)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def decades(values: Sequence[float]) -> tuple[int, int]:
    """The powers of ten between which all of them are."""
    first, last = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return first, max(last, first + 1)


def tick(power: int) -> str:
    return amount(10**power) if power >= 0 else f"{10.0**power:g}"


def apart(labels: Sequence[tuple[float, str]], least: float = 14) -> dict[str, float]:
    """Where labels are written that would be too near to each other."""
    placed: dict[str, float] = {}
    before = -math.inf
    for y, label in sorted(labels):
        placed[label] = before = max(y, before + least)
    return placed
