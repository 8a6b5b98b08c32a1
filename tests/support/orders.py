"""All orders in which the steps of several actors can come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def merges(*sequences: Sequence[str]) -> Iterator[list[str]]:
    """All orders in which the steps of several actors can come, each actor's in its own order."""
    if not any(sequences):
        yield []
    for number, sequence in enumerate(sequences):
        if sequence:
            for rest in merges(*sequences[:number], sequence[1:], *sequences[number + 1 :]):
                yield [sequence[0], *rest]
