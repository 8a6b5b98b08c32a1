"""Job data as text for the `json` column: JSON, and pickles wrapped in a JSON string. Pure."""

from __future__ import annotations

import hashlib
import hmac
import json
import pickle
import reprlib
from collections.abc import Callable, Sequence
from typing import Any

Convert = Callable[[Any], Any]

#: Stands between a pickle and its signature. It comes after the pickle's STOP opcode, where `pickle.loads` no
#: longer looks: a signed job can still be read by pq 1.9.1 and by a PQ without a key.
_MARK = "\npq-hmac-sha256:"
_DIGEST_LENGTH = hashlib.sha256().digest_size * 2


_dumps = json.JSONEncoder(allow_nan=False).encode


def encode(data: Any) -> str:
    """`json.dumps`, but NaN and Infinity are refused: PostgreSQL would not take them.

    :raises ValueError: NaN or Infinity anywhere in the data.
    :raises TypeError: what `json.dumps` refuses.
    """
    try:
        return _dumps(data)
    except ValueError as error:
        if "compliant" in str(error) and (found := _constants(data)):
            raise ValueError(f"{found[0]} is not JSON compliant") from error  # before Python 3.12 it is not named
        raise


def _constants(data: Any) -> list[str]:
    """The NaN, Infinity and -Infinity among the values, as JavaScript would write them."""
    found: list[str] = []
    json.loads(json.dumps(data), parse_constant=found.append)
    return found


_loads = json.JSONDecoder().decode


def decode(text: str) -> Any:
    """`json.loads`."""
    return _loads(text)


def check_str(data: Any) -> str:
    """The text, if it is one; anything else would come back as what it is not.

    :raises TypeError: it is no str.
    """
    if not isinstance(data, str):
        raise TypeError(f"the data must be a str, not {type(data).__name__}: {reprlib.repr(data)}")
    return data


def check_size(text: str, most: int) -> str:
    """The encoded text, if it is not longer than so many bytes.

    :raises ValueError: it is.
    """
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    if size > most:
        raise ValueError(f"the data is {size} bytes long when encoded, longer than the queue's max_size of {most}")
    return text


def dump_pickle(data: Any) -> str:
    """A pickle as text. Protocol 0, since 1.9.1 reads and writes that; latin-1 maps any byte to one character."""
    return pickle.dumps(data, 0).decode("latin-1")


def load_pickle(text: str) -> Any:
    """The reverse of `dump_pickle`. Whoever wrote the text can run code here."""
    return pickle.loads(text.encode("latin-1"))


def check_keys(keys: bytes | Sequence[bytes]) -> list[bytes]:
    """:raises TypeError: they can't be used as a pickle key, or several."""
    found = [keys] if isinstance(keys, bytes) else keys
    if not (isinstance(found, Sequence) and found and all(isinstance(key, bytes) and key for key in found)):
        raise TypeError("pickle_key must be non-empty bytes, or a list of them, newest first")
    return list(found)


class SignedPickle:
    """Pickles signed with HMAC-SHA256 over queue name and payload.

    :param keys: the first signs, all verify (so that keys can be rotated).
    """

    def __init__(self, queue: str, keys: bytes | Sequence[bytes]) -> None:
        self._queue = queue.encode()
        self._keys = check_keys(keys)

    def dumps(self, data: Any) -> str:
        payload = dump_pickle(data)
        return payload + _MARK + self._sign(self._keys[0], payload)

    def loads(self, text: str) -> Any:
        """:raises ValueError: the text is unsigned, or signed with none of the keys for this queue."""
        if not isinstance(text, str):
            raise ValueError("not a pickle")
        rest, signature = text[:-_DIGEST_LENGTH], text[-_DIGEST_LENGTH:]
        if not rest.endswith(_MARK):
            raise ValueError("the pickle is not signed")
        payload = rest[: -len(_MARK)]
        if not any(
            hmac.compare_digest(self._sign(key, payload).encode(), signature.encode()) for key in self._keys
        ):
            raise ValueError("the pickle's signature does not match")
        return load_pickle(payload)

    def _sign(self, key: bytes, payload: str) -> str:
        # the length in front keeps ("ab", "c") and ("a", "bc") apart
        message = b"%d:%s%s" % (len(self._queue), self._queue, payload.encode("utf-8", "surrogatepass"))
        return hmac.new(key, message, hashlib.sha256).hexdigest()
