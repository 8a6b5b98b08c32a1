"""How an application has values read is its own affair."""

from __future__ import annotations

from importlib import import_module

import pytest
from support.driver import BOTH
from support.kinds import WITH_PSYCOPG3, kit_of, make_pq

TYPES = {"int8": 20, "int4": 23, "float8": 701, "bool": 16, "text": 25, "varchar": 1043, "timestamp": 1114}


@pytest.mark.parametrize("kind", [kind for kind in WITH_PSYCOPG3 if kind.endswith("connection")])
@pytest.mark.parametrize("name", TYPES)
def test_values_are_not_read_as_the_application_has_its_own_read(dsn: str, kind: str, name: str) -> None:
    """A job would be lost that was taken, and then could not be read."""
    with make_pq(kind, dsn) as pq:
        conn = pq._db.conn
        if kit_of(kind) is BOTH["psycopg"]:
            loader = import_module("psycopg.adapt").Loader
            conn.adapters.register_loader(name, type("Broken", (loader,), {"load": lambda self, data: 1 / 0}))
        else:
            extensions = import_module("psycopg2.extensions")
            broken = extensions.new_type((TYPES[name],), "BROKEN", lambda value, cursor: 1 / 0)
            extensions.register_type(broken, conn)
        queue = pq["types"]
        queue.put({"a": 1})
        job = queue.get(timeout=0)
        assert job is not None
        assert job.data == {"a": 1}
        assert job.enqueued_at.year > 2000
        queue.put(2)
        with queue.get(timeout=0, lease="30s") as leased:  # type: ignore[union-attr]
            assert leased.data == 2
        assert queue.get(timeout=0.01) is None
        assert len(queue) == 0
