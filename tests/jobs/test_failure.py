"""How the errors of failed attempts are kept."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pq import LeaseLost
from pq._jobs.failure import MESSAGE, TRACEBACK, Failure


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
    assert "can't be had" in failure.message
    assert failure.traceback is not None


def test_a_stack_that_comes_with_the_error_is_its_traceback() -> None:
    error = ValueError("x")
    error.stack = "where it hangs"  # type: ignore[attr-defined]
    assert Failure.of(error).traceback == "where it hangs"


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
