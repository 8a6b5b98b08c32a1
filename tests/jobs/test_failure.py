"""How the errors of failed attempts are kept."""

from __future__ import annotations

import builtins
import json
import time
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import PATIENCE

from pq import PQ, Discard, LeaseLost, Retry, TaskTimeout
from pq._jobs.failure import MESSAGE, TRACEBACK, Failure
from pq._jobs.outcome import failed
from pq._text import describe


class Outer:
    class Inner(Exception):
        pass


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def deep(levels: int) -> None:
    if levels:
        deep_too(levels - 1)
    raise ValueError("at the bottom")


def deep_too(levels: int) -> None:  # two functions in turn: a traceback does not shorten these
    deep(levels)


@pytest.mark.parametrize(
    ("error", "type"),
    [
        (ValueError("x"), "ValueError"),
        (KeyboardInterrupt("x"), "KeyboardInterrupt"),
        (json.JSONDecodeError("x", "", 0), "json.decoder.JSONDecodeError"),
        (Outer.Inner("x"), f"{__name__}.Outer.Inner"),
        (LeaseLost("x"), "pq.errors.LeaseLost"),
    ],
    ids=repr,
)
def test_an_exception_is_kept_with_its_type_message_and_traceback(error: BaseException, type: str) -> None:
    failure = Failure.of(raised(error))
    assert (failure.type, failure.message) == (type, str(error))
    assert failure.traceback is not None
    assert failure.traceback.startswith("Traceback (most recent call last):")
    assert "in raised" in failure.traceback


def test_without_tracebacks_the_rest_is_kept() -> None:
    assert Failure.of(raised(ValueError("x")), keep_traceback=False) == ("ValueError", "x", None)


def test_an_exception_that_was_not_raised_has_no_traceback() -> None:
    assert Failure.of(ValueError("x")) == ("ValueError", "x", None)


def test_a_reason_in_words() -> None:
    assert Failure.of("no such customer") == ("Failure", "no such customer", None)


def test_an_exception_without_a_message() -> None:
    failure = Failure.of(Outer.Inner())
    assert failure.message == ""
    assert str(failure) == f"{__name__}.Outer.Inner"


def test_an_exception_whose_message_cannot_be_had() -> None:
    failure = Failure.of(raised(Mute()))
    assert failure.type == f"{__name__}.Mute"
    assert "could not be converted" in failure.message
    assert failure.traceback is not None


def test_a_hung_handlers_stack_is_the_traceback_of_its_timeout() -> None:
    error = TaskTimeout(timeout=timedelta(seconds=1))
    error.stack = "where it hangs"
    assert Failure.of(error).traceback == "where it hangs"


# -- exceptions of other people's


#: New in Python 3.11.
Group: Any = getattr(builtins, "ExceptionGroup", None)


class Stack(Exception):
    """As those of JavaScript's errors, in playwright for example."""

    stack: Any = "Error: net::ERR_ABORTED"


class AnyAttribute(Exception):
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")


class Exits(Exception):
    def __str__(self) -> str:
        raise SystemExit("from __str__")


class Text(str):
    def __len__(self) -> int:
        raise RuntimeError("len")

    def __getitem__(self, index: Any) -> Any:
        raise RuntimeError("getitem")


class OddText(Exception):
    def __str__(self) -> str:
        return Text("odd")


class Class(Exception):
    @property
    def __class__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("class")


class Pretender(Exception):
    """It says that it is another one."""

    __class__ = Retry  # type: ignore[assignment]


class Meta(type):
    @property
    def __module__(cls) -> Any:  # type: ignore[override]
        raise RuntimeError("module")


class OddMeta(Exception, metaclass=Meta):
    pass


class Properties(Exception):
    @property
    def __cause__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("cause")

    @property
    def __context__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("context")

    @property
    def __traceback__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("traceback")

    @property
    def __notes__(self) -> Any:
        raise RuntimeError("notes")


class NoModule(Exception):
    pass


NoModule.__module__ = None  # type: ignore[assignment]


class Notes(Exception):
    __notes__ = 5


def with_notes(*notes: Any) -> Exception:
    error = ValueError("x")
    error.__notes__ = list(notes)
    return error


def circle() -> Exception:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    return first


def chain(length: int) -> Exception:
    error = ValueError(0)
    for number in range(length):
        outer = ValueError(number)
        outer.__cause__ = error
        error = outer
    return error


def group(depth: int, width: int) -> BaseException:
    if Group is None:
        return ValueError("no groups")
    error: Exception = ValueError("inmost")
    for _ in range(depth):
        error = Group("group", [error] * width)
    return error


FOREIGN = {
    "stack": lambda: Stack("x"),
    "huge stack": lambda: type("HugeStack", (Exception,), {"stack": "x" * 5_000_000})("x"),
    "any attribute": lambda: AnyAttribute("x"),
    "exits": lambda: Exits(),
    "odd text": lambda: OddText(),
    "class": lambda: Class("x"),
    "pretender": lambda: Pretender("x"),
    "meta": lambda: OddMeta("x"),
    "properties": lambda: Properties("x"),
    "no module": lambda: NoModule("x"),
    "long name": lambda: type("x" * 5_000_000, (Exception,), {})("x"),
    "notes": lambda: Notes("x"),
    "odd notes": lambda: with_notes(5, None, Exits(), "y" * 5_000_000),
    "many notes": lambda: with_notes(*["note"] * 100_000),
    "circle": circle,
    "chain": lambda: chain(20_000),
    "deep group": lambda: group(5_000, 1),
    "wide group": lambda: group(1, 100_000),
    "5 MB": lambda: ValueError("x" * 5_000_000),
    "bytes": lambda: ValueError(b"\xff" * 5_000_000),
    "NUL": lambda: ValueError("a\0b"),
    "surrogate": lambda: ValueError("\ud800"),
    "syntax": lambda: SyntaxError("bad", ("file", 1, 5, b"bytes\n", 1, 9)),
    "odd syntax": lambda: SyntaxError("bad", ("file", "seven", "nine", "some text")),
    "unicode": lambda: UnicodeDecodeError("utf-8", b"\xff" * 10, 0, 1, "bad"),
    "exit": lambda: SystemExit(3),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_no_exception_is_too_odd_to_be_kept(name: str) -> None:
    began = time.monotonic()
    failure = Failure.of(raised(FOREIGN[name]()))
    assert time.monotonic() - began < PATIENCE
    assert len(failure.type) <= 200
    assert len(failure.message) <= MESSAGE
    assert failure.traceback is not None
    assert len(failure.traceback) <= TRACEBACK
    assert "in raised" in failure.traceback or len(failure.traceback) == TRACEBACK
    assert Failure.loads(failure.dumps()) == failure
    assert "\0" not in failure.dumps().encode().decode()
    assert describe(FOREIGN[name]()).isprintable()


REASONS = [b"\xff" * 5_000_000, 5, None, Text("odd"), Exits(), object(), "x" * 5_000_000]


@pytest.mark.parametrize("reason", REASONS, ids=type)
def test_no_reason_is_too_odd_to_be_kept(reason: Any) -> None:
    assert len(Failure.of(reason).message) <= MESSAGE


def test_causes_contexts_and_members_of_groups_are_shown() -> None:
    def fail() -> None:
        try:
            raise KeyError("first")
        except KeyError as error:
            raise ValueError("second") from error

    try:
        try:
            fail()
        except ValueError:
            raise TypeError("third")  # noqa: B904
    except TypeError as error:
        text = Failure.of(error).traceback
    assert text is not None
    order = ["KeyError: 'first'", "direct cause", "ValueError: second", "During handling", "TypeError: third"]
    assert sorted(order, key=text.index) == order
    if Group is not None:
        text = Failure.of(raised(Group("both", [KeyError("one"), ValueError("two")]))).traceback
        assert "  | KeyError: 'one'" in str(text)


class Poor(Retry):
    def __init__(self) -> None:
        pass


class OddRetry(Poor):
    in_ = property(lambda self: 1 / 0)  # type: ignore[assignment]


class OddDiscard(Discard):
    def __init__(self) -> None:
        pass

    reason = property(lambda self: 1 / 0)  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("make", "outcome"),
    [
        (lambda: Poor(), "retry"),
        (lambda: OddRetry(), "retry"),
        (lambda: OddDiscard(), "dead"),
        (lambda: Discard(b"bytes"), "dead"),  # type: ignore[arg-type]
        (lambda: Class("x"), "retry"),
        (lambda: Pretender("x"), "retry"),
        (lambda: Properties("x"), "retry"),
        (lambda: Exits(), "retry"),
    ],
)
def test_a_job_is_settled_after_any_exception(pq: PQ, make: Any, outcome: str) -> None:
    queue = pq["a"]
    id = queue.put(1)
    job: Any = queue.get(lease="1h")
    settlement = failed(job, make())
    job.settle(settlement)
    assert settlement.outcome == outcome
    assert queue[id].state == ("dead" if outcome == "dead" else "scheduled")
    queue.clear()
    queue.put(2)
    job = queue.get(lease="1h")
    with suppress(BaseException), job:
        raise make()
    assert job.settled is True


@pytest.mark.parametrize("extra", [-1, 0, 1, 10**6])
def test_a_message_is_cut_to_its_beginning(extra: int) -> None:
    text = "x" * (MESSAGE + extra)
    for error in (ValueError(text), text):
        message = Failure.of(error).message
        assert len(message) == min(len(text), MESSAGE)
        assert message == text or (extra > 0 and message == "x" * (MESSAGE - 3) + "...")


def test_a_traceback_is_cut_to_its_end() -> None:
    with pytest.raises(ValueError, match="bottom") as caught:
        deep(150)
    traceback = Failure.of(caught.value).traceback
    assert TRACEBACK == 8000
    assert traceback is not None
    assert len(traceback) == TRACEBACK
    assert traceback.endswith("ValueError: at the bottom\n")


@given(st.text(st.characters(), min_size=1), st.text(st.characters()), st.none() | st.text(st.characters()))
def test_it_comes_back_as_it_was_kept(type: str, message: str, traceback: str | None) -> None:
    """Also with what a text column can't hold as it is: NUL characters, lone surrogates."""
    failure = Failure(type, message, traceback)
    kept = failure.dumps()
    assert "\0" not in kept
    assert Failure.loads(kept.encode().decode()) == failure


@pytest.mark.parametrize(
    "text",
    ["", "by hand", "5", "null", "[]", "{}", '"x"', '{"type": "x"}', '{"message": "x"}', "[" * 900, "[" * 100_000, "{"],
    ids=lambda text: text[:20],
)
def test_a_text_that_somebody_else_has_written_is_the_message(text: str) -> None:
    assert Failure.loads(text) == ("Failure", text, None)


def test_a_failure_reads_like_an_exception() -> None:
    assert str(Failure("ValueError", "oh")) == "ValueError: oh"
