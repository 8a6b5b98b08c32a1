"""What the planner thinks of the statements that take: above ``jit_above_cost`` the server compiles each of them first,
which takes a tenth of a second."""

from __future__ import annotations

from typing import Any

import pytest

from pq import PQ
from pq._streams import Stream

PARAMS = {
    "subscription": "a", "partition": 0, "n": 1000, "lease": 2.0, "queue": "orders:a", "past_retries": False,
    "past_open": False, "most": 1000,
}  # fmt: skip


@pytest.mark.parametrize("options", [{}, {"partitions": 8}, {"types": ["x"]}], ids=str)
def test_no_statement_is_worth_compiling(pq: PQ, stream: Stream, sql: Any, options: dict[str, Any]) -> None:
    stream.subscribe("a", "beginning", **options)
    stream.load((n for n in range(100_000)), "x", "k")
    dearest = float(sql("show jit_above_cost")[0][0])
    statements = stream._table.statements("stream_take.sql", stream.name)
    for analysed in (False, True):  # the slots of a log never are, unless somebody does it
        if analysed:
            sql("analyze")
        for name in ("ready_partitions", "take", "take_leased", "take_again"):
            with pq["any"] as cursor:
                cursor.execute(f"explain (format json) {statements[name]}", PARAMS)
                ((found,),) = cursor.fetchall()
            assert found[0]["Plan"]["Total Cost"] < dearest / 10, name
