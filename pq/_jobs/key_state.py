"""The state that the jobs of a key hand on, from one to the next."""

from __future__ import annotations

import reprlib
from typing import Any

from .. import _codec


class KeyState:
    """The state as one delivery has it.

    :param kept: the JSON of it that the table holds; None: none.
    :ivar data: it may be changed.
    """

    def __init__(self, kept: str | None) -> None:
        self.data: dict[str, Any] = {} if kept is None else checked(_codec.decode(kept))
        self._before = _codec.encode(self.data)

    def changed(self) -> str | None:
        """Return its JSON, if that has changed.

        :raises TypeError: JSON does not have something that is in it.
        :raises ValueError: NaN or Infinity is in it, or it contains itself.
        """
        text = _codec.encode(self.data)
        return None if text == self._before else text


def check_key(id: int, key: str | None) -> None:
    """
    :raises TypeError: the job has no key.
    """
    if key is None:
        raise TypeError(f"job {id} has no key, and so no key_state: only jobs of one key hand on a state")


def check_alone(id: int, is_shared: bool) -> None:
    """
    :param is_shared: whether several jobs of the key may run at once, and would write over each other's state.
    :raises TypeError: they may.
    """
    if is_shared:
        raise TypeError(
            f"job {id} has no key_state: the limit of its queue, per_key=, lets several jobs of a key run at once"
        )


def checked(state: Any) -> dict[str, Any]:
    """
    :raises TypeError: the state is not a dict.
    """
    if not isinstance(state, dict):
        raise TypeError(f"the state of a key must be a dict, not {type(state).__name__}: {reprlib.repr(state)}")
    return state
