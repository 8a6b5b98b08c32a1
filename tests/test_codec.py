"""Job data as text: JSON, pickles, signed pickles."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pq import _codec
from pq._codec import SignedPickle

# with lone surrogates and NUL characters
texts = st.text(st.characters(codec=None), max_size=10)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
documents = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=12
)


@given(documents)
def test_json_comes_back_in_value_and_order(data: Any) -> None:
    back = _codec.decode(_codec.encode(data))
    assert json.dumps(back) == json.dumps(data)  # also tells 1 from True and 1.0, and shows the order of keys
    assert back == data


@given(documents)
def test_encoded_json_is_ascii_without_nul(data: Any) -> None:
    """So that it fits a database of any encoding, and PostgreSQL, which takes no NUL."""
    text = _codec.encode(data)
    assert text.isascii()
    assert "\0" not in text


@given(documents | st.binary(max_size=10) | st.datetimes() | st.tuples(scalars, scalars))
def test_a_pickle_comes_back(data: Any) -> None:
    text = json.loads(json.dumps(_codec.dump_pickle(data)))  # as it is stored
    assert _codec.load_pickle(text) == data


def test_a_pickle_is_as_1_9_1_made_it() -> None:
    data = {"text": "…æøå!", "n": 1}
    assert _codec.dump_pickle(data) == pickle.dumps(data, 0).decode("latin-1")


# -- signed

DATA = {"text": "…æøå!", "lone": "\ud800", "nul": "\0"}


@given(documents)
def test_a_signed_pickle_comes_back(data: Any) -> None:
    signed = SignedPickle("mail", b"key")
    text = json.loads(json.dumps(signed.dumps(data)))
    assert signed.loads(text) == data


def test_a_signed_pickle_is_still_a_pickle() -> None:
    """1.9.1, and a PQ without a key, read it."""
    assert _codec.load_pickle(SignedPickle("mail", b"key").dumps(DATA)) == DATA


class Bomb:
    """Its pickle runs code when it is loaded."""

    exploded = False

    def __reduce__(self) -> Any:
        return explode, ()


def explode() -> None:
    Bomb.exploded = True


@pytest.fixture
def bomb() -> Bomb:
    Bomb.exploded = False
    return Bomb()


@pytest.mark.parametrize(
    ("signer", "complaint"),
    [
        (None, "not signed"),
        (SignedPickle("mail", b"another key"), "does not match"),
        (SignedPickle("another queue", b"key"), "does not match"),
    ],
)
def test_what_is_not_signed_right_is_not_loaded(bomb: Bomb, signer: SignedPickle | None, complaint: str) -> None:
    text = (signer.dumps if signer else _codec.dump_pickle)(bomb)
    with pytest.raises(ValueError, match=complaint):
        SignedPickle("mail", b"key").loads(text)
    assert not Bomb.exploded
    SignedPickle("mail", b"key").loads(SignedPickle("mail", b"key").dumps(bomb))
    assert Bomb.exploded  # it does go off when it is loaded


def test_no_character_can_be_changed() -> None:
    signed = SignedPickle("mail", b"key")
    text = signed.dumps([1, "two"])
    for i in range(len(text)):
        for changed in (text[:i] + chr(ord(text[i]) ^ 1) + text[i + 1 :], text[:i] + text[i + 1 :]):
            with pytest.raises(ValueError, match=r"not signed|does not match"):
                signed.loads(changed)


def test_payload_and_queue_name_can_not_be_shifted_into_each_other() -> None:
    """ "ab" with the payload "c…" is not "a" with "bc…"."""
    ab, a = SignedPickle("ab", b"key"), SignedPickle("a", b"key")
    assert ab._sign(b"key", "c") != a._sign(b"key", "bc")


@pytest.mark.parametrize("text", [None, 5, "", {"a": 1}, "\ud800" * 100, "é" * 100])
def test_what_is_no_pickle_at_all_is_a_value_error(text: Any) -> None:
    with pytest.raises(ValueError, match=r"not a pickle|not signed"):
        SignedPickle("mail", b"key").loads(text)


def test_a_signature_of_odd_characters_does_not_match() -> None:
    text = SignedPickle("mail", b"key").dumps(1)
    with pytest.raises(ValueError, match="does not match"):
        SignedPickle("mail", b"key").loads(text[:-64] + "é" * 64)


def test_keys_can_be_rotated() -> None:
    old, both, new = (SignedPickle("mail", keys) for keys in (b"old", [b"new", b"old"], b"new"))
    assert both.loads(old.dumps(1)) == 1
    assert new.loads(both.dumps(2)) == 2  # the first one signs
    with pytest.raises(ValueError, match="does not match"):
        old.loads(both.dumps(3))
    with pytest.raises(ValueError, match="does not match"):
        new.loads(old.dumps(4))


TEXTS = ["1", " 1", "1\n", "\t[1, 2]\r\n", "\"a\"", "NaN", "", "1 2", "x", " ", "[1", "\ufeff1"]


@pytest.mark.parametrize("text", TEXTS)
def test_decode_takes_and_refuses_what_json_does(text: str) -> None:
    def outcome(decode: Callable[[str], Any]) -> str:
        try:
            return repr(decode(text))
        except ValueError as error:
            return f"{type(error).__name__} {error}"

    assert outcome(_codec.decode) == outcome(json.JSONDecoder().decode)
