"""What the catalogs say about a queue table, to compare two of them."""

from __future__ import annotations

from typing import Any

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


def describe(dsn: str, table: str = "queue") -> dict[str, list[tuple[Any, ...]]]:
    """All that makes the table what it is: its parts' definitions, sorted. `table` as in SQL."""
    ((oid,),) = execute(dsn, "select %s::regclass::oid", (table,))
    return {part: sorted(execute(dsn, query, {"oid": oid}), key=repr) for part, query in PARTS.items()}


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
