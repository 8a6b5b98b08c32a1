-- How long rows are kept, and the deletion of those whose time is over.

-- name: read
-- The comment that says so. No row if there is no such table.
select col_description(attrelid, attnum) from pg_attribute
where attrelid = to_regclass(%(table)s) and attname = 'result'

-- name: there
select from :table limit 0

-- name: note
comment on column :table.result is %(comment)s

-- name: is_finished
dequeued_at < :cutoff and due_at is null and error is null

-- name: is_dead
dequeued_at < :cutoff and due_at is null and error is not null

-- name: cutoff
statement_timestamp() - make_interval(secs => %(kept)s)

-- name: finished
-- Along the primary key. The rows are read one by one, and no more than it takes to find so many to delete; they are
-- looked at once more when they are locked, since a job may have come back to life meanwhile. Ids are given in the
-- order of time, by and large: when all of the rows seen are young, older ones are not to be expected. Returns how many
-- were deleted, how many were looked at, and where to go on: null at the end. The upper bound is none: but a planner
-- that has no statistics expects few rows between two bounds, and so does not sort the table.
with pq_seen as materialized (
  select id, enqueued_at, :is_finished as over from :table
  where id > %(position)s and id <= 9223372036854775807
  order by id
  limit %(look)s
), pq_chosen as materialized (
  select id from pq_seen where over limit %(limit)s
), pq_locked as materialized (
  select id from :table where id = any (array(select id from pq_chosen)) and :is_finished
  for update skip locked
), pq_deleted as (
  delete from :table where id = any (array(select id from pq_locked))
  returning id
)
select
  (select count(*) from pq_deleted),
  case when is_full then %(limit)s else (select count(*) from pq_seen) end,
  case
    when is_full then (select max(id) from pq_chosen)
    else (select max(id) from pq_seen having count(*) = %(look)s and min(enqueued_at) < :cutoff)
  end
from (select count(*) = %(limit)s as is_full from pq_chosen) as batch

-- name: dead
-- Along the index of dead jobs, which holds their times: entries of younger ones are passed over within it.
with pq_chosen as materialized (
  select id from :table
  where :is_dead and dequeued_at is not null
  order by q_name, dequeued_at, id
  limit %(limit)s
  for update skip locked
), pq_deleted as (
  delete from :table where id = any (array(select id from pq_chosen))
  returning id
)
select count(*) from pq_deleted
