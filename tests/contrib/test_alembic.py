"""Alembic proposes nothing for the tables of pq, and its revisions make them."""

from __future__ import annotations

from typing import Any

import pytest
from psycopg2.extensions import parse_dsn

from pq import PQ
from pq.schema import migration

alembic = pytest.importorskip("alembic")
sqlalchemy = pytest.importorskip("sqlalchemy")

from alembic.autogenerate import compare_metadata  # noqa: E402
from alembic.migration import MigrationContext  # noqa: E402
from alembic.operations import Operations  # noqa: E402

from pq.contrib.alembic import include_name  # noqa: E402

LONG = "t" * 60


def engine_of(dsn: str) -> Any:
    parts = parse_dsn(dsn)
    place = (parts["user"], None, parts["host"], int(parts["port"]), parts["dbname"])
    return sqlalchemy.create_engine(sqlalchemy.engine.URL.create("postgresql+psycopg2", *place))


def proposed(dsn: str, **options: Any) -> list[Any]:
    """What autogenerate would do to a database, for a program with one table of its own, ``users``."""
    metadata = sqlalchemy.MetaData()
    sqlalchemy.Table("users", metadata, sqlalchemy.Column("name", sqlalchemy.Text, primary_key=True))
    engine = engine_of(dsn)
    with engine.begin() as connection:
        metadata.create_all(connection)
        connection.execute(sqlalchemy.text("create table if not exists queue_of_mine (n int)"))
        context = MigrationContext.configure(connection, opts=options)
        found = compare_metadata(context, metadata)
    engine.dispose()
    return [(each[0], getattr(each[1], "name", None)) for each in found if isinstance(each, tuple)]


@pytest.mark.filterwarnings("ignore:Did not recognize type")  # where it looks at the tables of streams
@pytest.mark.parametrize(
    ("table", "schema", "stream"),
    [("queue", None, "orders"), ("jobs", None, "o" * 60), (LONG, None, "orders"), ("Jobs", "app", "orders")],
)
def test_autogenerate_leaves_the_tables_alone(empty_dsn: str, table: str, schema: str | None, stream: str) -> None:
    with PQ(empty_dsn, table=table, schema=schema) as pq:
        pq.create()
        pq.streams[stream].create()
    options: dict[str, Any] = {"include_schemas": True} if schema else {}
    mine = [("remove_table", "queue_of_mine")]
    assert len(proposed(empty_dsn, **options)) > 5
    assert proposed(empty_dsn, include_name=include_name(table, schema=schema), **options) == mine


def test_a_table_of_that_name_in_another_schema_is_seen(empty_dsn: str) -> None:
    with PQ(empty_dsn) as pq:
        pq.create()
    assert len(proposed(empty_dsn, include_name=include_name(schema="app"))) > 5


def test_names_of_other_things_are_included() -> None:
    include = include_name()
    assert include("queue", "index", {}) and include(None, "schema", {}) and include("queue_of_mine", "table", {})
    assert not include("queue", "table", {})


@pytest.mark.parametrize(("table", "error"), [("", ValueError), (3, TypeError), ("x" * 64, ValueError)])
def test_bad_names(table: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="table"):
        include_name(table)


def test_a_revision_makes_the_table(empty_dsn: str) -> None:
    engine = engine_of(empty_dsn)
    with engine.begin() as connection:
        op = Operations(MigrationContext.configure(connection))
        op.get_bind().exec_driver_sql(migration(), execution_options={"no_parameters": True})
    engine.dispose()
    with PQ(empty_dsn) as pq:
        pq["a"].put(1)
        assert pq["a"].get().data == 1
