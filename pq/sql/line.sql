-- What the functions of keys repeat; see migration 6, which these are part of.

-- name: of_key
q_name = its_queue and key = its_key

-- name: newest_first
order by q_name desc, key desc, :stand desc, expected_at desc, id desc

-- name: oldest_first
order by q_name, key, :stand, expected_at, id

-- name: is_in_line
-- A job that waits for its retry is in line, unless it lets the others pass.
:stand = 0 and (dequeued_at is not null or due_at is null or attempts = 0 or passes is not true)

-- name: is_late
-- A row that the ends of others would not make ready: next_function would look behind it; or it is due.
dequeued_at is null and waits_for is null and is_alone is not true and (
  (expected_at is null and id < newest - 1000 and (due_at = 'infinity' or (due_at is null and attempts = 0)))
  or (due_at <= pg_catalog.clock_timestamp() and :stand = 3)
)

-- name: read_rules
-- What was set for the keys of a queue; its name follows. Nulls if nothing was.
select coalesce(per_key, 1), on_retry = 'pass', on_dead = 'stop' into most, passes, stops
from :limits_table where queues is null and name =

-- name: some_parent
-- Of the jobs that a follower waits for, each step-th, the last one first, since most end in order. Why the join and the
-- conditions on numbers look like this is told in lease.sql.
select job.id from generate_series(pg_catalog.cardinality(parents), 1, -step) as given (number)
  join :table as job on job.id = any (array[parents[given.number]]) and job.follower = its_follower
where given.number = abs(given.number) and given.number = given.number + 0
