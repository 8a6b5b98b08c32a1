-- Dead jobs: taken, not to become ready by themselves, and with the error of their last attempt.

-- name: dead
q_name = %(queue)s and error is not null and dequeued_at is not null and due_at is null

-- name: count
select count(*) from :table where :dead

-- name: newest
select :columns, error, failed_at at time zone 'utc' from :table where :dead order by q_name desc, dequeued_at desc, id desc limit %(limit)s

-- name: oldest
select :columns, error, failed_at at time zone 'utc' from :table where :dead order by q_name, dequeued_at, id limit %(limit)s

-- name: next
-- The page after a job, from the oldest to the newest.
select :columns, error, failed_at at time zone 'utc' from :table
where :dead and (dequeued_at, id) > (%(dequeued_at)s::timestamp at time zone 'utc', %(id)s)
order by q_name, dequeued_at, id
limit %(limit)s

-- name: find
select :columns, error, failed_at at time zone 'utc' from :table where :dead and id = %(id)s

-- name: retry
-- As if newly put: with no attempt made. :some is one of the two last.
with pq_changed as (
  update :table set
    dequeued_at = null,
    due_at = statement_timestamp() + make_interval(secs => %(delay)s),
    schedule_at = coalesce(statement_timestamp() + make_interval(secs => %(delay)s), schedule_at),
    attempts = 0, expiries = 0, error = null, failed_at = null
  where :dead and :some
  returning tableoid, q_name
)
select :wake from pq_changed as changed

-- name: discard
delete from :table where :dead and :some
returning id

-- name: these
id = any (%(ids)s::bigint[])

-- name: all
true
