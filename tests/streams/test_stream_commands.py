"""``pq streams`` and ``pq stream …``."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

import psycopg2
import pytest

from pq import PQ
from pq._cli.main import main

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(dsn: str, capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*args: str) -> tuple[int, str]:
        options = [] if args[0] == "sql" else ["--dsn", dsn]
        place = 2 if args[0] == "stream" else 1
        try:
            code = main([*args[:place], *options, *args[place:]])
        except SystemExit as error:
            code = int(str(error.code))
        out, err = capsys.readouterr()
        return code, out + err

    return command


def test_a_stream_from_its_beginning_to_its_end(run: Run, pq: PQ, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("streams", "--json") == (0, "[]\n")
    assert run("stream", "create", "orders", "--retain", "2h", "--retain-unread", "7d")[0] == 0
    stream = pq.streams["orders"]
    stream.subscribe("a", types=["t"])
    assert run("stream", "publish", "orders", '{"n": 1}', "--type", "t", "--key", "k") == (0, "1\n")
    monkeypatch.setattr("sys.stdin", io.StringIO("[2]"))
    assert run("stream", "publish", "orders", "-") == (0, "2\n")
    _, out = run("stream", "read", "orders", "--json")
    assert [(event["id"], event["type"], event["key"], event["data"]) for event in json.loads(out)] == [
        (1, "t", "k", {"n": 1}),
        (2, "", None, [2]),
    ]
    assert [event["id"] for event in json.loads(run("stream", "read", "orders", "--after", "1", "--json")[1])] == [2]
    assert [event["id"] for event in json.loads(run("stream", "read", "orders", "--type", "t", "--json")[1])] == [1]
    info = json.loads(run("stream", "info", "orders", "--json")[1])
    assert (info["retain"], info["retain_unread"], info["events"]) == (7200, 7 * 86400, 2)
    assert [each["name"] for each in info["subscriptions"]] == ["a"]
    assert json.loads(run("streams", "--json")[1])[0]["name"] == "orders"
    assert "a" in run("streams")[1] and "retain unread" in run("stream", "info", "orders")[1]
    assert run("stream", "pause", "orders", "a")[0] == 0
    assert stream.subscription("a").info().paused_at is not None
    assert run("stream", "resume", "orders", "a")[0] == 0
    assert stream.subscription("a").info().paused_at is None
    assert run("stream", "seek", "orders", "a", "new", "--yes") == (0, "subscription 'a': 0 events unread\n")
    assert run("stream", "seek", "orders", "a", "beginning", "--yes") == (0, "subscription 'a': 1 events unread\n")
    assert run("stream", "seek", "orders", "a", "1h", "--yes") == (0, "subscription 'a': 1 events unread\n")
    assert run("stream", "rotate", "orders") == (0, "there was nothing to remove\n")
    assert run("stream", "rebase", "orders") == (0, "stream 'orders' is not from a dump\n")
    for refused in (run("stream", "drop", "orders", "--yes"), run("stream", "unsubscribe", "orders", "a", "--yes")):
        assert refused[0] == 1
        assert "--force drops them" in refused[1]
        assert "force=True" not in refused[1]
    assert run("stream", "unsubscribe", "orders", "a", "--yes", "--force")[0] == 0
    assert run("stream", "drop", "orders", "--yes")[0] == 0
    assert list(pq.streams) == []


def test_a_subscription_is_made(run: Run, pq: PQ) -> None:
    stream = pq.streams["orders"]
    stream.create()
    stream.publish_many([1, 2], "t")
    stream.publish_many([3], "u")
    assert run("stream", "subscribe", "orders", "a") == (0, "subscription 'a': 0 events unread\n")
    made = run("stream", "subscribe", "orders", "b", "--start", "beginning", "--type", "t", "--partitions", "2")
    assert made == (0, "subscription 'b': 2 events unread\n")
    made = run("stream", "subscribe", "orders", "c", "--start", "2", "--shared")
    assert made == (0, "subscription 'c': 1 events unread\n")
    info = {each.name: each for each in stream.subscriptions()}
    assert (info["b"].types, info["b"].partitions, info["b"].shared, info["c"].shared) == (["t"], 2, False, True)
    code, out = run("stream", "subscribe", "orders", "b")
    assert code == 2
    assert "its types is ['t'], not None, partitions is 2, not 1" in out



def test_the_sql_of_a_stream_makes_it(run: Run, pq: PQ, dsn: str) -> None:
    _, out = run("sql", "--stream", "a b")
    with psycopg2.connect(dsn) as conn, conn.cursor() as cursor:
        cursor.execute(out)
    conn.close()
    stream = pq.streams["a b"]
    assert stream.version() == 1
    stream.create()
    subscription = stream.subscribe("s")
    stream.publish(1)
    with subscription.batch(timeout=0) as batch:
        assert len(batch) == 1


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("info", "none"), 1, "There is no stream 'none'"),
        (("publish", "none", "1"), 1, "There is no stream 'none'"),
        (("publish", "none", "x"), 2, "must be JSON"),
        (("create", "a", "--retain", "x"), 2, "retain must be of the form"),
        (("create", "a", "--retain", "1ms"), 2, "retain must be whole seconds"),
        (("create", ""), 2, "stream name must not be empty"),
        (("seek", "a", "b", "yesterday", "--yes"), 2, "'new', 'beginning', an id, or a time"),
        (("read", "a", "--limit", "0"), 2, "at least 1"),
        (("drop", "a"), 2, "--yes"),
    ],
)
def test_what_is_wrong(run: Run, args: tuple[str, ...], code: int, message: str) -> None:
    found, out = run("stream", *args)
    assert found == code and message in out
