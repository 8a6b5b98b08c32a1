"""How a queue is configured, where it is a stream: a comment on a table of the stream."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta

from .._db.given import Given
from ..sql import bind, literal, statements, stream_object
from .checks import SETTINGS

_PREFIX = "pgqueue "

_KINDS = {"ticker_max_count": "count", "ticker_paused": "flag", "external_ticker": "flag"}


class Settings:
    """What was said of a queue. Only ``rotation_period`` has an effect: it is the `retain` of the stream.

    :param table: the quoted name of the table of the jobs.
    :param sql: the statements.
    """

    def __init__(self, given: Given, table: str, stream: str, sql: Mapping[str, str]) -> None:
        self._given = given
        self._sql = sql
        self._name = stream_object(table, "subscriptions", stream)

    def read(self) -> dict[str, str]:
        """Return all of them, with defaults."""
        ((comment,),) = self._given.run(self._sql["settings"], {"name": self._name})
        try:
            return {**SETTINGS, **json.loads((comment or "").removeprefix(_PREFIX))}
        except (ValueError, TypeError):
            return dict(SETTINGS)

    def change(self, values: Mapping[str, str]) -> None:
        """Change some. The caller has opened a transaction."""
        self._given.run(self._sql["lock_settings"], {"name": self._name})
        text = literal(_PREFIX + json.dumps({**self.read(), **values}))
        self._given.run(bind(statements("pgqueue.sql")["stream_settings"], {"subscriptions": self._name, "text": text}))


def checked(given: Given, sql: Mapping[str, str], values: Mapping[str, str]) -> tuple[dict[str, str], timedelta | None]:
    """Return settings as the server writes them, and the ``rotation_period``, in whole seconds; None: it is not there.

    The errors of the server are those of a bad value.
    """
    found: dict[str, str] = {}
    period = None
    for name, value in values.items():
        kind = _KINDS.get(name, "interval")
        ((found[name], seconds),) = given.run(sql[f"check_{kind}"], {"value": value})
        if name == "rotation_period":
            period = timedelta(seconds=max(1, round(seconds)))
    return found, period
