"""A stream in a restored dump: nothing is delivered until it is rebased, and then just what was unread."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.server import Server
from support.streams import drained

from pq import PQ
from pq.errors import StreamRestored


@pytest.fixture(params=["the same server", "another server"])
def other_dsn(request: pytest.FixtureRequest, pg_bin: Path) -> Iterator[str]:
    """Of an empty database: on the same server, whose numbers of transactions are larger than those in the dump; or on
    a new one, which begins to count."""
    if not (pg_bin / "pg_dump").exists():
        pytest.skip("there is no pg_dump here")
    if request.param == "the same server":
        yield request.getfixturevalue("make_database")(table=False)
        return
    with Server(bin=pg_bin) as server:
        yield f"host=127.0.0.1 port={server.settings['port']} user=postgres dbname=postgres"


@pytest.fixture
def restored(pg_bin: Path, other_dsn: str) -> Callable[[str], str]:
    """Dump a database, and restore the dump into another one."""

    def copy(dsn: str) -> str:
        environment = {**os.environ, "LC_ALL": "C"}
        dump = subprocess.run([pg_bin / "pg_dump", "-Fc", "-d", dsn], capture_output=True, check=True, env=environment)
        restore = [pg_bin / "pg_restore", "--exit-on-error", "-d", other_dsn]
        subprocess.run(restore, input=dump.stdout, capture_output=True, check=True, env=environment)
        return other_dsn

    return copy


def test_what_was_unread_is_read_once(
    pq: PQ, dsn: str, restored: Callable[[str], str], connect: Callable[..., Any]
) -> None:
    stream = pq.streams["orders"]
    stream.create()
    late = connect()
    a, b, c = (stream.subscribe(name, "beginning") for name in "abc")
    stream.publish("late", conn=late)
    stream.publish_many(range(5))
    with a.batch(timeout=0) as batch:  # behind it lies an event that is not committed yet
        assert len(batch) == 5
    with b.batch(2, timeout=0) as batch:  # inside of a window
        assert [event.data for event in batch] == [0, 1]
    late.commit()
    stream.publish("last")
    leased = next(iter(c.batches(4)))
    assert [event.data for event in leased] == ["late", 0, 1, 2]

    with PQ(restored(dsn)) as copy:
        stream = copy.streams["orders"]
        for name in "abc":
            with pytest.raises(StreamRestored), stream.subscription(name).batch(timeout=0):
                pass
        with pytest.raises(StreamRestored):
            stream.rotate()
        assert stream.rebase()
        assert not stream.rebase()
        stream.publish("new")
        assert drained(stream.subscription("a"), 4) == ["late", "last", "new"]
        assert drained(stream.subscription("b"), 4) == ["late", 2, 3, 4, "last", "new"]
        stream.subscription("c").pause()
        copy._db.execute("update queue_batches_orders set due_at = now(), attempts = 0")
        stream.subscription("c").resume()
        assert drained(stream.subscription("c"), 4) == ["late", 0, 1, 2, 3, 4, "last", "new"]


def test_the_same_database_is_at_home(pq: PQ) -> None:
    stream = pq.streams["orders"]
    with pq["any"], pq["any"]:  # also where it was made in a savepoint
        stream.create()
    subscription = stream.subscribe("a")
    stream.publish(1)
    pq._db.execute("vacuum full queue_origin_orders")
    assert drained(subscription, 4) == [1]
    assert not stream.rebase()
