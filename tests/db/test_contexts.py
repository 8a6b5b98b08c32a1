"""In whose transaction: blocks belong to the thread or coroutine that entered them, and to its context."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import psycopg2
import pytest
from support import Background
from support.kinds import make_pq

from pq import PQ, BlockError

Sql = Callable[..., list[tuple[Any, ...]]]

KINDS = ["dsn", "connection", "pool"]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def data(pq: PQ, queue: str = "a") -> list[Any]:
    return [job.data for job in pq[queue].get_many(99, block=False)]


def in_copy(function: Callable[[], Any]) -> Any:
    """In this thread, in a copy of the context, which is thrown away."""
    return contextvars.copy_context().run(function)


def in_thread(function: Callable[[], Any]) -> Any:
    """In another thread, in a copy of the context, as `asyncio.to_thread` does it."""
    return Background(contextvars.copy_context().run, function).result()


# -- coroutines of one thread


def test_a_coroutine_is_not_part_of_another_ones_block(pq: PQ) -> None:
    async def first() -> None:
        with pytest.raises(ZeroDivisionError), pq["a"]:
            pq["a"].put("first")
            await asyncio.sleep(0.05)
            raise ZeroDivisionError

    async def second() -> None:
        await asyncio.sleep(0.01)
        pq["a"].put("second")
        with pq["b"]:
            pq["a"].put("second, in a block")
            await asyncio.sleep(0.05)

    async def main() -> None:
        await asyncio.gather(first(), second())

    asyncio.run(main())
    assert data(pq) == ["second", "second, in a block"]


def test_a_coroutine_is_not_part_of_what_another_one_is_using(dsn: str, pq: PQ) -> None:
    async def first(conn: Any) -> None:
        with pq.using(conn):
            pq["a"].put("first")
            await asyncio.sleep(0.05)

    async def second() -> None:
        await asyncio.sleep(0.01)
        pq["a"].put("second")

    async def main(conn: Any) -> None:
        await asyncio.gather(first(conn), second())

    with closing(psycopg2.connect(dsn)) as conn:
        asyncio.run(main(conn))
        conn.rollback()
    assert data(pq) == ["second"]


def test_coroutines_that_share_the_only_connection_are_told_so(dsn: str) -> None:
    """To wait for it would stop the event loop for ever."""

    async def first(pq: PQ) -> None:
        with pq["a"]:
            pq["a"].put("first")
            await asyncio.sleep(0.05)

    async def second(pq: PQ) -> None:
        await asyncio.sleep(0.01)
        with pytest.raises(BlockError, match="another coroutine of this thread"):
            pq["a"].put("second")
        await asyncio.sleep(0.1)
        pq["a"].put("later")

    async def main(pq: PQ) -> None:
        await asyncio.gather(first(pq), second(pq))

    with make_pq("connection", dsn) as pq:
        asyncio.run(main(pq))
        assert data(pq) == ["first", "later"]


def test_coroutines_that_have_all_connections_are_told_so(dsn: str) -> None:
    """To wait for one would stop the event loop for ever."""

    async def one(pq: PQ, number: int) -> None:
        with pq["a"]:
            pq["a"].put(number)
            await asyncio.sleep(0.1)

    async def main(pq: PQ) -> None:
        blocks = [asyncio.create_task(one(pq, number)) for number in range(2)]
        await asyncio.sleep(0.05)
        with pytest.raises(BlockError, match="max_connections"):
            pq["a"].put("third")
        with pytest.raises(BlockError, match="max_connections"), pq["a"]:
            raise AssertionError("entered")
        await asyncio.gather(*blocks)
        pq["a"].put("later")

    with make_pq("dsn", dsn, max_connections=2) as pq:
        asyncio.run(main(pq))
        assert data(pq) == [0, 1, "later"]


def test_a_task_that_inherits_a_block_must_not_use_it(dsn: str, kind: str) -> None:
    async def child(pq: PQ) -> None:
        with pytest.raises(BlockError, match=r"another coroutine.*bind"):
            pq["a"].put("child")
        with pytest.raises(BlockError), pq["b"]:
            raise AssertionError("entered")

    async def main(pq: PQ) -> None:
        with pq["a"]:
            pq["a"].put("parent")
            await asyncio.create_task(child(pq))
            pq["a"].put("parent, later")
        await asyncio.create_task(free(pq))

    async def free(pq: PQ) -> None:
        pq["a"].put("after the block")

    with make_pq(kind, dsn) as pq:
        asyncio.run(main(pq))
        assert data(pq) == ["parent", "parent, later", "after the block"]


def test_a_callback_that_inherits_a_block_must_not_use_it(pq: PQ) -> None:
    raised: list[BaseException] = []

    def callback() -> None:
        try:
            pq["a"].put("callback")
        except BlockError as error:
            raised.append(error)

    async def main() -> None:
        with pq["a"]:
            asyncio.get_running_loop().call_soon(callback)
            await asyncio.sleep(0.01)

    asyncio.run(main())
    assert raised
    assert data(pq) == []


def test_asyncio_run_in_a_block_is_part_of_it(dsn: str, kind: str) -> None:
    async def one(pq: PQ, number: int) -> None:
        pq["a"].put(number)
        await asyncio.sleep(0.01)
        with pq["a"]:
            pq["a"].put(number)

    async def main(pq: PQ) -> None:
        await asyncio.gather(*(one(pq, number) for number in range(3)))

    with make_pq(kind, dsn) as pq:
        with pytest.raises(ZeroDivisionError), pq["a"]:
            asyncio.run(main(pq))
            raise ZeroDivisionError
        assert data(pq) == []
        with pq["a"]:
            asyncio.run(main(pq))
        assert sorted(data(pq)) == [0, 0, 1, 1, 2, 2]


def test_a_coroutine_must_not_use_a_transaction_while_another_one_has_a_savepoint_in_it(pq: PQ) -> None:
    async def first() -> None:
        with pq["a"]:
            await asyncio.sleep(0.05)

    async def second() -> None:
        await asyncio.sleep(0.01)
        with pytest.raises(BlockError, match="inside of the one that is used here"):
            pq["a"].put("would be part of the savepoint")

    async def main() -> None:
        await asyncio.gather(first(), second())

    with pq["a"]:
        asyncio.run(main())


# -- threads


def test_a_thread_with_a_copy_of_the_context_must_not_use_the_block(dsn: str, kind: str) -> None:
    with make_pq(kind, dsn) as pq:
        with pq["a"]:
            pq["a"].put(1)
            with pytest.raises(BlockError, match=r"another thread.*bind"):
                in_thread(lambda: pq["a"].put(2))
        with closing(psycopg2.connect(dsn)) as conn, pq.using(conn):
            with pytest.raises(BlockError, match="another thread"):
                in_thread(lambda: pq["a"].put(3))
            pq["a"].put(4)
            conn.commit()
        assert data(pq) == [1, 4]


def test_to_thread_in_a_block_is_told_and_bind_works(pq: PQ) -> None:
    async def main() -> None:
        with pq["a"] as cursor:
            with pytest.raises(BlockError):
                await asyncio.to_thread(pq["a"].put, "lost")
            await asyncio.to_thread(pq.bind(cursor)["a"].put, "bound")
        await asyncio.to_thread(pq["a"].put, "by itself")

    asyncio.run(main())
    assert data(pq) == ["bound", "by itself"]


def test_a_new_thread_inherits_nothing(pq: PQ) -> None:
    with pytest.raises(ZeroDivisionError), pq["a"]:
        Background(pq["a"].put, "thread").result()
        raise ZeroDivisionError
    assert data(pq) == ["thread"]


def test_a_thread_with_the_ident_of_one_that_has_ended_inherits_nothing(pq: PQ) -> None:
    idents: list[int] = []
    generators = []

    def block() -> Iterator[None]:
        with pq["a"]:
            pq["a"].put("abandoned")
            yield

    def enter() -> None:
        idents.append(threading.get_ident())
        generators.append(block())
        next(generators[0])

    def put() -> None:
        idents.append(threading.get_ident())
        pq["a"].put("later thread")

    Background(enter).result()
    for _ in range(20):
        Background(put).result()
        if idents[-1] == idents[0]:
            break
    generators[0].close()
    assert set(data(pq)) == {"later thread"}


# -- blocks that are left elsewhere


def test_a_block_left_in_another_context_is_rolled_back_and_told(dsn: str, sql: Sql, kind: str) -> None:
    with make_pq(kind, dsn) as pq:
        sql("create table effect (n int)")

        def dependency() -> Iterator[Any]:
            with pq["a"] as cursor:
                cursor.execute("insert into effect values (1)")
                yield cursor

        generator = dependency()
        cursor = in_copy(lambda: next(generator))
        cursor.execute("insert into effect values (2)")
        with pytest.raises(BlockError, match=r"another context.*bind"):
            in_copy(lambda: next(generator, None))
        assert sql("select * from effect") == []
        pq["a"].put("goes on")
        assert data(pq) == ["goes on"]


@pytest.mark.parametrize("kind", ["connection", "autocommit connection"])
def test_code_that_does_not_see_the_block_on_the_only_connection_is_told_so(dsn: str, kind: str) -> None:
    with make_pq(kind, dsn) as pq:
        queue = pq["a"]
        with pytest.raises(ZeroDivisionError), queue:
            queue.put("in the block")
            for call in (lambda: queue.put("not in it"), lambda: queue.get(timeout=0), queue.__enter__):
                with pytest.raises(BlockError, match="bind"):
                    contextvars.Context().run(call)
            raise ZeroDivisionError
        assert data(pq) == []
        contextvars.Context().run(queue.put, "after it")
        assert Background(data, pq).result() == ["after it"]


@pytest.mark.parametrize("many", [1, 3])
def test_a_block_left_in_another_thread_is_rolled_back_and_told(dsn: str, many: int) -> None:
    with make_pq("dsn", dsn) as pq:

        def block(number: int) -> Iterator[None]:
            with pq["a"]:
                pq["a"].put(number)
                yield

        generators = [block(number) for number in range(many)]
        for generator in generators:
            Background(next, generator).result()
        for generator in generators:
            with pytest.raises(BlockError, match="another thread"):
                next(generator, None)
        assert data(pq) == []


def test_a_block_of_using_left_in_another_context_is_told(dsn: str, pq: PQ) -> None:
    with closing(psycopg2.connect(dsn)) as conn:

        def dependency() -> Iterator[None]:
            with conn, pq.using(conn):
                conn.cursor().execute("create table effect ()")
                yield

        generator = dependency()
        in_copy(lambda: next(generator))
        with pytest.raises(BlockError, match=r"another context.*bind"):
            in_copy(lambda: next(generator, None))
        assert pq["a"].count() == 0
        with conn.cursor() as cursor:
            cursor.execute("select to_regclass('effect')")
            assert cursor.fetchall() == [(None,)]


def test_the_error_with_which_a_block_is_left_elsewhere_goes_on(pq: PQ, caplog: pytest.LogCaptureFixture) -> None:
    def dependency() -> Iterator[None]:
        with pq["a"]:
            pq["a"].put(1)
            yield

    generator = dependency()
    in_copy(lambda: next(generator))
    with pytest.raises(ZeroDivisionError):
        in_copy(lambda: generator.throw(ZeroDivisionError()))
    assert "another context" in caplog.text
    assert data(pq) == []


def test_a_block_left_before_the_one_inside_of_it_is_rolled_back_and_told(dsn: str, kind: str) -> None:
    with make_pq(kind, dsn) as pq:
        outer, inner = pq["a"], pq["b"]
        outer.__enter__()
        inner.__enter__()
        pq["a"].put(1)
        with pytest.raises(BlockError, match="before another one"):
            outer.__exit__(None, None, None)
        with pytest.raises(BlockError):
            inner.__exit__(None, None, None)
        pq["a"].put(2)
        assert data(pq) == [2]


@pytest.mark.parametrize("fails", [False, True])
def test_blocks_of_one_queue_in_generators_do_not_change_places(dsn: str, kind: str, fails: bool) -> None:
    with make_pq(kind, dsn) as pq:

        def block(number: int) -> Iterator[None]:
            with pq["a"]:
                pq["a"].put(number)
                yield
                if fails:
                    raise ZeroDivisionError

        first, second = block(1), block(2)
        next(first)
        next(second)
        with pytest.raises(ZeroDivisionError if fails else BlockError):
            next(first)
        with pytest.raises(ZeroDivisionError if fails else BlockError):
            next(second)
        pq["a"].put("after it")
        assert data(pq) == ["after it"]


def test_savepoints_left_in_the_wrong_order_are_rolled_back_and_told(pq: PQ) -> None:
    with pytest.raises(BlockError, match="before another one"), pq["a"]:
        pq["a"].put(1)
        outer, inner = pq["b"], pq["c"]
        outer.__enter__()
        inner.__enter__()
        pq["a"].put(2)
        with pytest.raises(BlockError, match="before another one"):
            outer.__exit__(None, None, None)
        with pytest.raises(BlockError):
            inner.__exit__(None, None, None)
    assert data(pq) == []


def test_blocks_of_one_queue_nest_in_an_exit_stack(pq: PQ) -> None:
    with ExitStack() as stack:
        for number in range(3):
            stack.enter_context(pq["a"])
            pq["a"].put(number)
    assert data(pq) == [0, 1, 2]


@pytest.mark.parametrize("taken", [True, False])
def test_a_loop_over_items_closed_by_another_thread_is_told(dsn: str, kind: str, taken: bool) -> None:
    with make_pq(kind, dsn) as pq:
        if taken:
            pq["a"].put(1)
        items = pq["a"].items(timeout=0)
        job = next(items)
        assert (job is not None) is taken
        closed = Background(items.close)  # type: ignore[attr-defined]
        if taken:
            with pytest.raises(BlockError, match="another thread"):
                closed.result()
        else:
            closed.result()
        Background(pq["b"].put, 2).result()
        assert data(pq) == ([1] if taken else [])
        assert data(pq, "b") == [2]


def test_an_item_left_in_another_context_is_as_it_was(pq: PQ) -> None:
    pq["a"].put(1)

    def handling() -> Iterator[None]:
        with pq["a"].item() as job:
            assert job is not None
            pq["b"].put(2)
            yield

    generator = handling()
    in_copy(lambda: next(generator))
    with pytest.raises(BlockError):
        in_copy(lambda: next(generator, None))
    assert data(pq, "b") == []
    assert data(pq) == [1]


def test_what_a_block_leaves_is_collected(pq: PQ) -> None:
    """A context that lives on holds no connection of a block that is over."""
    source = pq._db.source
    with pq["a"]:
        pq["a"].put(1)
        copied = contextvars.copy_context()
    gc.collect()
    copied.run(pq["a"].put, 2)
    assert source.transaction is None
    assert copied.run(lambda: source.transaction) is None


# -- exceptions that can't be changed


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    number: int


class Slotted(Exception):
    __slots__ = ()

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"can't set {name}")


@pytest.mark.parametrize("error", [Frozen(1), Slotted()], ids=["frozen", "slots"])
@pytest.mark.parametrize("how", ["queue", "inner", "item", "items", "job", "using", "savepoint", "bind", "grouped"])
def test_an_exception_that_cannot_be_changed_comes_out_as_itself(
    dsn: str, pq: PQ, how: str, error: Exception
) -> None:
    pq["a"].put(1)
    with closing(psycopg2.connect(dsn)) as conn:

        def act() -> None:
            if how == "queue":
                with pq["a"]:
                    raise error
            elif how == "inner":
                with pq["a"], pq["b"]:
                    raise error
            elif how == "item":
                with pq["a"].item():
                    raise error
            elif how == "items":
                for item in pq["a"].items():
                    assert item is not None
                    with item:
                        raise error
            elif how == "job":
                job: Any = pq["a"].get(lease="1m")
                with job:
                    raise error
            elif how in ("using", "savepoint"):
                with pq.using(conn, savepoint=how == "savepoint"):
                    raise error
            elif how == "bind":
                with pq.bind(conn)["a"]:
                    raise error
            else:
                pq["a"].put_many(broken())

        def broken() -> Iterator[int]:
            yield from range(1500)
            raise error

        with pytest.raises(type(error)) as raised:
            act()
        assert raised.value is error
