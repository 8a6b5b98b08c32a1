"""Small pictures, as SVG in the page. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape

#: The picture's own units; the page stretches it.
WIDTH, HEIGHT = 600, 80


def bars(values: Sequence[float], bad: Sequence[float], labels: Sequence[str], name: str) -> Markup:
    """Draw a bar for each value.

    :param bad: what stands on top of each, in another colour; empty: nothing.
    :param labels: what whoever points at a bar reads.
    :param name: what the picture shows, for whoever can't see it.
    """
    bad = bad or [0] * len(values)
    most = max(map(sum, zip(values, bad, strict=True)), default=0) or 1
    step = WIDTH / max(len(values), 1)
    drawn = []
    for number, (value, more, label) in enumerate(zip(values, bad, labels, strict=True)):
        low, high = (height(part, most) for part in (value, more))
        place = f'x="{(number + 0.12) * step:.2f}" width="{step * 0.76:.2f}" rx="1.5"'
        drawn.append(
            f"<g><title>{escape(label)}</title>"
            f'<rect class="back" x="{number * step:.2f}" width="{step:.2f}" y="0" height="{HEIGHT}"/>'
            f'<rect class="bar" {place} y="{HEIGHT - low:.2f}" height="{low:.2f}"/>'
        )
        if high:
            drawn.append(f'<rect class="bar bad" {place} y="{HEIGHT - low - high:.2f}" height="{high:.2f}"/>')
        drawn.append("</g>")
    return Markup(
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(name)}">{"".join(drawn)}</svg>'
    )


def height(value: float, most: float) -> float:
    """Return the height of a bar; a small one can be seen, too."""
    return 0 if value <= 0 else max(value / most * (HEIGHT - 2), 2)


def share(part: float, name: str) -> Markup:
    """Draw how much of something is done, from 0 to 1."""
    width = min(max(part, 0.0), 1.0) * 100
    return Markup(
        f'<svg class="share" viewBox="0 0 100 6" preserveAspectRatio="none" role="img" aria-label="{escape(name)}">'
        f'<rect class="back" width="100" height="6" rx="3"/>'
        f'<rect class="bar" width="{width:.1f}" height="6" rx="3"/></svg>'
    )
