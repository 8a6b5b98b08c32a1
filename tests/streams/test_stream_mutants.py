"""The cases of streams find what they are for: with one thing in the statements broken, the named one fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
import stream_cases as cases
from stream_cases import Bench, bench

import pq.sql
from pq._table import migrations


class Mutant(NamedTuple):
    """
    :ivar case: what fails.
    :ivar way: in which the stream is read there.
    :ivar also: a second thing to break, where each of two is enough.
    """

    case: Callable[[Bench], None]
    old: str
    new: str
    way: str = "take"
    file: str = "stream_take.sql"
    also: tuple[str, str] = ("", "")


NOW = "stream.sql"

MUTANTS = {
    "no look above xmax": Mutant(
        cases.above_xmax, "event.txid < (select least(top, pg_snapshot_xmax(upto)) from pq_window)", "false"
    ),
    "no look above xmax where no top is known": Mutant(
        cases.unknown_top, "select least(top, pg_snapshot_xmax(upto)) from", "select top from"
    ),
    "its own number is left out": Mutant(
        cases.own_after, "when pq_now.own < pg_snapshot_xmax(pq_now.s) then (", "when false then (", file=NOW
    ),
    "its own number is left out before": Mutant(
        cases.own_before, "when pq_now.own < pg_snapshot_xmax(pq_now.s) then (", "when false then (", file=NOW
    ),
    "top is always its own number": Mutant(
        cases.unknown_top,
        "case when pq_now.own is null then pg_current_xact_id() end",
        "pg_current_xact_id()",
        file=NOW,
    ),
    "a new subscription knows no top, and takes the snapshot's": Mutant(
        cases.subscribed_late,
        "case when start.after is null then start.top else '1' end,\n  coalesce",
        "'1',\n  coalesce",
        file=NOW,
    ),
    "a seek knows no top": Mutant(
        cases.sought_late, "top = case when start.after is null then start.top else '1' end", "top = '1'", file=NOW
    ),
    "none that are late by name": Mutant(
        cases.in_xip, "event.txid = any (array(\n", "false and event.txid = any (array(\n"
    ),
    "late ones above the mark": Mutant(
        cases.late_and_above, "event.id + 0 <= (select mark from pq_window) and event.id", "event.id"
    ),
    "late ones that were read": Mutant(
        cases.cut_inside_of_late_ones, "and event.id + 0 > (select after from pq_window)", ""
    ),
    "late ones behind the end of a batch": Mutant(
        cases.halves_with_late_ones, "    and event.id + 0 <= (select last from pq_window)\n", "", "again"
    ),
    "fresh ones behind the end of a batch": Mutant(
        cases.halves_with_late_ones, "and event.id <= (select last from pq_window)", "", "again"
    ),
    "fresh ones from the mark on, inside of a window": Mutant(
        cases.capped,
        "event.id > (select greatest(mark, after) from pq_window)",
        "event.id > (select mark from pq_window)",
    ),
    "a window that has no end": Mutant(
        cases.cut_inside_of_late_ones, "coalesce(position.upto, :now_snapshot) as upto", ":now_snapshot as upto"
    ),
    "fresh ones of those that run": Mutant(
        cases.own_before,
        "    and pg_visible_in_snapshot(event.txid, (select upto from pq_window))\n    and :is_wanted",
        "    and :is_wanted",
    ),
    "what is not wanted is never passed": Mutant(
        cases.filtered, "offset 100 limit 1\n      ) is not null", "offset 100 limit 1\n      ) is not null and false"
    ),
    "neither the version of the position is looked at, nor its row": Mutant(
        cases.overtaken,
        "    and position.version = (select version from pq_window)\n",
        "",
        also=(
            "where position.ctid = (select row from pq_free)",
            "where subscription = %(subscription)s and (select row from pq_free) is not null",
        ),
    ),
    "the end of a window does not bring its top": Mutant(
        cases.above_xmax_at_the_end_of_a_window, "when its.inside then its.upto_top else :top end,\n    after",
        "when its.inside then its.top else :top end,\n    after",
    ),
    "the mark stays": Mutant(cases.capped, "greatest(its.mark, size.last, :end_of_window)", "its.mark"),
    "the mark is the last of all": Mutant(
        cases.cut_inside_of_late_ones,
        "greatest(its.mark, size.last, :end_of_window)",
        "(select max(id) from :log)",
    ),
    "a batch that comes again is not halved where its next part begins": Mutant(
        cases.halves_with_late_ones, "half.last,\n    half.next", "batch.after,\n    half.next", "again"
    ),
    "a part has the end of the whole": Mutant(
        cases.capped, "last = coalesce(half.last, batch.last)", "last = batch.last", "again"
    ),
    "open batches are looked for behind the one that is read": Mutant(
        cases.capped, "size.first, case", "size.last + 1, case", "again"
    ),
    "open batches are looked for from the one that is read on": Mutant(
        cases.left_while_others_go_on, "case when its.shared then", "case when false then", "lease"
    ),
    "late ones are in no open batch": Mutant(
        cases.in_xip, "least(size.first,", "greatest(its.open_from, size.first,", "again"
    ),
}


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Mutant], None]]:
    def forget() -> None:
        pq.sql.statements.cache_clear()
        pq.sql.bound.cache_clear()

    def apply(mutant: Mutant) -> None:
        read = pq.sql.read

        def mutated(path: str) -> str:
            text = read(path)
            if path == mutant.file:
                assert mutant.old in text
                assert mutant.also[0] in text
                text = text.replace(mutant.old, mutant.new)
                text = text.replace(*mutant.also) if mutant.also[0] else text
            return text

        monkeypatch.setattr(pq.sql, "read", mutated)
        monkeypatch.setattr(migrations, "read", mutated)
        forget()

    yield apply
    monkeypatch.undo()
    forget()


@pytest.mark.parametrize("name", MUTANTS)
def test_a_case_finds_a_mutant(name: str, broken: Callable[[Mutant], None], shared_dsn: str) -> None:
    mutant = MUTANTS[name]
    broken(mutant)
    with pytest.raises(AssertionError), bench(shared_dsn, mutant.way) as made:
        mutant.case(made)
