"""What users have set, on the server, in the environment, or on their connections: it holds, or an error says what
stands in the way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg2.extensions import make_dsn, parse_dsn
from support import Background, execute
from support.driver import driver
from support.kinds import WITH_PSYCOPG3, make_pq

from pq import PQ
from pq._db.drivers import dsn as dsns
from pq._queue import kept

Sql = Callable[..., list[tuple[Any, ...]]]


# -- isolation levels


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
@pytest.mark.parametrize("autocommit", [False, True])
def test_a_get_that_has_to_be_repeated_does_not_raise(dsn: str, connect: Any, level: str, autocommit: bool) -> None:
    """Four threads want the same jobs. Above READ COMMITTED, whoever comes second fails, and has to look anew."""
    conns = [connect() for _ in range(4)]
    for conn in conns:
        driver.set_session(conn, isolation_level=level, autocommit=autocommit)
    with PQ(dsn) as pq:
        pq["a"].put_many(range(200))
    got: list[int] = []

    def work(conn: Any) -> None:
        queue = PQ(conn)["a"]
        while (job := queue.get(timeout=0)) is not None:
            got.append(job.data)
            queue.put_many([1, 2]) if job.data % 50 == 0 and job.data else None

    for thread in [Background(work, conn) for conn in conns]:
        thread.result()
    assert len(got) >= 200


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_nothing_is_asked_in_the_transaction_of_a_repetition(connect: Any, sql: Sql, level: str) -> None:
    """Its isolation level can only be set before any query."""
    sql(
        """
        create sequence failures;
        create function fail() returns trigger language plpgsql as $$
          begin
            if nextval('failures') = 1 then raise sqlstate '40001'; end if;
            return new;
          end $$;
        create trigger fail before update on queue for each row execute function fail()
        """
    )
    conn = connect()
    driver.set_session(conn, isolation_level=level)
    queue = PQ(conn)["a"]
    queue.put(1)
    assert queue.get(timeout=0).data == 1
    assert sql("select last_value from failures") == [(2,)]


# -- what the environment says


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def write(**settings: Any) -> None:
        own = [f"{name}={value}" for name, value in settings.items()]
        lines = ["[elsewhere]", "connect_timeout=99", "[mine]", *own]
        path = tmp_path / "services.conf"
        path.write_text("\n".join(lines) + "\n")
        monkeypatch.setenv("PGSERVICEFILE", str(path))

    return write


def parameters_of(dsn: str) -> dict[str, str]:
    with PQ(dsn) as pq, pq["a"] as cursor:
        return driver.parameters(cursor.connection)


def test_the_environment_wins_over_what_pq_sets(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert parameters_of(dsn)["connect_timeout"] == "5"
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "77")
    monkeypatch.setenv("PGAPPNAME", "mine")
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    parameters = parameters_of(dsn)
    assert (parameters["connect_timeout"], parameters["client_encoding"]) == ("77", "LATIN1")
    assert parameters["application_name"] == "mine"
    assert parameters["tcp_user_timeout"] == "5000"
    with PQ(dsn) as pq:
        pq["ä"].put("ä")
        assert pq["ä"].get().data == "ä"


@pytest.mark.parametrize("where", ["dsn", "environment"])
def test_a_service_file_wins_over_what_pq_sets(
    dsn: str, service: Callable[..., None], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    service(**parse_dsn(dsn), connect_timeout=77, keepalives_idle=78)
    if where == "environment":
        monkeypatch.setenv("PGSERVICE", "mine")
    parameters = parameters_of("service=mine" if where == "dsn" else "")
    assert parameters["connect_timeout"] == "77"
    assert parameters["keepalives_idle"] == "78"
    assert parameters["tcp_user_timeout"] == "5000"


def test_where_the_service_is_not_found_pq_sets_nothing(tmp_path: Path) -> None:
    """libpq may know of another file."""
    environ = {"PGSERVICEFILE": str(tmp_path / "none"), "PGSYSCONFDIR": str(tmp_path)}
    assert dsns.defaults({"service": "x"}, environ) == {"fallback_application_name": "pq"}
    (tmp_path / "pg_service.conf").write_text("# of the system\n[x]\nhost=y\nconnect_timeout=1\n")
    assert dsns.defaults({"service": "x"}, environ).keys() == dsns.CONNECT.keys() - {"connect_timeout"}


# -- DSNs


@pytest.mark.parametrize("option", ["conn", "listen_dsn"])
def test_an_unknown_parameter_of_a_dsn_is_named(option: str) -> None:
    url = "postgresql://me:s3cr3t@host/db?pgbouncer=true&connect_timeout=3&sslaccept=s3cr3t"
    with pytest.raises(ValueError, match="does not know these parameters of the DSN: pgbouncer, sslaccept") as caught:
        PQ(**{"conn": "", option: url})
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize("url", ["postgresql://me:?s3cr3t@host/db?x=1"])
def test_what_may_be_part_of_a_password_is_not_named(url: str) -> None:
    with pytest.raises(ValueError, match="DSN") as caught:
        PQ(url)
    assert "s3cr3t" not in str(caught.value)


# -- settings of the server


def everything(pq: PQ, table: bool = True) -> None:
    """A bit of all that pq executes."""
    if table:
        pq.create()
    queue = pq["ä'\\\"%"]
    queue.put({"ä": "ö"})
    assert queue.get(timeout=0).data == {"ä": "ö"}
    with pytest.raises(ZeroDivisionError), queue:
        queue.put(1)
        1 / 0  # noqa: B018
    ids = queue.put_many(["ü", 2], schedule_at="1h")
    assert len(queue) == 0
    assert queue.reschedule(ids[0], schedule_at="0s") and queue.reschedule(ids[1], schedule_at="0s")
    jobs = queue.get_many(2, timeout=0, lease="1h")
    assert sorted(job.data == "ü" for job in jobs) == [False, True]
    queue.settle([(jobs[0], None), (jobs[1], RuntimeError("ä NULL"))])
    assert queue.load(["x"]) == 1
    (held,) = queue.get_many(1, timeout=0, lease="1h")
    held.done("NULL")
    assert queue.result(held.id) == "NULL"
    assert [job.error.message for job in queue.dead] == ["ä NULL"] or len(queue.dead) == 0
    assert list(pq) or True
    pq.queues()
    pq.doctor()
    waiting = Background(queue.get, timeout=30)
    pq[queue.name].put("woken")
    assert waiting.result().data == "woken"


SETTINGS = [
    "array_nulls=off",
    "quote_all_identifiers=on",
    "standard_conforming_strings=off",
    "bytea_output=escape",
    "DateStyle=SQL,DMY",
    "IntervalStyle=sql_standard",
    "extra_float_digits=0",
    "default_transaction_isolation=serializable",
    "xmloption=document",
    "TimeZone=Asia/Kolkata",
]


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("kind", ["dsn", "pool", "connection"])
def test_a_setting_changes_nothing(empty_dsn: str, setting: str, kind: str) -> None:
    with make_pq(kind, make_dsn(empty_dsn, options=f"-c {setting}")) as pq:
        everything(pq)
        rows = execute(empty_dsn, "select error, result::text, schedule_at from queue where error = 'NULL'")
        assert rows == []


@pytest.fixture
def sql_ascii(server: str) -> Iterator[str]:
    name = "pq_sql_ascii"
    execute(server, f"drop database if exists {name}")
    execute(server, f"create database {name} encoding 'SQL_ASCII' template template0 locale 'C'")
    yield make_dsn(server, dbname=name)
    execute(server, f"drop database {name} with (force)")


@pytest.mark.parametrize("kind", [*WITH_PSYCOPG3, "psycopg 3 of SQL_ASCII"])
def test_a_database_without_an_encoding(sql_ascii: str, kind: str) -> None:
    with make_pq(kind.partition(" of ")[0] + (" connection" if " of " in kind else ""), sql_ascii) as pq:
        everything(pq)
        pq.create(retain="1d")  # the table is there
        assert pq.version() > 0


# -- what is kept


def test_queues_of_many_names_are_forgotten(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MAX_KEPT", 10)
    with PQ(dsn) as pq:
        mine, threads = pq["mine"], []
        pq["set"].timeout = 7
        for number in range(100):
            assert pq[f"{number}"] is pq[f"{number}"]
        assert pq["mine"] is mine
        assert pq["set"].timeout == 7
        assert len(pq._queues.all()) <= 12

        def ask() -> None:
            found.append(pq["same"])

        found: list[Any] = []
        for _ in range(8):
            threads.append(threading.Thread(target=ask))
            threads[-1].start()
        for thread in threads:
            thread.join()
        assert len({id(queue) for queue in found}) == 1


def test_an_interrupt_while_a_queue_is_made_does_no_harm(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(queue: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(kept, "MAX_KEPT", 3)
    with PQ(dsn) as pq:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(kept, "_attributes", interrupt)
            _ = pq["interrupted"]
        assert [pq[name].name for name in "abcdefgh"] == list("abcdefgh")


def test_queues_with_tasks_are_not_forgotten(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from pq.tasks import PQ as TasksPQ

    monkeypatch.setattr(kept, "MAX_KEPT", 10)
    with TasksPQ(dsn) as pq:
        pq["tasks"].task(name="kept")(lambda job_id: None)
        for number in range(100):
            pq[f"{number}"]
        assert pq["tasks"]._has_tasks


def test_prepared_statements_are_bounded(dsn: str) -> None:
    count = "select count(*) from pg_prepared_statements"
    conn = driver.connect(dsn, autocommit=True)
    for number in range(15):
        pq = PQ(conn, schema=f"s{number}")
        pq.create()
        for _ in range(3):
            pq["a"].put(1)
            pq["a"].put_many([1])
            pq["a"].get(timeout=0)
            pq["a"].get(timeout=0, lease="1h").done()
    cursor = conn.cursor()
    cursor.execute(count)
    assert 0 < cursor.fetchone()[0] <= 30
    conn.close()
