"""The operation of pq's migrations."""

from __future__ import annotations

from typing import Any

from pq.schema import migration

from . import conf
from .bases import Operation
from .queues import pqs


class Upgrade(Operation):
    """Brings the tables of the setting ``PQ`` to a version. A table that ``pq create`` has made is left as it is.

    There is no way back: a newer table works with an older library.

    :param version: the version of the table.
    """

    reduces_to_sql: bool = True
    reversible: bool = True
    elidable: bool = False

    def __init__(self, version: int) -> None:
        self.version: int = version

    def state_forwards(self, app_label: str, state: Any) -> None:
        """Change no model."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """Execute the step in each table of this database that needs it."""
        for setting in conf.of_database(schema_editor.connection.alias):
            if schema_editor.collect_sql or pqs[setting.alias].version() < self.version:
                sql = migration(self.version - 1, self.version, table=setting.name.name, schema=setting.name.schema)
                schema_editor.execute(sql, params=None)

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """Do nothing."""

    def describe(self) -> str:
        """Return what ``migrate`` shows."""
        return f"Bring the tables of pq to version {self.version}"
