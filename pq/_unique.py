"""Keys, tokens, and what a put with a token does about the job that has it. Pure."""

from __future__ import annotations

import hashlib
import json
import reprlib
from datetime import timedelta
from typing import Any, Literal

from ._args import check_text, check_word
from ._times import Delay, positive_delay

#: The largest size of a key and of a token, in bytes of UTF-8.
MOST_BYTES = 500

#: The largest size of one of them and the name of its queue: what remains in an entry of a B-tree (2,704 bytes), beside
#: the other columns of the index.
MOST_TOGETHER = 2650

_DIGEST_BYTES = 64

#: The longest window of a token.
LONGEST_WINDOW = timedelta(days=3660)

#: How long a job has its token, as the times that stand in its row.
UNTIL_TIMES = {"started": "-infinity", "done": "infinity"}

_ON_DUPLICATE = ("keep", "replace", "merge", "error")
_TIME = ("keep", "new", "earlier", "later")
_USUAL_TIME = {"keep": "keep", "replace": "new", "merge": "earlier", "error": "keep"}


class JobId(int):
    """The id of a job that was put with a token.

    :ivar created: whether the put made this job; if not, the job had the token already.
    """

    created: bool

    def __new__(cls, id: int, created: bool) -> JobId:
        new = super().__new__(cls, id)
        new.created = created
        return new

    def __reduce__(self) -> Any:
        return JobId, (int(self), self.created)


class Unique:
    """A token that at most one job of a queue has, and what a put does when a job has it already.

    :param token: 1 to 500 bytes of UTF-8; True: a digest of the queue, the task and the encoded data.
    :param until: how long the job has the token: ``'started'``, until it is taken for the first time; or ``'done'``,
        until it has ended: as done, dead or cancelled. Default: ``'started'``, unless there is a window.
    :param window: instead of `until`: so long from the put on, whatever becomes of the job; ``'1h'``, a timedelta or
        seconds, at most ten years.
    :param on_duplicate: what a put does if a job has the token: ``'keep'`` leaves that job as it is, ``'replace'``
        gives it the new data, ``'merge'`` merges the new data into the old, ``'error'`` raises `Duplicate`.
    :param time: the `schedule_at` that this job then has: ``'keep'``, its own; ``'new'``, that of the put; the
        ``'earlier'`` or the ``'later'`` of both. Default: ``'keep'``; ``'new'`` with ``'replace'``, ``'earlier'`` with
        ``'merge'``.
    :raises TypeError: an argument of another type; both `until` and `window`.
    :raises ValueError: an unknown word; a token that is too long, or that PostgreSQL can't hold; a window that is not
        positive, or too long; ``time`` with ``'keep'`` or ``'error'``, which leave the job as it is.
    """

    def __init__(
        self,
        token: str | Literal[True],
        until: Literal["started", "done"] | None = None,
        window: Delay | None = None,
        on_duplicate: Literal["keep", "replace", "merge", "error"] = "keep",
        time: Literal["keep", "new", "earlier", "later"] | None = None,
    ) -> None:
        self.token: str | Literal[True] = token if token is True else tag("unique", token)
        if until is not None and window is not None:
            raise TypeError("Unique takes until or window, not both: a window has its end, whatever becomes of the job")
        self.window: timedelta | None = None if window is None else positive_delay("window", window)
        if self.window is not None and self.window > LONGEST_WINDOW:
            raise ValueError(f"window must be at most {LONGEST_WINDOW.days} days, not {window!r}")
        self.until: str | None = "started" if until is None and window is None else until
        if self.until is not None:
            check_word("until", self.until, tuple(UNTIL_TIMES))
        self.on_duplicate: str = check_word("on_duplicate", on_duplicate, _ON_DUPLICATE)
        self.time: str = _USUAL_TIME[on_duplicate] if time is None else check_word("time", time, _TIME)
        if self.time != "keep" and on_duplicate in ("keep", "error"):
            raise ValueError(
                f"time={time!r} needs on_duplicate='replace' or 'merge': with {on_duplicate!r} the job stays as it is"
            )

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in vars(self).items() if name != "token")
        return f"pq.Unique({self.token!r}, {given})"

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other) if isinstance(other, Unique) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(vars(self).items()))

    def of(self, token: str) -> Unique:
        """Return the same with another token."""
        new = object.__new__(Unique)
        new.__dict__.update(vars(self), token=token)
        return new


def tag(name: str, text: object, queue: str = "") -> str:
    """Return a key or a token.

    :param name: the name of the argument in the error.
    :param queue: the name of the queue beside which an index is to hold it; default: nothing is to be written.
    :raises TypeError: it is not a str.
    :raises ValueError: it is empty, longer than 500 bytes, or PostgreSQL can't hold it.
    """
    checked = check_text(name, text)
    size = size_of(checked)
    if size > MOST_BYTES:
        raise ValueError(f"{name} must have at most {MOST_BYTES} bytes, not {size}: {reprlib.repr(checked)}")
    check_room(name, size, queue)
    return checked


def size_of(text: str) -> int:
    """Return the number of bytes in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def room_beside(queue: str) -> int:
    """Return how many bytes a key or a token of a queue may have."""
    return min(MOST_BYTES, max(0, MOST_TOGETHER - size_of(queue)))


def key_of(key: object, queue: str = "") -> str | None:
    """Return the argument `key`; the errors are those of `tag`."""
    return None if key is None else tag("key", key, queue)


def unique_of(unique: object, queue: str = "") -> Unique | None:
    """Read the argument `unique`: a token, or a `Unique`; True: the token is a digest.

    :param queue: as for `tag`.
    :raises TypeError: it is something else.
    :raises ValueError: the token is empty, longer than 500 bytes, or PostgreSQL can't hold it.
    """
    if unique is None:
        return None
    if isinstance(unique, str):
        return _USUAL.of(tag("unique", unique, queue))
    found = _USUAL if unique is True else unique
    if not isinstance(found, Unique):
        raise TypeError(f"unique must be a str, a Unique or True, not {type(unique).__name__}: {reprlib.repr(unique)}")
    check_room("unique", _DIGEST_BYTES if found.token is True else size_of(found.token), queue)
    return found


def check_room(name: str, size: int, queue: str) -> None:
    """
    :raises ValueError: an index can't hold a key or a token of this size beside the name of the queue.
    """
    if size > room_beside(queue):
        raise ValueError(
            f"{name} and the name of the queue must have at most {MOST_TOGETHER} bytes together, not {size} and"
            f" {size_of(queue)}: queue {reprlib.repr(queue)}"
        )


def digest(queue: str, text: str) -> str:
    """Return the token of encoded data. The order of what is in an object does not matter.

    :param text: JSON, unless the encoder made a mistake, which the server will tell of.
    """
    try:
        text = json.dumps(json.loads(text), sort_keys=True)
    except ValueError:
        pass
    return hashlib.sha256(f"{len(queue)}:{queue}{text}".encode("utf-8", "surrogatepass")).hexdigest()


def mergeable(text: str) -> dict[str, str]:
    """Return how encoded data is merged, as parameters: its `kind`, and the `part` of a task's job that is merged.

    :raises ValueError: it can't be merged.
    """
    data = json.loads(text)
    try:
        is_text = b"\\u0000" not in json.dumps(data, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        is_text = False
    if not is_text:
        raise ValueError("data with a NUL character or a lone surrogate can't be merged")
    if isinstance(data, list):
        return {"kind": "array"}
    if not isinstance(data, dict):
        raise ValueError(f"only arrays and objects can be merged, not {type(data).__name__}")
    if isinstance(data.get("kwargs"), dict) and isinstance(data.get("args"), list) and "function" in data:
        if data["args"]:
            raise ValueError(f"only arguments that have names can be merged, not {len(data['args'])} positional ones")
        return {"kind": "object", "part": "{kwargs}"}
    return {"kind": "object"}


_USUAL = Unique(True)
