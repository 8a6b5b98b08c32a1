-- Dead jobs: the last attempt failed, and nobody has decided on them yet.

-- name: newest
select :columns, :failure, (dequeued_at at time zone 'utc')::text, headers::text from :table where :dead
order by q_name desc, dequeued_at desc, id desc
limit %(limit)s

-- name: oldest
select :columns, :failure, (dequeued_at at time zone 'utc')::text, headers::text from :table where :dead
order by q_name, dequeued_at, id
limit %(limit)s

-- name: next
-- The page after a job, from the oldest to the newest. A job that was retried and has died again since "begun" is passed
-- over: else a loop that retries the jobs might never end. One that died while the clock was ahead is not.
select :columns, :failure, (dequeued_at at time zone 'utc')::text, headers::text from :table
where :dead and (dequeued_at, id) > (%(died_at)s::timestamp at time zone 'utc', %(id)s)
  and (dequeued_at <= %(begun)s::timestamp at time zone 'utc' or dequeued_at > statement_timestamp())
order by q_name, dequeued_at, id
limit %(limit)s

-- name: begun
select (statement_timestamp() at time zone 'utc')::text

-- name: find
select :columns, :failure, (dequeued_at at time zone 'utc')::text, headers::text from :table where :dead_one and id = %(id)s

-- name: dead
q_name = %(queue)s and :is_dead

-- name: dead_one
-- A dead job that is found by its id. "(error is null) is false" keeps the planner from the index of dead jobs, in which it
-- might read all of the queue's; see lease.sql.
q_name = %(queue)s and (error is null) is false and dequeued_at is not null and due_at is null

-- name: retry
-- Make the jobs ready as if they were newly put: with no attempt made. "some" stands for "these" or "all". schedule_at is
-- from when on they wait: without it, one that was put days ago would seem to have waited for days.
with pq_changed as (
  update :table set
    dequeued_at = null,
    due_at = statement_timestamp() + make_interval(secs => %(delay)s),
    schedule_at = statement_timestamp() + make_interval(secs => coalesce(%(delay)s, 0)),
    attempts = 0, expiries = 0, error = null, failed_at = null, finished_at = null
  where :some
  returning tableoid, q_name
)
select :wake from pq_changed as changed

-- name: retry_each
-- Make each of these jobs ready after a delay of its own. Why the join and the conditions on numbers look like this is told
-- in lease.sql.
with pq_given as materialized (
  select given.id as given_id, given.delay from unnest(%(ids)s::bigint[], %(delays)s::float8[])
    with ordinality as given (id, delay, number)
  where given.number = abs(given.number) and given.number = given.number + 0
), pq_changed as (
  update :table set
    dequeued_at = null,
    due_at = statement_timestamp() + make_interval(secs => given.delay),
    schedule_at = statement_timestamp() + make_interval(secs => given.delay),
    attempts = 0, expiries = 0, error = null, failed_at = null, finished_at = null
  from pq_given as given
  where id = any (array[given.given_id]) and :dead_one
  returning tableoid, q_name
)
select :wake from pq_changed as changed

-- name: discard
delete from :table where :some
returning id

-- name: these
:dead_one and id = any (%(ids)s::bigint[])

-- name: all
:dead
