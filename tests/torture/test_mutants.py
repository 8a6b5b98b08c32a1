"""The torture finds what it is for: copies of pq in which one thing is broken do not get through it.

Those of the waiting protocol are in `test_waiting`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

import pq

ROOT = Path(__file__).parents[2]


#: How often the torture may try, each time for longer: a machine that is busy with other tests needs more.
RUNS = 6


class Mutant(NamedTuple):
    """
    :ivar shows: what the checker may find wrong; one of these is enough.
    :ivar more: what else is replaced by the same: files, and what is in them.
    """

    file: str
    old: str
    new: str
    shows: set[str]
    faults: str = ""
    seconds: int = 6
    option: str = ""
    drain: int = 5
    more: tuple[tuple[str, str], ...] = ()


MUTANTS = {
    "acknowledges before handling": Mutant(
        "worker/execution.py",
        "        result = call_handler(self.job, call)\n        self._call",
        "        self.job.done()\n        result = call_handler(self.job, call)\n        self._call",
        {"lost"},
    ),
    "no row lock": Mutant(
        "sql/claim.sql",
        "for update skip locked",
        "",
        {"effect more than once"},
    ),
    "commits early in a block": Mutant(
        "_queue/base.py",
        "            return block.__enter__()\n",
        '            cursor = block.__enter__()\n            cursor.execute("commit")\n            return cursor\n',
        {"aborted, but there", "order without job, or job without order"},
    ),
    "no fence": Mutant(
        "sql/common.sql",
        " and attempts = %(attempts)s and dequeued_at = %(dequeued_at)s and (due_at is null) is false",
        "",
        {"effect more than once", "delivered after done", "dead and done", "unfinished"},
        faults="freeze-long",
        seconds=15,
        more=(
            (
                "sql/lease.sql",
                " and job.attempts = given.attempts and job.dequeued_at = given.dequeued_at\n"
                "    and (job.due_at is null) is false",
            ),
        ),
    ),
    "promotes what is not due": Mutant(
        "sql/common.sql",
        "due_at <= statement_timestamp()",
        "due_at is not null",
        {"early"},
    ),
    "takes the newest first": Mutant(
        "sql/claim.sql",
        "order by q_name, expected_at, id\n",
        "order by id desc\n",
        {"passed over"},
    ),
    "a transactional task is done outside of its transaction": Mutant(
        "worker/execution.py",
        "                job.done(result if self.options.result else None)\n        except Exception",
        # what comes between the two is a moment, which a kill may not hit in so short a run
        "            __import__('time').sleep(0.05)\n"
        "            job.done(result if self.options.result else None)\n        except Exception",
        {"effect more than once", "effect of a job that is not done"},
        faults="kill,commit-lost,terminate",
        seconds=25,
    ),
    "checks of keys are not made": Mutant(
        "sql/keys.sql",
        "select :heal_all_function(%(limit)s)",
        "select %(limit)s::bigint * 0",
        {"stuck", "lost"},
        seconds=12,
        option="--keyed",
    ),
    "what is given back for a while leaves the line of its key": Mutant(
        "sql/migrations/0006_keys.sql",
        "stays := new.attempts > 0 or (old.dequeued_at is not null and old.due_at is not null)",
        "stays := new.attempts > 0",
        {"before one that was given back"},
        seconds=30,
        option="--keyed",
    ),
    "what comes late in a stream is not looked for": Mutant(
        "sql/stream_take.sql",
        "event.txid = any (array(\n",
        "false and event.txid = any (array(\n",
        {"lost"},
        seconds=30,
        option="--streams",
        drain=60,
    ),
}


@pytest.fixture(scope="module")
def runs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[list[str]]]]:
    """The torture of each mutant that is asked for; several at a time, since they mostly wait."""
    chosen = {item.callspec.params["name"] for item in request.session.items if item.path == request.path}
    pool = ThreadPoolExecutor(3)
    try:
        folders = {name: tmp_path_factory.mktemp("mutant") for name in MUTANTS if name in chosen}
        yield {name: pool.submit(torture, MUTANTS[name], folder) for name, folder in folders.items()}
    finally:
        pool.shutdown(cancel_futures=True)


def torture(mutant: Mutant, folder: Path) -> list[str]:
    """What was found wrong; a slow machine may take several runs, each longer, until a fault hits where it hurts."""
    shutil.copytree(Path(pq.__file__).parent, folder / "pq", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "tests" / "torture", folder / "tests" / "torture")
    for name, old in ((mutant.file, mutant.old), *mutant.more):
        file = folder / "pq" / name
        source = file.read_text("utf-8")
        assert old in source
        file.write_text(source.replace(old, mutant.new), "utf-8")
    found: list[str] = []
    for seed in range(RUNS):
        done = subprocess.run(
            [
                *[sys.executable, "-m", "tests.torture", "--small", "--json", "--seed", str(seed)],
                *["--seconds", str(mutant.seconds * (1 + seed)), "--faults", mutant.faults, "--interval", "0.4"],
                *["--drain", str(mutant.drain * (1 + seed))],  # what is not drained can't be told from what is lost
                *filter(None, [mutant.option]),
            ],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder)},
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        found += json.loads(done.stdout)["wrong"] if done.stdout else [done.stderr]
        if mutant.shows & set(found):
            assert done.returncode == 1
            break
    return found


@pytest.mark.parametrize("name", MUTANTS)
def test_the_torture_finds_a_mutant(runs: dict[str, Future[list[str]]], name: str) -> None:
    assert MUTANTS[name].shows & set(runs[name].result())
