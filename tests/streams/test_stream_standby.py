"""A stream on a standby, and when that is promoted: what was committed is read once, and by whom it was to be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.driver import driver
from support.streams import drained
from torture.server import Server

from pq import PQ


@pytest.fixture
def servers(pg_bin: Path) -> Iterator[Server]:
    if not Server.has_standby(pg_bin):
        pytest.skip(f"there is no pg_basebackup in {pg_bin}")
    with Server(standby=True, binaries=pg_bin) as made:
        yield made


def test_a_promoted_standby_goes_on_where_the_primary_was(servers: Server) -> None:
    with PQ(servers.dsn) as pq:
        lost, late = driver.connect(servers.dsn), driver.connect(servers.dsn)
        pq.create()
        stream = pq.streams["orders"]
        stream.create()
        read, inside, leased, _ = (stream.subscribe(name) for name in ("read", "inside", "leased", "unread"))
        stream.subscribe("parted", partitions=3)
        stream.publish("lost", conn=lost)  # in a transaction that the promotion ends
        stream.publish("late", conn=late)
        stream.publish_many(range(5))
        assert drained(read, 3) == [0, 1, 2, 3, 4]
        with inside.batch(2, timeout=0) as batch:
            assert [event.data for event in batch] == [0, 1]
        held = next(leased.batches(3, "1h"))
        late.commit()
        stream.publish("last", key="k")
        assert servers.standby is not None
        with PQ(servers.standby.dsn) as standby:
            copy = standby.streams["orders"]
            assert [event.data for event in copy.read()] == ["late", 0, 1, 2, 3, 4, "last"]
            assert copy.subscription("inside").lag(exact=True).events == 5
            with pytest.raises(driver.Error, match="read-only"):
                drained(copy.subscription("unread"), 3)
        servers.promote()
        lost.close(), late.close()
    with PQ(servers.dsn) as pq:
        stream = pq.streams["orders"]
        stream.publish("new")
        everything = ["late", 0, 1, 2, 3, 4, "last", "new"]
        assert drained(stream.subscription("read"), 3) == ["late", "last", "new"]
        assert drained(stream.subscription("inside"), 3) == [2, 3, 4, "late", "last", "new"]
        assert drained(stream.subscription("unread"), 3) == everything
        assert sorted(map(str, drained(stream.subscription("parted"), 3))) == sorted(map(str, everything))
        assert drained(stream.subscription("leased"), 3) == []  # it waits for the batch
        with closing(driver.connect(servers.dsn)) as conn:
            held.done(conn=conn)
            conn.commit()
        assert drained(stream.subscription("leased"), 3) == [3, 4, "late", "last", "new"]
        assert not stream.rebase()
        stream.rotate()
