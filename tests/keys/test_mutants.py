"""The cases of keys find what they are for: in a copy of pq in which one thing is broken, the named one fails.

Those that take two claims at the same moment are for the torture; see ``tests/torture/test_mutants.py``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import pq

ROOT = Path(__file__).parents[2]

SQL = "sql/migrations/0006_keys.sql"


class Mutant(NamedTuple):
    """:ivar case: the test that fails."""

    case: str
    old: str
    new: str
    file: str = SQL


MUTANTS = {
    "the guard takes no lock": Mutant(
        "test_keys.py::test_what_a_block_may_not_take_does_not_hide_what_it_may",
        "if not pg_catalog.pg_try_advisory_xact_lock(",
        "if not pg_catalog.pg_try_advisory_xact_lock_shared(",
    ),
    "the guard looks once, and then takes the lock": Mutant(
        "test_races.py::test_who_begins_between_the_first_look_and_the_lock_is_seen",
        "(locks + 1)::text, true);\n    end if;\n    if (",
        "(locks + 1)::text, true);\n      exit;\n    end if;\n    if (",
    ),
    "a retry leaves the line": Mutant(
        "test_keys.py::test_while_a_job_waits_for_its_retry_the_others_stay_held",
        "leaves := leaves or passes is true or not stays;",
        "leaves := true;",
    ),
    "the guard takes each row for one that is alone": Mutant(
        "test_keys.py::test_jobs_that_overlapping_transactions_have_put_run_one_after_the_other",
        "  if its_alone then\n    return found_out;",
        "  if true then\n    return found_out;",
    ),
    "who comes next is alone, also where several may run": Mutant(
        "test_keys.py::test_after_the_number_was_lowered_no_more_than_that_run",
        "is_alone = case when passes_alone then true end\n",
        "is_alone = true\n",
    ),
    "places of a limit are taken without a lock": Mutant(
        "../limits/test_limit_races.py::test_never_more_and_no_place_is_lost",
        "    and place.job is not distinct from slot.job and place.taken_at is not distinct from slot.taken_at\n"
        "  for update skip locked\n",
        "",
        "sql/common.sql",
    ),
    "an end makes nobody ready": Mutant(
        "test_keys.py::test_a_released_job_is_first_again",
        "  next_id := coalesce(\n",
        "  return false;\n  next_id := coalesce(\n",
    ),
    "a check does nothing": Mutant(
        "test_keys.py::test_a_held_row_that_another_transaction_has_locked_when_the_head_ends_comes_back",
        "  while there < most loop\n    exit when ",
        "  while there < most loop\n    exit when true or ",
    ),
    "a job that is held at its put is not checked": Mutant(
        "test_keys.py::test_what_was_put_while_the_head_ended_comes_after_its_commit",
        "    insert into :checks_table (q_name, key, late, check_at)\n"
        "    values (new.q_name, new.key, new.id, pg_catalog.clock_timestamp() + interval '500 ms');\n",
        "",
    ),
    "rows that were held back count as taken": Mutant(
        "test_keys.py::test_jobs_that_overlapping_transactions_have_put_run_one_after_the_other",
        "found = [row for row in given if row[DEQUEUED_AT] is not None or (",
        "found = [row for row in given if True or (",
        "_queue/claim.py",
    ),
    "an end makes one ready beside the one that is in line": Mutant(
        "test_races.py::test_what_came_at_last_from_an_open_transaction_keeps_its_place",
        "  if passes_alone and coalesce(",
        "  if false and coalesce(",
    ),
    "an end counts on the one in line, and notes no check": Mutant(
        "test_races.py::test_the_end_of_a_job_counts_on_one_in_line_that_is_about_to_leave",
        "    perform :check_function(its_queue, its_key, null);\n    return true;",
        "    return true;",
    ),
    "a check does not see who came late": Mutant(
        "test_late.py::test_a_held_job_whose_commit_comes_late_is_not_passed_over_for_ever[by_lease]",
        "    if passed <> '{}' then",
        "    if false then",
    ),
    "blocks make no checks": Mutant(
        "test_late.py::test_a_key_is_checked_where_blocks_always_find_other_jobs",
        "                queue._table.heal_outside()",
        "                pass",
        "_queue/claim.py",
    ),
    "who is passed over in a block is not checked": Mutant(
        "test_late.py::test_a_ready_job_whose_commit_comes_late_is_not_passed_over_for_ever[in_block]",
        "  if notes and found_out <> 'begins' and its_attempts = 0 then",
        "  if false then",
    ),
    "the order goes on behind an urgent job": Mutant(
        "test_late.py::test_after_an_urgent_job_the_order_goes_on_where_it_was",
        "case when old.expected_at is null and old.schedule_at is null and not was_dead then old.id - 1000 else 0 end",
        "old.id - 1000",
    ),
    "a retry that can't be taken now is held": Mutant(
        "test_races.py::test_a_retry_that_cannot_be_taken_for_a_moment_keeps_its_place",
        "        or (found_out is not null and old.attempts > 0 and passes is not true)\n",
        "",
    ),
    "one in line whose key is busy is held": Mutant(
        "test_races.py::test_one_in_line_that_cannot_be_taken_for_a_moment_lets_no_later_one_pass",
        "(found_out = 'busy' and was_in_line and old.attempts = 0)",
        "(false)",
    ),
    "what is given back for a while leaves the line": Mutant(
        "test_keys.py::test_a_job_that_is_given_back_for_a_while_keeps_its_place",
        "stays := new.attempts > 0 or (old.dequeued_at is not null and old.due_at is not null)",
        "stays := new.attempts > 0",
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_case_finds_a_mutant(name: str, server: str, tmp_path: Path) -> None:
    mutant = MUTANTS[name]
    shutil.copytree(Path(pq.__file__).parent, tmp_path / "pq", ignore=shutil.ignore_patterns("__pycache__"))
    file = tmp_path / "pq" / mutant.file
    source = file.read_text("utf-8")
    assert mutant.old in source
    file.write_text(source.replace(mutant.old, mutant.new), "utf-8")
    done = subprocess.run(
        [
            *[sys.executable, "-m", "pytest", "-n0", "-q", "-x", "-p", "no:cacheprovider"],
            *["-c", str(ROOT / "pyproject.toml"), str(ROOT / "tests" / "keys" / mutant.case)],
        ],
        cwd=tmp_path,  # whose pq is imported
        env={**os.environ, "PYTHONPATH": str(tmp_path), "PQ_TEST_DSN": server},  # with a database of its own there
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 1 and "1 failed" in done.stdout, done.stdout + done.stderr
