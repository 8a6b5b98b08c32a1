"""What the catalogs say about a queue table, to compare two of them."""

from __future__ import annotations

from typing import Any

from pq.sql import BESIDE, beside
from support import execute

# the retention is the owner's choice, see docs/howto/retention.rst
COMMENT = "nullif(regexp_replace(col_description(attrelid, attnum), ' ?[(]pq keeps .*[)]', ''), '')"

# indexes that pq 1.9.1 made are left to it, see docs/howto/upgrading.rst
PARTS = {
    "columns": f"""
        select attnum, attname::text, format_type(atttypid, atttypmod), attnotnull, pg_get_expr(adbin, adrelid),
          {COMMENT}
        from pg_attribute left join pg_attrdef on adrelid = attrelid and adnum = attnum
        where attrelid = %(oid)s and attnum > 0 and not attisdropped
    """,
    "constraints": "select conname::text, pg_get_constraintdef(oid) from pg_constraint where conrelid = %(oid)s",
    "indexes": """
        select pg_get_indexdef(indexrelid), indisvalid, indcheckxmin
        from pg_index join pg_class on pg_class.oid = indexrelid
        where indrelid = %(oid)s and relname not like 'priority_idx%%'
    """,
    "triggers": """
        select tgname::text, pg_get_triggerdef(oid), tgenabled from pg_trigger
        where tgrelid = %(oid)s and not tgisinternal
    """,
    "functions": """
        select distinct pg_get_functiondef(tgfoid) from pg_trigger where tgrelid = %(oid)s and not tgisinternal
    """,
    "settings": "select unnest(reloptions) from pg_class where oid = %(oid)s",
    "sequences": """
        select relname::text, attname::text
        from pg_depend
        join pg_class on pg_class.oid = objid and relkind = 'S'
        join pg_attribute on attrelid = refobjid and attnum = refobjsubid
        where refobjid = %(oid)s
    """,
}


WHERE = """
    select pg_class.oid::int8, quote_ident(nspname) from pg_class join pg_namespace on pg_namespace.oid = relnamespace
"""


def plain(row: tuple[Any, ...], schema: str) -> tuple[Any, ...]:
    """Without the schema: a table that was found by the search path is the same."""
    names = (f"{schema}.", f'"{schema}".')
    for name in names:
        row = tuple(value.replace(name, "") if isinstance(value, str) else value for value in row)
    return row


def describe(dsn: str, table: str = "queue") -> dict[str, list[tuple[Any, ...]]]:
    """All that makes the table and those beside it what they are: the definitions of the parts, sorted. `table` as in
    SQL."""
    quoted = table if table.endswith('"') else f'"{table}"'
    found = {}
    for word, name in [("", quoted), *((word, beside(quoted, word)) for word in BESIDE)]:
        ((oid, schema),) = execute(dsn, f"{WHERE} where pg_class.oid = to_regclass(%s)", (name,)) or [(None, None)]
        if word:
            found[word] = execute(dsn, "select obj_description(%(oid)s, 'pg_class')", {"oid": oid})
        if oid is not None:
            for part, query in PARTS.items():
                rows = execute(dsn, query, {"oid": oid})
                found[f"{word} {part}".lstrip()] = sorted([plain(row, schema) for row in rows], key=repr)
    return found


def objects(dsn: str) -> list[tuple[Any, ...]]:
    """All relations, functions, triggers and schemas that are not the system's, and the transaction that made them."""
    query = """
        select 'relation', oid::regclass::text, xmin::text from pg_class where relnamespace = any (%(own)s)
        union all select 'function', oid::regprocedure::text, xmin::text from pg_proc where pronamespace = any (%(own)s)
        union all select 'trigger', tgname::text, xmin::text from pg_trigger where not tgisinternal
        union all select 'schema', nspname::text, xmin::text from pg_namespace where oid = any (%(own)s)
    """
    ((own,),) = execute(
        dsn,
        "select array_agg(oid::int8) from pg_namespace where nspname not like 'pg\\_%%' and nspname <> %(name)s",
        {"name": "information_schema"},
    )
    return sorted(execute(dsn, query, {"own": own}))
