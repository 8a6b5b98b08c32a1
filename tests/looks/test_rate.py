"""How many jobs a second are put, by two looks."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from support import wait_until

from pq import PQ
from pq._looks.rate import Rate


def test_of_the_last_minute(pq: PQ) -> None:
    seen = pq.overview()
    rate = Rate()

    def look(seconds: float, inserted: int) -> float | None:
        table = replace(seen.table, inserted=inserted)
        return rate.puts(replace(seen, at=seen.at + timedelta(seconds=seconds), table=table))

    assert look(0, 100) is None
    assert look(1, 150) is None, "the statistics may be a second old"
    assert look(10, 200) == 10.0
    assert look(10, 200) == 10.0, "the look from memory"
    assert look(60, 400) == 5.0
    assert look(65, 450) == 250 / 55
    assert look(70, 50) is None, "the statistics were reset"
    assert look(72, 54) == 2.0
    assert look(500, 54) is None, "nobody has looked for long"


def test_what_the_server_counts(pq: PQ) -> None:
    before = pq.overview().table.inserted
    pq["q"].put_many(range(30))
    wait_until(lambda: pq.overview().table.inserted == before + 30, "the statistics")
