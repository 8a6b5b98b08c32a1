"""Names and statements: what is quoted, folded, shortened and filled in."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tour import check_endings, check_states

from pq import PQ
from pq import sql as _sql
from pq.sql import NAME_BYTES, TableName, bind, bound, object_name, quote, statements

SQL_FILES = sorted(entry.name for entry in files("pq").joinpath("sql").iterdir() if entry.name.endswith(".sql"))

ODD_NAMES = [
    'a"b',
    "a'); drop table queue; --",
    "100%",
    "%(queue)s",
    ":table",
    "select",
    "a b",
    "Größe",
    "1st",
    "a.b.c",
    "\\",
    "x" * NAME_BYTES,
    "é" * (NAME_BYTES // 2),
]


@pytest.mark.parametrize(
    ("name", "schema", "quoted"),
    [
        ("queue", None, '"queue"'),
        ("Queue", None, '"queue"'),
        ("_Q1", None, '"_q1"'),
        ("queue", "App", '"app"."queue"'),
        ("app.queue", None, '"app"."queue"'),
        ("App.Queue", None, '"app"."queue"'),
        ("app.queue", "other", '"other"."app.queue"'),
        ("a.b.c", None, '"a.b.c"'),
        (".b", None, '".b"'),
        ("a b", None, '"a b"'),
        ("My Queue", None, '"My Queue"'),
        ('a"b', 'c"d', '"c""d"."a""b"'),
    ],
)
def test_the_name_of_a_table(name: str, schema: str | None, quoted: str) -> None:
    assert TableName(name, schema).quoted == quoted


def test_tables_of_any_name_work_beside_each_other(empty_dsn: str) -> None:
    with PQ(empty_dsn) as plain:
        plain.create()
        for name in ODD_NAMES:
            with PQ(empty_dsn, table=name) as pq:
                pq.create()
                check_table(pq)
        assert list(plain) == []


def check_table(pq: PQ) -> None:
    queue = pq["a"]
    id = queue.put("x")
    with queue as cursor:
        cursor.execute("select id from %s where q_name = %s", (queue.table, "a"))
        assert cursor.fetchall() == [(id,)]
    assert list(pq) == ["a"]
    assert "a" in pq
    assert queue.update(id, "xy") == 4
    job = queue.get(block=False)
    assert job is not None
    assert job.data == "xy"
    assert queue.get(timeout=0.01) is None  # this waits, and so listens
    assert len(queue) == 0
    queue.clear()
    assert list(pq) == []


def parts_of_statements() -> set[str]:
    """What each "with" of ours names."""
    texts = [text for path in SQL_FILES for text in statements(path).values()]
    return {name for text in texts for name in re.findall(r"(\w+) as (?:materialized |not materialized )?\(\s", text)}


def test_a_table_can_have_the_name_of_a_part_of_a_statement(empty_dsn: str) -> None:
    names = parts_of_statements()
    assert len(names) > 20
    assert {name for name in names if not name.startswith("pq_")} == set()  # so no other name can be one of these
    for name in sorted(names):
        with PQ(empty_dsn, table=name) as pq:
            pq.create()
            check_states(pq)
            check_endings(pq)
            pq.create(retain="0s")
            check_endings(pq)


def test_a_plain_name_and_its_lower_case_are_one_table(dsn: str) -> None:
    with PQ(dsn, table="Queue") as upper, PQ(dsn) as lower:
        upper["a"].put(1)
        assert len(lower["a"]) == 1


@pytest.mark.parametrize("table", ["app.jobs", "App.Jobs"])
def test_a_dotted_table_is_schema_and_table(empty_dsn: str, table: str) -> None:
    with PQ(empty_dsn, table=table) as dotted, PQ(empty_dsn, table="jobs", schema="app") as apart:
        dotted.create()
        dotted["a"].put(1)
        assert len(apart["a"]) == 1


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_a_quoted_name_ends_where_it_should(name: str) -> None:
    quoted = quote(name)
    assert quoted[0] == quoted[-1] == '"'
    assert quoted[1:-1].replace('""', "") == name.replace('"', "")
    assert re.fullmatch(r'"(?:[^"]|"")*"', quoted)


# -- the names of what belongs to a table


def test_a_short_name_is_kept() -> None:
    assert object_name("queue", "due_index") == "queue_due_index"


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_a_name_never_exceeds_what_postgresql_keeps(table: str) -> None:
    name = object_name(table, "due_index")
    assert len(name.encode()) <= NAME_BYTES
    assert name.endswith("_due_index")


def test_long_tables_that_begin_alike_have_different_names() -> None:
    names = {object_name("x" * 62 + last, suffix) for last in "ab" for suffix in ("due_index", "ready_index")}
    assert len(names) == 4


# -- statements


def test_words_are_filled_in_and_casts_and_parameters_left() -> None:
    text = "select :columns, x::text, '12:30' from :table where id = %(id)s"
    assert bind(text, {"columns": "id", "table": '"q"'}) == "select id, x::text, '12:30' from \"q\" where id = %(id)s"


def test_what_is_filled_in_is_not_read_again() -> None:
    assert bind("from :table", {"table": '":table"'}) == 'from ":table"'


def test_an_unknown_word_is_an_error() -> None:
    with pytest.raises(KeyError, match="tabel"):
        bind("from :tabel", {"table": "q"})


def test_a_percent_sign_in_a_name_is_no_parameter() -> None:
    assert '"100%%"' in bound("queue.sql", '"100%"')["clear"]


def stands_for_another(name: str) -> bool:
    """Whether some statement has it, or some code puts it there: only then it may be empty."""
    if any(re.search(rf"(?<!:):{name}\b", _sql.read(path)) for path in SQL_FILES):
        return True
    return any(f'"{name}"' in module.read_text("utf-8") for module in Path(_sql.__file__).parents[1].rglob("*.py"))


@pytest.mark.parametrize("path", SQL_FILES)
def test_every_statement_has_a_name_and_no_comment_is_sent(path: str) -> None:
    texts = statements(path)
    assert texts
    assert len(texts) == len(re.findall("^-- name:", _sql.read(path), re.MULTILINE))
    for name, text in texts.items():
        assert text or stands_for_another(name)
        assert "-- " not in text


def test_statements_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at every call: that would read a file for each put."""
    first = bound("queue.sql", '"read_once"')
    monkeypatch.setattr(_sql, "read", None)  # calling it would be an error
    assert bound("queue.sql", '"read_once"') is first
    assert bound("queue.sql", '"another"')["put"] != first["put"]
