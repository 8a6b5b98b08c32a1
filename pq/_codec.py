"""Encoding of job data as text for the `json` column: JSON, and pickles wrapped in a JSON string. Pure."""

from __future__ import annotations

import hashlib
import hmac
import json
import reprlib
from collections.abc import Callable, Sequence
from typing import Any

Convert = Callable[[Any], Any]

#: Separates a pickle from its signature. It comes after the pickle's STOP opcode, where `pickle.loads` stops reading,
#: so pq 1.9.1 and a PQ without a key can still read a signed job.
_MARK = "\npq-hmac-sha256:"
_DIGEST_LENGTH = hashlib.sha256().digest_size * 2


_dumps = json.JSONEncoder(allow_nan=False).encode


def encode(data: Any) -> str:
    """Encode data as `json.dumps` does, but refuse NaN and Infinity, which PostgreSQL does not accept.

    :raises ValueError: the data contains NaN or Infinity.
    :raises TypeError: `json.dumps` refuses the data.
    """
    try:
        return _dumps(data)
    except ValueError as error:
        if "compliant" in str(error) and (found := _constants(data)):
            raise ValueError(f"{found[0]} is not JSON compliant") from error  # Python names it only from 3.12 on
        raise


def _constants(data: Any) -> list[str]:
    """Return the NaN, Infinity and -Infinity among the values, as JavaScript writes them."""
    found: list[str] = []
    json.loads(json.dumps(data), parse_constant=found.append)
    return found


_decoder = json.JSONDecoder()
#: What `raw_decode` wraps, where it is there.
_scan: Callable[[str, int], tuple[Any, int]] = getattr(_decoder, "scan_once", _decoder.raw_decode)


def decode(text: str) -> Any:
    """Decode JSON as `json.loads` does."""
    try:
        data, end = _scan(text, 0)
    except (ValueError, StopIteration):
        return _decoder.decode(text)
    return data if end == len(text) else _decoder.decode(text)  # which looks for white space, and takes twice as long


def check_str(data: Any) -> str:
    """Return the data if it is a str; JSON would return other data as something else.

    :raises TypeError: the data is not a str.
    """
    if not isinstance(data, str):
        raise TypeError(f"the data must be a str, not {type(data).__name__}: {reprlib.repr(data)}")
    return data


def check_size(text: str, most: int) -> str:
    """Return the encoded text if it has at most `most` bytes in UTF-8.

    :raises ValueError: the text is longer.
    """
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    if size > most:
        raise ValueError(f"the data is {size} bytes long when encoded, longer than the queue's max_size of {most}")
    return text


def dump_pickle(data: Any) -> str:
    """Pickle data as text, by protocol 0, which 1.9.1 reads and writes; latin-1 maps each byte to one character."""
    import pickle  # which few need

    return pickle.dumps(data, 0).decode("latin-1")


def load_pickle(text: str) -> Any:
    """Load what `dump_pickle` made. This runs code that the author of the text has chosen."""
    import pickle

    return pickle.loads(text.encode("latin-1"))


def check_keys(keys: bytes | Sequence[bytes]) -> list[bytes]:
    """Return the pickle keys as a list.

    :raises TypeError: `keys` is neither non-empty bytes nor a non-empty sequence of these.
    """
    found = [keys] if isinstance(keys, bytes) else keys
    if not (isinstance(found, Sequence) and found and all(isinstance(key, bytes) and key for key in found)):
        raise TypeError("pickle_key must be non-empty bytes, or a list of them, newest first")
    return list(found)


class SignedPickle:
    """Pickles that are signed with HMAC-SHA256 over the queue's name and the pickle.

    :param keys: the first key signs, and all of them verify, so that keys can be rotated.
    """

    def __init__(self, queue: str, keys: bytes | Sequence[bytes]) -> None:
        self._queue = queue.encode()
        self._keys = check_keys(keys)

    def dumps(self, data: Any) -> str:
        payload = dump_pickle(data)
        return payload + _MARK + self._sign(self._keys[0], payload)

    def loads(self, text: str) -> Any:
        """Verify the signature and load the pickle.

        :raises ValueError: the text is unsigned, or not signed with one of the keys for this queue.
        """
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
        # without the length in front ("ab", "c") and ("a", "bc") would have the same signature
        message = b"%d:%s%s" % (len(self._queue), self._queue, payload.encode("utf-8", "surrogatepass"))
        return hmac.new(key, message, hashlib.sha256).hexdigest()
