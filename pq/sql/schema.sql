-- The statements that find, lock, empty and drop the table.

-- name: find
-- Return the schema in which the name finds a table, the columns of that table, and the comment of due_at.
select
  nspname,
  array(
    select attname::text from pg_attribute where attrelid = pg_class.oid and attnum > 0 and not attisdropped
  ),
  (select col_description(attrelid, attnum) from pg_attribute where attrelid = pg_class.oid and attname = 'due_at')
from pg_class join pg_namespace on pg_namespace.oid = relnamespace
where pg_class.oid = to_regclass(%(table)s)

-- name: place
-- Return the schema for a new table, and whether that schema exists.
select name, to_regnamespace(quote_ident(name)) is not null
from coalesce(%(schema)s, current_schema()::text) as name

-- name: building
-- How far the index is that somebody makes of the table now: what is done, and how much of it in all.
select
  case when tuples_total > 0 then tuples_done else blocks_done end,
  case when tuples_total > 0 then tuples_total else blocks_total end,
  case when tuples_total > 0 then 'rows' else 'blocks' end
from pg_stat_progress_create_index
where relid = to_regclass(%(table)s) and greatest(tuples_total, blocks_total) > 0

-- name: lock
-- One lock for all tables of the database: two of them may need the same new schema.
select pg_advisory_xact_lock(hashtextextended('pq create', 0))

-- name: lock_table
-- Nobody puts a job between the count and the end of the table.
lock table :table in access exclusive mode

-- name: drop
drop table :table;
drop function if exists :functions

-- name: drop_beside
-- What stands beside the table from version 6 on.
drop table :checks_table, :limits_table, :slots_table, :states_table, :schedules_table

-- name: empty
truncate :table

-- name: empty_beside
-- Limits and schedules stay, and so do the places of limits: each is free if its job does not run.
truncate :checks_table, :states_table

-- name: announce
-- Note whether the table is new, for the steps that need to know. The name reaches the block by way of a setting: inside
-- of the block a dollar sign in it could end the block.
set local pq.target = :table_text;
do $pq$ begin
  perform set_config('pq.table_is_new', (to_regclass(current_setting('pq.target')) is null)::text, true);
end $pq$

-- name: streams
-- The comments of the logs of streams in the schema of the table.
select description from pg_description
  join pg_class as log on log.oid = objoid and classoid = 'pg_class'::regclass and objsubid = 0
  join pg_class as jobs on jobs.relnamespace = log.relnamespace
where jobs.oid = to_regclass(%(table)s) and log.relkind = 'p' and description like 'pq stream {%%'
