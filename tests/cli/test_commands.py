"""The commands that look at queues, and change what is in them."""

from __future__ import annotations

import inspect
import io
import json
import os
import pickle
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support import PATIENCE, Terminal, execute, wait_until

import pq as package
from pq import PQ, Worker, _queue
from pq._cli import main as cli
from pq._cli import work as _work
from pq._cli.main import main
from pq._manager import PQ as Manager
from pq._queue import chosen as _chosen
from pq._queue.browse import STATES
from pq._queue.dead import Dead
from pq.errors import PQError

ROOT = Path(package.__file__).parents[1]
Sql = Callable[..., list[tuple[Any, ...]]]
NOWHERE = "host=127.0.0.1 port=1 dbname=nowhere"


class Calls:
    """Calls of the command in this process, on the test's database."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *args: str, code: int = 0) -> str:
        """What it prints, once it has ended with this code."""
        output, _ = self.both(*args, code=code)
        return output

    def both(self, *args: str, code: int) -> tuple[str, str]:
        try:
            ended = main(list(args))
        except SystemExit as error:  # argparse's way
            ended = int(error.code or 0)
        captured = self._capsys.readouterr()
        assert ended == code, captured.err
        assert "Traceback" not in captured.err
        return captured.out, captured.err

    def json(self, *args: str) -> Any:
        """The one document that it prints."""
        return json.loads(self(*args, "--json"))


@pytest.fixture
def offline(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Where there is no database: what does not end with code 3 has not asked for one, and so has done nothing."""
    monkeypatch.setenv("PQ_DSN", NOWHERE)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    return Calls(capsys)


@pytest.fixture
def call(dsn: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Calls:
    monkeypatch.setenv("PQ_DSN", dsn)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    return Calls(capsys)


def moment(text: str) -> datetime:
    """An ISO 8601 time in UTC, as JSON has it; naive, as the library has it."""
    assert text.endswith("Z")
    return datetime.fromisoformat(text[:-1])


# -- put


@pytest.mark.parametrize("stdin", [False, True], ids=["argument", "stdin"])
def test_put_takes_json_and_prints_the_id(
    call: Calls, pq: PQ, monkeypatch: pytest.MonkeyPatch, stdin: bool
) -> None:
    for data in [{"kind": "Cox"}, [], None, -5, "ü", "\ud800"]:
        text = json.dumps(data)
        monkeypatch.setattr(sys, "stdin", io.StringIO(text + "\n"))
        id = int(call("put", "a", "-" if stdin else text))
        job = pq["a"].get(block=False)
        assert job is not None
        assert (job.id, job.data) == (id, data)


NO_JSON = ["", "{", "{'kind': 'Cox'}", "NaN", "1e999", "[" * 100_000, "[" * 800 + "]" * 800, "9" * 5000, '"\udcff"']


@pytest.mark.parametrize("data", NO_JSON, ids=lambda data: f"{data[:9]}{data[-1:]}")
def test_what_is_no_json_is_wrong_usage(offline: Calls, data: str) -> None:
    if data == "9" * 5000 and not hasattr(sys, "get_int_max_str_digits"):
        pytest.skip("this Python reads numbers of any length")
    output, errors = offline.both("put", "a", data, code=2)
    assert (output, errors.count("\n")) == ("", 1)


def test_load_puts_a_job_for_each_line(call: Calls, pq: PQ, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = '{"a": 12345678901234567.89}\n\n"-"\n3'
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    assert call("load", "a") == "3 put\n"
    (tmp_path / "jobs").write_text(text)
    assert call("load", "a", str(tmp_path / "jobs")) == "3 put\n"
    assert [job.text for job in pq["a"].list()] == ['{"a": 12345678901234567.89}', '"-"', "3"] * 2


def test_of_lines_that_are_not_all_json_none_is_put(call: Calls, pq: PQ, tmp_path: Path) -> None:
    for text, message in (b"1\n{\n", "line 2 must be JSON"), (b"-", "line 1 must be JSON"), (b"1\n\xff", "utf-8"):
        (tmp_path / "jobs").write_bytes(text)
        _, errors = call.both("load", "a", str(tmp_path / "jobs"), code=2)
        assert message in errors
    _, errors = call.both("load", "a", str(tmp_path / "missing"), code=2)
    assert "No such file" in errors
    assert pq["a"].count() == 0


def test_put_without_a_standard_input_is_wrong_usage(offline: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    offline("put", "a", "-", code=2)


@pytest.mark.parametrize(
    ("given", "then"),
    [
        ("2999-01-31T08:00Z", datetime(2999, 1, 31, 8)),
        ("2999-01-31 08:00:30", datetime(2999, 1, 31, 8, 0, 30)),
        ("2999-01-31T08:00+02:00", datetime(2999, 1, 31, 6)),
        ("1h30m", None),
    ],
)
def test_times_are_absolute_or_relative(call: Calls, pq: PQ, given: str, then: datetime | None) -> None:
    later = pq["a"][int(call("put", "a", "1", "--at", given))]
    last = pq["a"][int(call("put", "a", "1", "--expected", given))]
    assert (later.state, later.expected_at) == ("scheduled", None)
    assert (last.state, last.schedule_at) == ("ready", None)
    for job, found in ((later, later.schedule_at), (last, last.expected_at)):
        assert found == (then or job.enqueued_at + timedelta(hours=1, minutes=30))


@pytest.mark.parametrize("given", ["", "soon", "-30", "1e3", "30 s", "2999-13-01", "9999999999d", "9999999d", "none"])
def test_another_time_is_wrong_usage(offline: Calls, given: str) -> None:
    offline("put", "a", "1", "--at", given, code=2)


@pytest.mark.parametrize("given", ["5", "5.0", "5s"])
def test_units_are_alike(call: Calls, pq: PQ, sql: Sql, given: str) -> None:
    id = int(call("put", "a", "1", "--at", given, "--expected", given))
    times = "extract(epoch from due_at - enqueued_at)::float, extract(epoch from expected_at - enqueued_at)::float"
    assert sql(f"select {times} from queue where id = %s", (id,)) == [(5, 5)]
    call("create", "--retain", given, "--retain-dead", given)
    assert pq.retention.finished == pq.retention.dead == timedelta(seconds=5)


def test_put_with_a_token(call: Calls, pq: PQ) -> None:
    first = call("put", "a", '{"n": 1}', "--unique", "t", "--until", "done")
    output, errors = call.both("put", "a", '{"n": 2}', "--unique", "t", code=0)
    assert output == first
    assert errors == f"job {first.strip()} has that token already\n"
    call("put", "a", '{"n": 3}', "--unique", "t", "--on-duplicate", "replace")
    call.both("put", "a", '{"n": 4}', "--unique", "t", "--on-duplicate", "error", code=1)
    assert [job.data for job in pq["a"].list()] == [{"n": 3}]
    hour = call("put", "a", "5", "--unique", "u", "--until", "1h")
    assert pq["a"].get(block=False) is not None and pq["a"].get(block=False) is not None
    assert call("put", "a", "6", "--unique", "u") == hour  # whatever has become of it


@pytest.mark.parametrize(
    "options",
    [
        ("--until", "done"), ("--on-duplicate", "keep"), ("--unique", ""), ("--unique", "t", "--until", "soon"),
        ("--unique", "t", "--on-duplicate", "twice"),
    ],
)  # fmt: skip
def test_what_is_no_token_is_wrong_usage(offline: Calls, options: tuple[str, ...]) -> None:
    offline("put", "a", "1", *options, code=2)


# -- list, count, show, queues


def in_each_state(pq: PQ) -> dict[str, int]:
    """A job in each state; their ids."""
    queue = pq["a"]
    ids = {}
    ids["finished"] = queue.put("finished")
    queue.get(block=False)
    ids["dead"] = queue.put({"kind": "dead"})
    held = queue.get(block=False, lease="1h")
    held.fail(ValueError("rotten\x1b[2J"))  # type: ignore[union-attr]
    ids["running"] = queue.put("running", key="k")
    queue.get(block=False, lease="1h")
    ids["held"] = queue.put("held", key="k")
    ids["ready"] = queue.put("ready", expected_at="1h")
    ids["scheduled"] = queue.put("scheduled", schedule_at="1h")
    return ids


def test_list_shows_what_the_library_does_in_its_order(call: Calls, pq: PQ) -> None:
    ids = in_each_state(pq)
    listed = call.json("list", "a")
    assert [job["id"] for job in listed] == [ids[state] for state in STATES[:-1]]
    for found, job in zip(listed, pq["a"].list(), strict=True):
        assert (found["state"], found["attempts"], found["cancelled"]) == (job.state, job.attempts, False)
        assert found["data"] == job.data
        assert found["error"] == (job.error and job.error._asdict())
        for name in ("enqueued_at", "schedule_at", "expected_at", "due_at", "dequeued_at", "first_failed_at"):
            assert (found[name] and moment(found[name])) == getattr(job, name)
    lines = call("list", "a").splitlines()
    assert lines[0].split()[:2] == ["id", "state"]
    assert [line.split()[:2] for line in lines[1:]] == [[str(job["id"]), job["state"]] for job in listed]


@pytest.mark.parametrize("state", ["dead", "finished"])
def test_a_page_after_a_job_in_another_state_is_a_failure(call: Calls, pq: PQ, state: str) -> None:
    id = in_each_state(pq)[state]
    _, errors = call.both("list", "a", "--state", "ready", "--after", str(id), code=1)
    assert f"is {state}" in errors


def test_list_can_be_narrowed(call: Calls, pq: PQ) -> None:
    ids = in_each_state(pq)
    for state, id in ids.items():
        assert [job["id"] for job in call.json("list", "a", "--state", state)] == [id]
    assert [job["id"] for job in call.json("list", "a", "--limit", "2")] == [ids["ready"], ids["scheduled"]]
    assert [job["id"] for job in call.json("list", "a", "--after", str(ids["running"]))] == [ids["dead"]]


@pytest.mark.parametrize("limit", ["0", "-1", str(2**63), "9" * 5000, "x"], ids=lambda limit: limit[:20])
@pytest.mark.parametrize("command", [["list", "a"], ["dead", "list"], ["stream", "read", "s"]], ids=" ".join)
def test_a_limit_out_of_range_is_wrong_usage(offline: Calls, command: list[str], limit: str) -> None:
    offline.both(*command, f"--limit={limit}", code=2)


def test_count_has_all_states_or_one(call: Calls, pq: PQ) -> None:
    in_each_state(pq)
    pq["a"].put(1)
    assert call.json("count", "a") == dict.fromkeys(STATES, 1) | {"ready": 2}
    assert call.json("count", "a", "--state", "ready") == {"ready": 2}
    assert call("count", "a", "--state", "ready") == "2\n"
    lines = call("count", "a").splitlines()
    assert [line.split() for line in lines] == [
        ["ready", "2"],
        ["scheduled", "1"],
        ["held", "1"],
        ["running", "1"],
        ["dead", "1"],
        ["finished", "1"],
    ]


def test_show_has_all_about_a_job(call: Calls, pq: PQ) -> None:
    ids = in_each_state(pq)
    for id in ids.values():
        assert call.json("show", "a", str(id))["id"] == id
    found = call.json("show", "a", str(ids["dead"]))
    assert found["error"]["message"] == "rotten\x1b[2J"
    assert found["data"] == {"kind": "dead"}
    output = call("show", "a", str(ids["dead"]))
    assert re.search(r"^error +ValueError: rotten", output, re.MULTILINE)
    assert "ValueError: rotten\\x1b[2J\n" in output
    assert output.endswith('\n{"kind": "dead"}\n')


def test_why_says_what_keeps_a_job(call: Calls, pq: PQ) -> None:
    id = pq["a"].put({"kind": "Cox"}, "1h")
    pq["a"].pause()
    found = call.json("why", "a", str(id))
    assert (found["id"], found["queue"], found["state"]) == (id, "a", "scheduled")
    assert [reason["code"] for reason in found["reasons"]] == ["paused", "scheduled"]
    lines = call("why", "a", str(id)).splitlines()
    assert lines[0] == "paused: queue 'a' is paused, until somebody resumes it (pq resume)"
    assert lines[1].startswith("scheduled: it is not due before ")
    assert call.both("why", "b", str(id), code=1)[0] == ""


def test_show_has_the_result_and_does_not_read_it(call: Calls, pq: PQ, tmp_path: Path) -> None:
    queue = pq["a/pickle"]
    first, second = queue.put_many([1, 2])
    assert "result           -\n" in call("show", "a", str(first))
    assert call.json("show", "a", str(first))["result"] is None
    queue.get(block=False, lease="1h").done(Bomb(tmp_path / "made"))  # type: ignore[union-attr]
    pq["a"].get(block=False, lease="1h").progress({"pressed": 5})  # type: ignore[union-attr]
    assert "cposix" in call.json("show", "a/pickle", str(first))["result"]
    shown = call.json("show", "a", str(second))
    assert (shown["result"], shown["progress"]) == (None, {"pressed": 5}), "it runs and has no result yet"
    printed = call("show", "a", str(second))
    assert 'progress         {"pressed": 5}\n' in printed
    assert "result           -\n" in printed
    assert not (tmp_path / "made").exists()


def test_an_empty_queue_is_shown_as_such(call: Calls) -> None:
    assert call.json("list", "none") == []
    assert call.json("queues") == []
    assert set(call.json("count", "none").values()) == {0}
    assert len(call("list", "none").splitlines()) == len(call("queues").splitlines()) == 1


def test_queues_has_all_queues(call: Calls, pq: PQ) -> None:
    in_each_state(pq)
    pq["b\x1b[2J"].pause()
    first, second = call.json("queues")
    states = dict.fromkeys(STATES[:-1], 1)
    assert first.items() >= {"name": "a", "paused": False, **states}.items()
    (known, _) = pq.queues()
    assert (moment(first["ready_since"]), moment(first["next_due"])) == (known.ready_since, known.next_due)
    assert second.items() >= {"name": "b\x1b[2J", "paused": True, "ready_since": None, "next_due": None}.items()
    lines = call("queues").splitlines()
    assert lines[1].split()[:6] == ["a", "1", "1", "1", "1", "1"]
    assert lines[2].split() == ["b\\x1b[2J", "0", "0", "0", "0", "0", "-", "-", "yes", "no", "0"]


def test_queues_counts_up_to_a_thousand_unless_it_is_to_be_exact(call: Calls, pq: PQ) -> None:
    pq["a"].put_many(range(1234))
    assert call("queues").splitlines()[1].split()[:2] == ["a", "1,000+"]
    assert call("queues", "--exact").splitlines()[1].split()[:2] == ["a", "1,234"]
    (queue,) = call.json("queues")
    assert (queue["ready"], queue["cut"]) == (1000, ["ready"])
    (queue,) = call.json("queues", "--exact")
    assert (queue["ready"], queue["cut"]) == (1234, [])


class Bomb:
    """Its pickle, when read, makes a folder of that name."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("queue", ["a", "a/pickle"])
def test_pickles_are_shown_and_not_read(call: Calls, pq: PQ, tmp_path: Path, queue: str) -> None:
    path = tmp_path / "made"
    id = pq["a/pickle"].put(Bomb(path))
    text = pickle.dumps(Bomb(path), 0).decode("latin-1")
    (job,) = call.json("list", queue)
    assert job["data"] == call.json("show", queue, str(id))["data"] == text
    assert "cposix" in call("list", queue)
    assert json.dumps(text) in call("show", queue, str(id))
    assert not path.exists()


@pytest.mark.parametrize("text", ["1e999", "[" * 3000 + "]" * 3000, "9" * 5000], ids=lambda text: text[:9])
def test_data_that_python_cannot_read_is_shown_as_text(call: Calls, sql: Sql, text: str) -> None:
    sql("insert into queue (q_name, data) values ('a', %s)", (text,))
    (job,) = call.json("list", "a")
    if not isinstance(job["data"], str):  # another Python, which can
        job["data"] = json.dumps(job["data"])
    assert job["data"] == text
    assert call("show", "a", str(job["id"])).endswith(f"\n{text}\n")
    assert text[:50] in call("list", "a")


NUMBERS = ["12345678901234567.89", "1.10", "-0", "1E5", "-0.0", "1e-400", "123456789012345678901234567890"]
NESTED = '{"function": "m.f", "args": [%s], "kwargs": {"x": %s}}' % (", ".join(NUMBERS), NUMBERS[0])


def test_numbers_keep_their_digits(call: Calls, pq: PQ, sql: Sql) -> None:
    for text in (*NUMBERS, NESTED):
        id = call("put", "a", text).strip()
        assert sql("select data::text from queue where id = %s", (id,)) == [(text,)]
        assert f'"data": {text}' in call("list", "a", id, "--json")
        assert f'"data": {text}' in call("show", "a", id, "--json")
        sql("update queue set result = %s, dequeued_at = now(), due_at = null where id = %s", (text, id))
        assert f'"result": {text}' in call("show", "a", id, "--json")
    id = call("put", "b", NESTED).strip()
    pq["b"].get(block=False, lease="1h").fail(ValueError())  # type: ignore[union-attr]
    assert f'"data": {NESTED}' in call("dead", "list", "--json")
    shown = call("dead", "list")
    assert f"{', '.join(NUMBERS)}, x={NUMBERS[0]}"[:50] in shown


def test_events_keep_the_digits_of_numbers(call: Calls, pq: PQ) -> None:
    pq.streams["s"].create()
    call("stream", "publish", "s", NESTED)
    assert f'"data": {NESTED}' in call("stream", "read", "s", "--json")


def test_a_pickle_of_a_number_is_one_of_a_float(call: Calls, pq: PQ) -> None:
    call("put", "a/pickle", "[1.5]")
    job = pq["a/pickle"].get(block=False)
    assert job is not None
    assert [type(each) for each in job.data] == [float]


def test_data_does_not_command_the_terminal_or_break_the_table(call: Calls, sql: Sql) -> None:
    ((id,),) = sql("""insert into queue (q_name, data) values ('a', E'{"a":\n"\u009b2J\u202eü"}') returning id""")
    for command in (["list", "a"], ["show", "a", str(id)]):
        output = call(*command)
        assert "\\x9b2J\\u202eü" in output
        assert "\x9b" not in output
    assert len(call("list", "a").splitlines()) == 2


def test_names_are_shown_in_one_line_and_apart(call: Calls, pq: PQ) -> None:
    names = ["a b", "a\nb", "a\tb"]
    for name in names:
        pq[name].put(1)
    lines = call("queues").splitlines()
    assert len(lines) == len(set(lines)) == 1 + len(names)


# -- dead jobs


def test_dead_jobs_are_listed_the_newest_first(call: Calls, pq: PQ) -> None:
    for number in range(3):
        pq["a"].put({"number": number})
        pq["a"].get(block=False, lease="1h").fail(ValueError(f"rotten\x1b[2J\n{number}"))  # type: ignore[union-attr]
    lines = call("dead", "list", "a", "--limit", "2").splitlines()[1:]
    assert [re.split("  +", line)[3:] for line in lines] == [
        ["1", "-", f'{{"number": {n}}}', f"ValueError: rotten\\x1b[2J {n}"] for n in (2, 1)
    ]
    found = call.json("dead", "list", "a")
    assert call.json("dead", "list", "none") == []
    for job, known in zip(found, pq["a"].dead.list(), strict=True):
        assert (job["id"], job["attempts"], job["data"]) == (known.id, 1, known.data)
        assert job["error"] == known.error._asdict()
        assert (moment(job["first_failed_at"]), moment(job["died_at"])) == (known.first_failed_at, known.died_at)


def test_dead_jobs_of_all_queues_are_listed_with_their_tasks(call: Calls, pq: PQ) -> None:
    for name, args, kwargs in [("a", [1], {}), ("b", ["x"], {"kind": "Cox"}), ("a", [], {})]:
        pq[name].put({"function": "garden.eat", "args": args, "kwargs": kwargs})
        pq[name].get(block=False, lease="1h").fail(ValueError("rotten"))  # type: ignore[union-attr]
    lines = call("dead", "list").splitlines()[1:]
    assert [re.split("  +", line)[1] for line in lines] == ["a", "b", "a"]
    assert [re.split("  +", line)[4:] for line in lines[1:]] == [
        ["garden.eat", '"x", kind="Cox"', "ValueError: rotten"],
        ["garden.eat", "1", "ValueError: rotten"],
    ]
    assert [job["queue"] for job in call.json("dead", "list", "--limit", "2")] == ["a", "b"]


def test_groups_of_dead_jobs_are_shown_retried_and_deleted(call: Calls, pq: PQ) -> None:
    for n, error in enumerate([ValueError("row 1"), ValueError("row 22"), KeyError("x"), ValueError("row 3")]):
        pq["a"].put({"function": "garden.eat", "args": [n], "kwargs": {}})
        pq["a"].get(block=False, lease="1h").fail(error)  # type: ignore[union-attr]
    first, second = call.json("dead", "groups")
    assert (first["count"], first["error"], first["message"], first["task"]) == (3, "ValueError", "row #", "garden.eat")
    lines = call("dead", "groups", "a").splitlines()
    assert lines[1].startswith(f"{first['group']}  a      3")
    assert lines[1].endswith("garden.eat  ValueError: row #")
    output, errors = call.both("dead", "retry-group", "none", code=1)
    assert (output, "no group 'none'" in errors) == ("", True)
    assert call("dead", "retry-group", first["group"], "--rate", "1/h") == "3 will be tried again\n"
    assert pq["a"].count("scheduled") == 2
    call.both("dead", "discard-group", second["group"], code=2)
    assert call("dead", "discard-group", second["group"], "--queue", "a", "--yes") == "1 deleted\n"
    assert call.json("dead", "groups") == []


@pytest.mark.parametrize(("action", "left"), [("retry", {"ready": 2}), ("discard", {})])
def test_of_dead_jobs_all_that_are_named_must_be_there(
    call: Calls, pq: PQ, action: str, left: dict[str, int]
) -> None:
    for _ in range(2):
        pq["a"].put(1)
        pq["a"].get(block=False, lease="1h").fail("why")  # type: ignore[union-attr]
    first, second = (str(job.id) for job in pq["a"].dead)
    yes = ["--yes"] if action == "discard" else []
    output, errors = call.both("dead", action, "a", first, first, str(2**70), *yes, code=1)
    assert (output[:2], errors[:6]) == ("1 ", "pq: 1 ")
    assert call("dead", action, "a", second, *yes).startswith("1 ")
    assert call("dead", action, "a", "--all", *yes).startswith("0 ")
    assert {state: count for state, count in pq["a"].counts().items() if count} == left


# -- changes


DESTROYING = [["cancel", "a", "1"], ["clear", "a"], ["dead", "discard", "a", "1"]]


def test_cancel_ends_jobs(call: Calls, pq: PQ) -> None:
    ids = [pq["a"].put(number) for number in range(3)]
    assert call("cancel", "a", str(ids[0]), str(ids[2]), str(ids[0]), "--yes") == "2 cancelled\n"
    assert [job.id for job in pq["a"].list()] == [ids[1]]


def test_cancel_tells_of_those_that_were_not(call: Calls, pq: PQ) -> None:
    id = pq["a"].put(1)
    output, errors = call.both("cancel", "a", str(id), str(id + 1), "--yes", code=1)
    assert output == "1 cancelled\n"
    assert "1 not cancelled" in errors


def test_clear_deletes_all_of_a_queue(call: Calls, pq: PQ) -> None:
    in_each_state(pq)
    pq["b"].put(1)
    call("clear", "a", "--yes")
    assert set(pq["a"].counts().values()) == {0}
    assert pq["b"].count() == 1


@pytest.mark.parametrize("command", [["cancel", "a", "1"], ["clear", "a"]], ids=lambda command: command[0])
@pytest.mark.parametrize("answer", ["y\n", "YES\n"], ids=repr)
def test_on_a_terminal_it_is_asked_first(
    call: Calls, pq: PQ, monkeypatch: pytest.MonkeyPatch, command: list[str], answer: str
) -> None:
    assert pq["a"].put(1) == 1
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    _, errors = call.both(*command, code=0)
    assert "'a'" in errors
    assert "[y/N]" in errors
    assert pq["a"].count() == 0


@pytest.mark.parametrize("command", DESTROYING, ids=lambda command: command[0])
@pytest.mark.parametrize("answer", ["n\n", "\n", ""], ids=repr)
def test_any_other_answer_is_a_no(
    offline: Calls, monkeypatch: pytest.MonkeyPatch, command: list[str], answer: str
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    assert offline.both(*command, code=1)[0] == ""


@pytest.mark.parametrize("command", DESTROYING, ids=lambda command: command[0])
@pytest.mark.parametrize("stdin", [io.StringIO("y\n"), None], ids=["no terminal", "closed"])
def test_where_nobody_can_be_asked_nothing_is_done(
    offline: Calls, monkeypatch: pytest.MonkeyPatch, command: list[str], stdin: Any
) -> None:
    monkeypatch.setattr(sys, "stdin", stdin)
    output, errors = offline.both(*command, code=2)
    assert output == ""
    assert "--yes" in errors


def test_reschedule_changes_the_times_that_are_given(call: Calls, pq: PQ) -> None:
    id = pq["a"].put(1)
    call("reschedule", "a", str(id), "--at", "2999-01-01", "--expected", "2998-01-01")
    job = pq["a"][id]
    assert (job.state, job.schedule_at, job.expected_at) == ("scheduled", datetime(2999, 1, 1), datetime(2998, 1, 1))
    call("reschedule", "a", str(id), "--at", "none")
    job = pq["a"][id]
    assert (job.state, job.expected_at) == ("ready", datetime(2998, 1, 1))
    call("reschedule", "a", str(id), "--expected", "none")
    assert pq["a"][id].expected_at is None


def test_reschedule_needs_a_time(offline: Calls) -> None:
    _, errors = offline.both("reschedule", "a", "1", code=2)
    assert "--at or --expected" in errors


def test_move_puts_a_job_elsewhere(call: Calls, pq: PQ) -> None:
    id = pq["a"].put(1)
    call("move", "a", str(id), "b")
    assert (pq["a"].find(id), pq["b"][id].data) == (None, 1)


NAMING_A_JOB = [["show"], ["why"], ["list", "--after"], ["cancel", "--yes"], ["reschedule", "--at", "1s"]]
NAMING_A_JOB.append(["move", "b"])


@pytest.mark.parametrize("command", NAMING_A_JOB, ids=lambda command: command[0])
def test_a_job_that_is_not_there_is_a_failure(call: Calls, pq: PQ, command: list[str]) -> None:
    name, *rest = command
    for id in (str(pq["b"].put(1)), str(2**70)):  # in another queue, and one that no job can have
        args = [name, "a", *rest, id] if rest == ["--after"] else [name, "a", id, *rest]
        _, errors = call.both(*args, code=1)
        assert errors.startswith("pq: ")
    assert pq["b"].count() == 1


def test_a_job_that_runs_is_neither_rescheduled_nor_moved(call: Calls, pq: PQ) -> None:
    id = pq["a"].put(1)
    pq["a"].get(block=False, lease="1h")
    call("reschedule", "a", str(id), "--at", "1s", code=1)
    call("move", "a", str(id), "b", code=1)
    assert pq["a"][id].state == "running"


# -- which jobs


@pytest.fixture
def mixed(pq: PQ) -> dict[str, int]:
    """Ready jobs of two tasks and keys, a dead one, one that waits after an error, one that runs."""
    queue = pq["a"]
    call = {"args": [], "kwargs": {}, "retried": 0, "retry_in": "1s", "max_retries": 0}
    ids: dict[str, int] = {}
    for name, error in (("dead", "Timeout of the server"), ("retried", "timeout of the client")):
        ids[name] = queue.put({"function": "shop.fail", **call})
        job = queue.get(block=False, lease="1h")
        assert job is not None
        if name == "dead":
            job.fail(ValueError(error))
        else:
            job.retry(error=ValueError(error), in_="1h")
    ids["runs"] = queue.put({"function": "shop.run", **call})
    queue.get(block=False, lease="1h")
    ids["run"] = queue.put({"function": "shop.run", **call})
    ids["other"] = queue.put({"function": "shop.runs", **call})
    ids["k"] = queue.put(1, key="k")
    ids["held"] = queue.put(2, key="k")
    pq["b"].put({"function": "shop.run", **call})
    return ids


CHOICES = [
    (["--all"], {"retried", "run", "other", "k", "held"}, {"dead", "runs"}),
    (["--task", "shop.run"], {"run"}, {"runs"}),
    (["--task", "shop.fail"], {"retried"}, {"dead"}),
    (["--key", "k"], {"k", "held"}, set()),
    (["--where-error", "TIMEOUT"], {"retried"}, {"dead"}),
    (["--where-error", "of the server"], set(), {"dead"}),
    (["--where-error", "message"], set(), set()),
    (["--where-error", "valueerror: timeout", "--task", "shop.fail"], {"retried"}, {"dead"}),
    (["--task", "shop.fail", "--key", "k"], set(), set()),
]


@pytest.mark.parametrize(("options", "waiting", "others"), CHOICES, ids=[" ".join(each[0]) for each in CHOICES])
def test_jobs_are_chosen(
    call: Calls, pq: PQ, mixed: dict[str, int], options: list[str], waiting: set[str], others: set[str]
) -> None:
    listed = {job["id"] for job in call.json("list", "a", *options)}
    assert listed == {mixed[name] for name in waiting | others}

    assert call("reschedule", "a", *options, "--at", "3h") == f"{len(waiting)} rescheduled\n"
    assert {job.id for job in pq["a"].list("scheduled") if job.due_at > datetime.max.replace(year=2000)} >= {
        mixed[name] for name in waiting
    }
    assert call("reschedule", "a", *options, "--at", "none") == f"{len(waiting)} rescheduled\n"

    assert call("move", "a", *options, "c") == f"{len(waiting)} moved to queue 'c'\n"
    assert {job.id for job in pq["c"].list()} == {mixed[name] for name in waiting}
    call("move", "c", "--all", "a")

    assert call("cancel", "a", *options, "--yes") == f"{len(waiting | others)} cancelled\n"
    left = {name for name, id in mixed.items() if pq["a"].find(id) and pq["a"][id].state != "finished"}
    assert left == set(mixed) - waiting - others
    assert pq["b"].count() == 1


def test_what_is_taken_meanwhile_is_passed_over(call: Calls, pq: PQ, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, taken = pq["a"].put(1), pq["a"].put(2)
    monkeypatch.setattr("pq._cli.choice.chosen", lambda *args, **options: iter([[kept, taken]]))
    with pq["a"].item():  # the first one is locked
        assert call("move", "a", "--all", "b") == "1 moved to queue 'b'\n"


def test_a_key_and_a_state_are_listed(call: Calls, mixed: dict[str, int]) -> None:
    assert [job["id"] for job in call.json("list", "a", "--key", "k", "--state", "held")] == [mixed["held"]]
    assert [job["id"] for job in call.json("list", "a", "--key", "k", "--after", str(mixed["k"]))] == [mixed["held"]]


def test_several_ids_are_listed_rescheduled_and_moved(call: Calls, pq: PQ) -> None:
    ids = [str(id) for id in pq["a"].put_many([1, 2, 3])]
    assert [str(job["id"]) for job in call.json("list", "a", ids[2], ids[0])] == [ids[2], ids[0]]
    assert call("reschedule", "a", *ids[:2], "--at", "1h") == "2 rescheduled\n"
    assert call("move", "a", *ids, ids[0], "b") == "3 moved to queue 'b'\n"
    output, errors = call.both("move", "b", *ids, str(2**70), str(pq["c"].put(1)), "c", code=1)
    assert output == "3 moved to queue 'c'\n"
    assert errors.startswith("pq: 2 not moved")


UNKNOWN = [
    ["list"], ["list", "--json"], ["list", "--task", "t"], ["count"], ["count", "--state", "dead"], ["pause"],
    ["resume"], ["clear", "--yes"], ["cancel", "--all", "--yes"], ["reschedule", "--all", "--at", "1s"],
    ["move", "c", "--all"], ["dead", "list"], ["dead", "groups"], ["dead", "retry", "--all"],
    ["dead", "discard", "--all", "--yes"],
]  # fmt: skip


@pytest.mark.parametrize("command", UNKNOWN, ids=" ".join)
def test_an_unknown_queue_is_told(call: Calls, pq: PQ, command: list[str]) -> None:
    pq["apples"].put(1)
    words = command[: 2 if command[0] == "dead" else 1]
    for name, told in (("appels", True), ("apples", False)):
        _, errors = call.both(*words, name, *command[len(words) :], code=0)
        assert ("queue 'appels' has no jobs" in errors) is told
        assert ("those that have: 'apples'" in errors) is told
        assert errors.count("\n") == told


def test_more_jobs_than_a_statement_reads_are_moved(call: Calls, pq: PQ, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_chosen, "PAGE", 2)
    pq["a"].put_many(range(5))
    assert call("move", "a", "--all", "b") == "5 moved to queue 'b'\n"
    assert call("move", "b", "--all", "b") == "5 moved to queue 'b'\n"
    assert len(call.json("list", "b", "--all", "--limit", "1")) == 5


@pytest.mark.parametrize("command", ["cancel", "move", "reschedule", "dead retry", "dead discard", "prune"])
@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (PQError("no"), 1)], ids=["Ctrl-C", "error"])
def test_a_command_that_ends_halfway_tells_what_it_has_changed(
    call: Calls, pq: PQ, monkeypatch: pytest.MonkeyPatch, command: str, error: BaseException, code: int
) -> None:
    monkeypatch.setattr(_chosen, "PAGE", 2)
    kind, name = {"dead retry": (Dead, "retry"), "dead discard": (Dead, "discard"), "prune": (Manager, "prune")}.get(
        command, (_queue.Queue, command)
    )
    pages = iter([2, 2])

    def change(*args: Any, **kwargs: Any) -> int:
        for count in pages:
            return count
        raise error

    monkeypatch.setattr(kind, name, change)
    pq["a"].put_many(range(6))
    if command.startswith("dead"):
        for job in pq["a"].get_many(6, block=False, lease="1h"):
            job.fail(ValueError())
    words = {"prune": [], "move": ["a", "--all", "b"], "reschedule": ["a", "--all", "--at", "1s"]}
    words["cancel"] = words["dead discard"] = ["a", "--all", "--yes"]
    output, errors = call.both(*command.split(), *words.get(command, ["a", "--all"]), code=code)
    assert output == ""
    assert errors.startswith("pq: at least 4 jobs had been changed by then, and stay so\n")


@pytest.mark.parametrize(
    "args",
    [
        ["cancel", "a", "--yes"],
        ["cancel", "a", "1", "--all", "--yes"],
        ["move", "a", "b"],
        ["move", "a", "1", "b", "--task", "t"],
        ["reschedule", "a", "--at", "1s"],
        ["reschedule", "a", "--at", "1s", "--all", "--key", "k"],
        ["reschedule", "a", "--at", "1s", "--where-error", ""],
        ["list", "a", "1", "--state", "dead"],
        ["list", "a", "1", "--key", "k"],
        ["list", "a", "--key", ""],
        ["cancel", "a", "--yes", "--key", "k" * 501],
    ],
    ids=" ".join,
)
def test_which_jobs_must_be_clear(offline: Calls, args: list[str]) -> None:
    offline.both(*args, code=2)


def test_pause_and_resume(call: Calls, pq: PQ) -> None:
    for _ in range(2):
        call("pause", "a")
        assert pq["a"].paused
    for _ in range(2):
        call("resume", "a")
        assert not pq["a"].paused


def test_prune_deletes_all_whose_retention_is_over(call: Calls, pq: PQ, sql: Sql) -> None:
    sql(
        "insert into queue (q_name, data, dequeued_at) select 'a', '1', now() - interval '1 year'"
        " from generate_series(1, 2500)"
    )
    pq["a"].put(1)
    assert call("prune") == "2500 deleted\n"
    assert sql("select count(*) from queue") == [(1,)]
    assert call("prune") == "0 deleted\n"


# -- common to all

COMMANDS = {
    "put": ["a", "1"],
    "list": ["a"],
    "count": ["a"],
    "show": ["a", "1"],
    "why": ["a", "1"],
    "cancel": ["a", "1", "--yes"],
    "reschedule": ["a", "1", "--at", "1s"],
    "move": ["a", "1", "b"],
    "pause": ["a"],
    "resume": ["a"],
    "clear": ["a", "--yes"],
    "queues": [],
    "prune": [],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_without_a_connection_it_says_so(offline: Calls, command: str) -> None:
    output, errors = offline.both(command, *COMMANDS[command], code=3)
    assert (output, errors.startswith("pq: no connection: ")) == ("", True)


def test_without_a_table_all_commands_say_so(call: Calls) -> None:
    for command, args in COMMANDS.items():
        output, errors = call.both(command, *args, "--table", "missing", code=1)
        assert output == ""
        assert "call create()" in errors and errors.endswith("From a shell: pq create\n")


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - {"queues", "prune"}))
def test_a_queue_without_a_name_is_wrong_usage(offline: Calls, command: str) -> None:
    output, errors = offline.both(command, "", *COMMANDS[command][1:], code=2)
    assert (output, errors.count("\n")) == ("", 1)


def test_the_table_can_be_named(call: Calls, dsn: str) -> None:
    with PQ(dsn, schema="app", table="mails") as other:
        other.create()
        call("put", "a", "1", "--schema", "app", "--table", "mails")
        assert other["a"].count() == 1
    assert call.json("queues", "--schema", "app", "--table", "mails")[0]["name"] == "a"
    assert call.json("queues") == []


# -- work

CHORES = """
from pq import Worker
from pq.tasks import PQ

pq = PQ()

@pq["a"].task()
def press(job_id):
    pass

worker = Worker(pq)
"""


@pytest.fixture
def chores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "chores.py").write_text(CHORES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "chores", raising=False)


BY_DEFAULT = inspect.signature(Worker).parameters["batch"].default


@pytest.mark.parametrize(("given", "batch"), [(["--batch", "3"], 3), ([], BY_DEFAULT)])
def test_batch_reaches_the_worker_and_its_processes(
    chores: None, offline: Calls, given: list[str], batch: int
) -> None:
    args = cli._parser("pq").parse_args(["work", "chores:pq", *given])
    in_a_process = cli._parser("pq").parse_args(_work.arguments(args))
    for each in (args, in_a_process):
        worker = _work.worker_of(each)
        assert worker._batch == batch


def test_a_worker_tells_names_of_queues_that_may_be_misspelt(
    chores: None, call: Calls, pq: PQ, caplog: pytest.LogCaptureFixture
) -> None:
    pq["apples"].put(1)
    call("put", "b", "1")  # which makes the queue
    pq["b"].get()
    call("work", "chores:pq", "-Q", "a,b,appels", "--max-idle", "0.1")
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    sys.modules["chores"].pq.close()
    assert told == ["no jobs, and no tasks in this process, for 'b', 'appels': is the name right?"]


@pytest.mark.parametrize(("target", "batch"), [("pq", "0"), ("pq", "x"), ("worker", "3")])
def test_a_batch_that_cannot_be_is_wrong_usage(chores: None, offline: Calls, target: str, batch: str) -> None:
    offline("work", f"chores:{target}", "--batch", batch, code=2)


# -- how long jobs are kept


def test_create_sets_how_long_jobs_are_kept(call: Calls, pq: PQ) -> None:
    call("create", "--retain", "3d", "--retain-dead", "90d")
    assert (pq.retention.finished, pq.retention.dead) == (timedelta(days=3), timedelta(days=90))
    call("create", "--retain-dead", "none")
    assert (pq.retention.finished, pq.retention.dead) == (timedelta(days=3), None)
    call("create", "--retain", "0")
    call("create")
    assert (pq.retention.finished, pq.retention.dead) == (timedelta(0), None)
    for wrong in (["--retain", "3 weeks"], ["--retain-dead", "0"], ["--retain", "-1s"]):
        _, error = call.both("create", *wrong, code=2)
        assert "retain" in error
    assert (pq.retention.finished, pq.retention.dead) == (timedelta(0), None)


# -- as a process


def run(dsn: str, *args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PQ_DSN": dsn, **options.pop("env", {})}
    options |= {"env": env, "cwd": ROOT, "capture_output": True, "encoding": "utf-8", "timeout": PATIENCE}
    return subprocess.run([sys.executable, "-m", "pq", *args], **options)


@pytest.mark.parametrize("command", ["create", "version", "count"])
def test_a_name_does_not_command_the_terminal_or_break_the_command(dsn: str, command: str) -> None:
    name = ["a"] if command == "count" else []
    done = run(dsn, command, *name, "--table", "ü\x1b[2J", env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "1"})
    assert done.returncode == (1 if name else 0)
    output = done.stderr if name else done.stdout
    assert r'"\xfc\x1b[2J"' in output
    assert output.count("\n") == 1


def test_data_goes_through_a_pipe(dsn: str) -> None:
    done = run(dsn, "put", "a", "-", input='{"kind": "Cox"}')
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(run(dsn, "show", "a", done.stdout.strip(), "--json").stdout)
    assert found["data"] == {"kind": "Cox"}


def test_a_terminal_that_knows_ascii_only_is_shown_escapes(dsn: str) -> None:
    with PQ(dsn) as pq:
        execute(dsn, "insert into queue (q_name, data) values ('ü', '\"ö\"')")
        assert pq["ü"].count() == 1
    done = run(dsn, "list", "ü", env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "1"})
    assert (done.returncode, done.stderr) == (0, "")
    assert '"\\xf6"' in done.stdout
    execute(dsn, "insert into queue (q_name, data, dequeued_at, error) values ('ü', '1', now(), 'faul: ö')")
    done = run(dsn, "dead", "list", "ü", env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "1"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "faul: \\xf6" in done.stdout


@pytest.mark.parametrize("command", [["list", "a"], ["put", "a", "1"]], ids=lambda command: command[0])
def test_ctrl_c_ends_a_command_and_its_statement(
    dsn: str, pq: PQ, sql: Sql, connect: Callable[..., Any], command: list[str]
) -> None:
    waits = "select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
    other = connect()
    other.cursor().execute("lock table queue in access exclusive mode")
    process = subprocess.Popen([sys.executable, "-m", "pq", *command, "--dsn", dsn], cwd=ROOT, stderr=subprocess.PIPE)
    try:
        wait_until(lambda: sql(waits), "the statement")
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=PATIENCE) == (None, b"")
        assert process.returncode == 130
        wait_until(lambda: not sql(waits), "the end of the statement")
    finally:
        process.kill()
        process.wait()


def test_a_real_terminal_is_asked(dsn: str) -> None:
    with PQ(dsn) as pq:
        pq["a"].put(1)
        ours, theirs = pty.openpty()
        try:
            os.write(ours, b"y\n")
            done = run(dsn, "clear", "a", stdin=theirs)
        finally:
            os.close(ours)
            os.close(theirs)
        assert (done.returncode, done.stdout) == (0, "queue 'a' cleared\n")
        assert "[y/N]" in done.stderr
        assert pq["a"].count() == 0
