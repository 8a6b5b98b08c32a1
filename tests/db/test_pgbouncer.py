"""Behind pgbouncer in transaction mode: each transaction may meet another server session."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg2.extensions import make_dsn, parse_dsn
from support import Background, wait_until
from support.driver import driver
from support.proxy import Proxy, cut_after
from support.server import NOBODY
from support.streams import drained
from torture.server import free_port

from pq import PQ, CommitUnknown, Queue

Sql = Callable[..., list[tuple[Any, ...]]]

PROGRAM = shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin")

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no pgbouncer")

CONFIG = """
[databases]
* = host={host} port={port} {rest}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen_port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 3
server_reset_query_always = 1
"""


@pytest.fixture
def proxy(dsn: str) -> Iterator[Proxy]:
    """Between pgbouncer and the server: what it sees reaches the server."""
    with Proxy(dsn) as made:
        yield made


@pytest.fixture
def bouncer(dsn: str, proxy: Proxy) -> Iterator[str]:
    """The DSN of the test's database behind a pgbouncer."""
    port = free_port()
    through = make_dsn(dsn, host="127.0.0.1", port=port)
    login = {name: value for name, value in parse_dsn(dsn).items() if name in ("user", "password")}
    folder = Path(tempfile.mkdtemp(prefix="pq-"))
    folder.chmod(0o755)
    (folder / "ini").write_text(
        CONFIG.format(
            host="127.0.0.1", port=proxy.port, listen_port=port, rest=" ".join(f"{k}={v}" for k, v in login.items())
        )
    )
    command = [str(PROGRAM), *(["-u", NOBODY] if os.geteuid() == 0 else []), str(folder / "ini")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: process.poll() is not None or answers(through), "pgbouncer")
            proxy.seen.clear()
            yield through
        finally:
            process.terminate()
            process.wait(30)
            shutil.rmtree(folder)


def answers(dsn: str) -> bool:
    try:
        driver.connect(dsn).close()
    except driver.OperationalError:
        return False
    return True


@pytest.fixture(params=["dsn", "connection", "pool"])
def bounced(request: pytest.FixtureRequest, bouncer: str) -> Iterator[PQ]:
    options: dict[str, Any] = {"poll_interval": 0.2}
    if request.param == "pool":
        made = PQ(pool=driver.pool(1, 3, bouncer), **options)
    else:
        made = PQ(bouncer if request.param == "dsn" else driver.connect(bouncer), **options)
    with made:
        yield made


def got(queue: Queue, **kwargs: Any) -> Any:
    job = queue.get(**kwargs)
    return job and job.data


def test_all_of_it_works_without_any_state_in_the_session(bounced: PQ, proxy: Proxy) -> None:
    queue = bounced["a"]
    bounced.create()
    queue.put(1)
    queue.put(2, schedule_at="0s")
    assert len(queue) == 2
    assert [got(queue), got(queue)] == [1, 2]
    queue.put(3)
    with pytest.raises(ZeroDivisionError), queue as cursor:
        assert got(queue) == 3
        cursor.execute("select 1")
        with queue:
            queue.put(4)
        raise ZeroDivisionError
    with queue:
        assert got(queue) == 3
    assert queue.get(timeout=0.01) is None
    assert not state_left_by(proxy.seen)


def test_the_doctor_tells_of_the_pooler_and_leaves_nothing_in_the_session(bounced: PQ, dsn: str, proxy: Proxy) -> None:
    assert "pooler" in [finding.name for finding in bounced.doctor()]
    assert not state_left_by(proxy.seen)
    with PQ(dsn) as direct:
        assert "pooler" not in [finding.name for finding in direct.doctor()]


#: A look at a gate: the lock is given back at once.
GATE = "pg_try_advisory_lock(gate.key) then not pg_advisory_unlock(gate.key)"


def state_left_by(statements: list[str]) -> list[str]:
    """Those that leave something behind in the session. (pgbouncer itself says SET, in capitals.)"""
    pattern = re.compile(r"listen|advisory_lock|prepare |\btemp|(^|; *)set (?!local|transaction)")
    return [text for text in statements if pattern.search(text.replace(GATE, ""))]


def test_a_get_that_waits_polls(bounced: PQ, bouncer: str, proxy: Proxy, caplog: pytest.LogCaptureFixture) -> None:
    waiting = Background(got, bounced["a"], timeout=30)
    wait_until(lambda: "polling" in caplog.text, "the warning")
    with PQ(bouncer) as other:
        other["a"].put(1)
    assert waiting.result() == 1
    assert not state_left_by(proxy.seen)


def test_many_threads(bouncer: str, sql: Sql) -> None:
    sql("insert into queue (q_name, data) select 'a', to_json(n) from generate_series(1, 60) n")
    seen: list[int] = []
    lock = threading.Lock()

    def work() -> None:
        for _ in range(5):
            with pq["a"]:
                data = got(pq["a"])
                with lock:
                    seen.append(data)

    with PQ(bouncer, max_connections=12) as pq:
        for thread in [Background(work) for _ in range(12)]:
            thread.result()
    assert sorted(seen) == list(range(1, 61))


def test_streams(bounced: PQ, bouncer: str, dsn: str, proxy: Proxy) -> None:
    stream = bounced.streams["orders"]
    stream.create()
    proxy.seen.clear()  # of the functions it made, too
    billing = stream.subscribe("billing", max_retries=1, retry_in=None)
    parted = stream.subscribe("parted", partitions=2)
    late = driver.connect(dsn)
    stream.publish("late", conn=late)
    assert stream.publish_many(range(5)) == [2, 3, 4, 5, 6]
    with bounced["a"]:
        stream.publish("block", "x", "k", {"a": 1})
        assert stream.load([7, 8]) == 2
    with pytest.raises(ZeroDivisionError), billing.batch(3, timeout=0) as batch:
        assert [event.data for event in batch] == [0, 1, 2]
        batch.cursor.execute("select 1")
        raise ZeroDivisionError
    late.commit()
    late.close()
    assert drained(billing, 2) == [0, 1, 2, 3, 4, "block", 7, 8, "late"]
    for batch in parted.batches(timeout=0):
        if not batch:
            break
        batch.extend()
        batch.done()
    assert parted.lag(exact=True).events == 0
    billing.seek("beginning")
    with bounced["a"]:
        taken = billing.take(2)
        assert [event.data for event in taken] == ["late", 0]
        taken[1].retry("0s")
    with next(billing.batches(1, timeout=0)) as retried:
        assert [event.data for event in retried] == [0]
    stream.rotate()
    assert not stream.rebase()
    assert not state_left_by(proxy.seen)


def test_a_consumer_of_a_stream_polls(
    bounced: PQ, bouncer: str, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    stream = bounced.streams["orders"]
    stream.create()
    proxy.seen.clear()  # of the functions it made, too
    billing = stream.subscribe("billing")

    def wait() -> list[Any]:
        with billing.batch(timeout=30) as batch:
            return [event.data for event in batch]

    waiting = Background(wait)
    wait_until(lambda: "polling" in caplog.text, "the warning")
    with PQ(bouncer) as other:
        other.streams["orders"].publish(1)
    assert waiting.result() == [1]
    assert not state_left_by(proxy.seen)


def test_listen_dsn_wakes(bouncer: str, dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with PQ(bouncer, listen_dsn=dsn, poll_interval=60) as pq:
        waiting = Background(got, pq["a"], timeout=60)
        assert waiting.is_alive()
        pq["a"].put(1)
        assert waiting.result() == 1
    assert "polling" not in caplog.text


def test_a_lost_server_is_no_promise_that_nothing_was_committed(bouncer: str, proxy: Proxy, sql: Sql) -> None:
    with PQ(bouncer) as pq:
        proxy.on("commit", cut_after)
        with pytest.raises(CommitUnknown), pq["a"]:
            pq["a"].put(1)
        assert sql("select data from queue") == [(1,)]
        pq["a"].put(2)
        assert [got(pq["a"]), got(pq["a"])] == [1, 2]


def test_nothing_is_prepared(bounced: PQ, proxy: Proxy) -> None:
    for number in range(5):
        bounced["a"].put(number)
        bounced["a"].put_many([number, number])
        assert got(bounced["a"]) == number
        bounced["a"].done(bounced["a"].get_many(2, lease="1h"))
    assert len(bounced["a"]) == 0
    assert not [text for text in proxy.seen if "prepare " in text]
