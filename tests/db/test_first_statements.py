"""Blocks that begin with their first statement, in one message."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from support.driver import NAME
from support.kinds import WITH_PSYCOPG3, make_pq
from support.proxy import Proxy

from pq import PQ
from pq._db import execute as _execute
from pq._db import prepared as _prepared
from pq._queue import claim as _claim
from pq._queue import marks as _marks

Sql = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture(autouse=True)
def _no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing takes too long for what follows, however busy the machine is."""
    for module, name in ((_execute, "HOT"), (_prepared, "LIFE"), (_marks, "FORGET"), (_marks, "SLOW_SECONDS")):
        monkeypatch.setattr(module, name, 1e9)
    monkeypatch.setattr("pq._table.table.HEAL_PAUSE", 1e9)
    monkeypatch.setattr(_claim, "HITS", 0)


@pytest.fixture
def proxy(dsn: str) -> Iterator[Proxy]:
    with Proxy(dsn) as made:
        yield made


def words(proxy: Proxy) -> list[str]:
    """The first words of the statements of each message."""
    return [" ".join(part.split()[0].lower() for part in text.split("; ")) for text in proxy.seen]


def take(pq: PQ) -> Any:
    with pq["a"]:
        return pq["a"].get(timeout=0).data  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["dsn", "connection"])
def test_it_costs_the_statement_and_the_commit(proxy: Proxy, kind: str) -> None:
    with make_pq(kind, proxy.dsn) as pq:
        pq["a"].put_many(range(10))
        assert [take(pq) for _ in range(4)] == [0, 1, 2, 3]
        proxy.seen.clear()
        assert take(pq) == 4
        one_message = kind == "dsn" or NAME == "psycopg"  # which pq begins transactions for
        assert words(proxy) == (["begin execute", "commit"] if one_message else ["begin", "execute", "commit"])
        proxy.seen.clear()
        with pq["a"]:
            pass
        assert words(proxy) == []


class Undone(Exception):
    pass


@pytest.mark.parametrize("kind", WITH_PSYCOPG3)
def test_the_application_may_be_first(dsn: str, sql: Sql, kind: str) -> None:
    sql("create table done (n int)")
    with make_pq(kind, dsn) as pq:
        pq["a"].put_many(range(10))
        for n in range(6):
            with suppress(Undone), pq["a"] as cursor:
                cursor.execute("insert into done values (%s)", (n,))
                assert pq["a"].get(timeout=0)
                if n % 3 == 0:
                    raise Undone
        assert sql("select n from done order by n") == [(1,), (2,), (4,), (5,)]
        assert len(pq["a"]) == 6


@pytest.mark.parametrize("first", ["pq", "application"])
def test_what_is_set_for_statements_of_pq_is_not_for_those_of_the_application(
    dsn: str, sql: Sql, first: str
) -> None:
    names = ("statement_timeout", "plan_cache_mode", "enable_seqscan", "jit")

    def settings(cursor: Any) -> list[Any]:
        found = []
        for name in names:
            cursor.execute(f"show {name}")
            found.append(cursor.fetchone()[0])
        return found

    usual = [sql(f"show {name}")[0][0] for name in names]
    with make_pq("dsn", dsn) as pq:
        pq["a"].put_many(range(20))
        limit = pq._db.execute("show statement_timeout")
        for _ in range(4):
            with pq["a"] as cursor:
                if first == "pq":
                    assert pq["a"].get(timeout=0)
                assert settings(cursor) == usual
            assert pq._db.execute("show statement_timeout") == limit


def test_statements_are_limited_after_an_interrupt_that_came_when_the_limit_had_just_been_lifted(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make_pq("dsn", dsn) as pq:
        limit = pq._db.execute("show statement_timeout")
        adapter = type(pq._db.source.driver)
        run = adapter.run

        def interrupted(self: Any, conn: Any, sql: str, *args: Any) -> Any:
            run(self, conn, sql, *args)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(adapter, "run", interrupted)
            with pytest.raises(KeyboardInterrupt), pq["a"]:
                pass
        assert pq._db.execute("show statement_timeout") == limit


def test_statements_that_the_application_has_discarded_are_no_loss(dsn: str) -> None:
    with make_pq("dsn", dsn) as pq:
        pq["a"].put_many(range(10))
        for n in range(5):
            assert take(pq) == n
        with pq["a"] as cursor:
            cursor.execute("deallocate all")
        assert take(pq) == 5
        assert take(pq) == 6
