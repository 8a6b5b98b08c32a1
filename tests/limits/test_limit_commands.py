"""``pq limit``, and what the doctor says of a limit that is full."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from pq import PQ, Limit
from pq._cli.main import main

Sql = Callable[..., list[tuple[Any, ...]]]
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(dsn: str, capsys: pytest.CaptureFixture[str]) -> Run:
    def command(text: str) -> tuple[int, str]:
        try:
            code = main(["limit", "--dsn", dsn, *text.split()])
        except SystemExit as error:
            code = int(str(error.code))
        out, err = capsys.readouterr()
        return code, out + err

    return command


def test_the_command(run: Run, pq: PQ) -> None:
    assert run("mails --running 5 --rate 100/m")[0] == 0
    assert run("mails --per-key 2 --on-retry pass --running none")[0] == 0
    assert pq.limits["mails"] == Limit(rate="100/m", per_key=2, on_retry="pass")
    assert run("s --queues a,b --running 1")[0] == 0
    assert pq.limits["s"] == Limit(running=1, queues=["a", "b"])
    _, out = run("--json")
    assert [row["name"] for row in json.loads(out)] == ["mails", "s"]
    pq["a"].put(1)
    assert pq.limits.taken() == {"s": 0}
    assert pq["a"].get(lease="1m", timeout=0) is not None
    assert json.loads(run("s --json")[1]) == [
        {"name": "s", "taken": 1, "running": 1, "rate": None, "per_key": None, "on_retry": None, "on_dead": None,
         "queues": ["a", "b"]}
    ]
    assert "100/m" in run("")[1]
    assert run("s --remove") == (0, "limit 's' removed\n")
    assert run("s --remove")[0] == run("s")[0] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a --running 0", "at least 1"),
        ("a --running ten", "must be a whole number, not 'ten'"),
        ("a --rate ten", "rate must be"),
        ("a --rate none", "or remove it"),
        ("a --on-dead hold", "invalid choice"),
        ("a --running 1 --remove", "can't be changed"),
        ("--running 1", "which limit"),
        ("--remove", "which limit"),
        ("a --per-key 2 --queues b", "per_key is for"),
    ],
)
def test_wrong_usage(run: Run, pq: PQ, text: str, message: str) -> None:
    code, out = run(text)
    assert (code, message in out, dict(pq.limits)) == (2, True, {})


def test_the_doctor_sees_a_limit_that_starves(pq: PQ, sql: Sql) -> None:
    def found() -> list[Any]:
        return [finding for finding in pq.doctor() if finding.name == "full_limit"]

    pq.limits["both"] = Limit(running=1, queues=["a", "b"])
    pq["a"].put(1)
    pq["b"].put(1)
    job = pq["a"].get(timeout=0, lease="5h")
    assert found() == []
    sql("update queue set dequeued_at = current_date - interval '1 day' where id = %s", [job.id])  # type: ignore[union-attr]
    sql("update queue_slots set taken_at = current_date - interval '1 day'")
    (finding,) = found()
    assert (finding.data["name"], finding.data["queue"], finding.severity) == ("both", "b", "warning")
    pq["b"].clear()
    assert found() == []
