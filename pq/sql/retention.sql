-- How long rows are kept, and the deletion of rows that are kept no longer.

-- name: read
-- The comment that says how long; no row if there is no such table.
select col_description(attrelid, attnum) from pg_attribute
where attrelid = to_regclass(%(table)s) and attname = 'result'

-- name: there
select from :table limit 0

-- name: note
comment on column :table.result is %(comment)s

-- name: finished_over
:is_finished and dequeued_at < :cutoff and not (:in_window)

-- name: dead_over
:is_dead and dequeued_at < :cutoff and not (:in_window)

-- name: cutoff
statement_timestamp() - make_interval(secs => %(kept)s)

-- name: finished
-- Walk along the primary key. The statement reads rows one by one, and no more than it takes to find "limit" rows to
-- delete; it checks them again once they are locked, since a job may have come back to life meanwhile. Ids are by and
-- large in the order of time: when all rows of a full look are young, older ones are not to be expected behind them.
-- Rows that were put while the clock was ahead say nothing about that, so a look that finds no others goes on.
-- Returns how many rows were deleted, how many were looked at, and the id to go on after: null at the end.
-- The upper bound excludes nothing: without statistics the planner expects few rows between two bounds. Why one limit is a
-- subquery and the other one is not, and why there is a join with a single row, is told in claim.sql.
with pq_one as materialized (select 1), pq_seen as materialized (
  select seen.* from pq_one, (
    select id, enqueued_at, :finished_over as over from :table
    where id >= %(position)s and id <= 9223372036854775807
    order by id
    limit (select %(look)s::bigint)
  ) as seen
  limit %(look)s
), pq_chosen as materialized (
  select seen.id from pq_seen as seen where seen.over limit %(limit)s
), pq_locked as materialized (
  select id from :table where id = any (array(select chosen.id from pq_chosen as chosen)) and :finished_over
  for update skip locked
), pq_deleted as (
  delete from :table where id = any (array(select locked.id from pq_locked as locked))
  returning id
)
select
  (select count(*) from pq_deleted),
  case when batch.is_full then %(limit)s else (select count(*) from pq_seen) end,
  case
    when batch.is_full then (select max(chosen.id) from pq_chosen as chosen)
    else (
      select max(seen.id) from pq_seen as seen
      having count(*) = %(look)s and min(seen.enqueued_at) not between :cutoff and statement_timestamp()
    )
  end
from (select count(*) = %(limit)s as is_full from pq_chosen) as batch

-- name: dead
-- Walk along the index of dead jobs, which holds their times: younger ones are passed over within the index.
with pq_chosen as materialized (
  select id from :table
  where :dead_over and dequeued_at is not null
  order by q_name, dequeued_at, id
  limit %(limit)s
  for update skip locked
), pq_deleted as (
  delete from :table where id = any (array(select chosen.id from pq_chosen as chosen))
  returning id
)
select count(*) from pq_deleted
