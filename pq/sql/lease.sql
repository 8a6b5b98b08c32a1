-- The ways in which a delivery under a lease ends. Each is one statement that takes effect only while the row is still
-- running that delivery, and returns a row if it did. "attempts" alone would not tell deliveries apart: a release takes
-- one back.

-- name: held
id = %(id)s and attempts = %(attempts)s and dequeued_at = %(dequeued_at)s and due_at is not null

-- name: done
update :table set due_at = null, error = null, failed_at = null, result = %(result)s
where :held
returning id

-- name: retry
-- schedule_at, too, so that pq 1.9.1 waits as well.
with changed as (
  update :table set
    dequeued_at = null,
    due_at = statement_timestamp() + make_interval(secs => %(delay)s),
    schedule_at = coalesce(statement_timestamp() + make_interval(secs => %(delay)s), schedule_at),
    error = coalesce(%(error)s, error),
    failed_at = coalesce(failed_at, case when %(error)s::text is not null then statement_timestamp() end)
  where :held
  returning tableoid, q_name
)
select :wake from changed

-- name: fail
update :table set
  dequeued_at = statement_timestamp(), due_at = null, error = %(error)s,
  failed_at = coalesce(failed_at, statement_timestamp())
where :held
returning id

-- name: release
with changed as (
  update :table set dequeued_at = null, due_at = null, attempts = attempts - 1
  where :held
  returning tableoid, q_name
)
select :wake from changed

-- name: extend
update :table set due_at = statement_timestamp() + make_interval(secs => %(lease)s)
where :held
returning id

-- name: extend_all
-- The heartbeat. Returns those of the deliveries, given in arrays, that are still held. A row that a transaction has
-- locked is passed over: nobody can claim it, and to wait for it would let the other leases expire.
with given as (
  select * from unnest(%(ids)s::bigint[], %(attempts)s::int[], %(dequeued_at)s::timestamptz[], %(leases)s::float8[])
    as delivery (id, attempts, dequeued_at, lease)
), held as (
  select job.id, lease from :table as job join given using (id, attempts, dequeued_at) where due_at is not null
), free as (
  select id from :table where id = any (array(select id from held)) for update skip locked
), extended as (
  update :table as job set due_at = statement_timestamp() + make_interval(secs => held.lease)
  from held join given using (id)
  where job.id = held.id and job.id = any (array(select id from free))
    and job.attempts = given.attempts and job.dequeued_at = given.dequeued_at and job.due_at is not null
)
select id from held

-- name: progress
update :table set result = %(result)s
where :held
returning id
