-- The ways in which deliveries under a lease end. Each takes effect only while the row is still running that delivery,
-- and returns the rows for which it did. "attempts" alone would not tell deliveries apart: a release takes one back.
-- "(due_at is null) is false" is no more than "due_at is not null". But the planner knows that the index of due rows has
-- these, and may take it for shorter than it is; this leaves no choice but the primary key.

-- name: held
id = %(id)s and attempts = %(attempts)s and dequeued_at = %(dequeued_at)s and (due_at is null) is false

-- name: given
-- As arrays, one element for each delivery.
pq_given as materialized (
  select * from unnest(
    %(ids)s::bigint[], %(attempts)s::int[], %(dequeued_at)s::timestamptz[],
    %(outcomes)s::text[], %(delays)s::float8[], %(errors)s::text[], %(results)s::text[]
  ) with ordinality as delivery (id, attempts, dequeued_at, outcome, delay, error, result, number)
)

-- name: is_given
job.id = given.id and job.attempts = given.attempts and job.dequeued_at = given.dequeued_at
    and (job.due_at is null) is false

-- name: change
-- A retry sets schedule_at, too, so that pq 1.9.1 waits as well.
update :table as job set
    dequeued_at = case given.outcome when 'done' then job.dequeued_at when 'dead' then statement_timestamp() end,
    due_at = statement_timestamp() + make_interval(secs => given.delay),
    schedule_at = coalesce(statement_timestamp() + make_interval(secs => given.delay), job.schedule_at),
    attempts = job.attempts - case given.outcome when 'released' then 1 else 0 end,
    expiries = case given.outcome when 'retry' then 0 when 'broken' then job.expiries + 1 else job.expiries end,
    error = case when given.outcome <> 'done' then coalesce(given.error, job.error) end,
    failed_at = case
      when given.outcome <> 'done'
      then coalesce(job.failed_at, case when given.error is not null then statement_timestamp() end)
    end,
    result = case given.outcome when 'done' then given.result::json else job.result end
  from pq_given as given
  where :is_given

-- name: settle
with :given, pq_changed as (
  :change
  returning job.tableoid, job.q_name, given.number, given.outcome
)
select number, case when outcome in ('retry', 'released', 'broken') then :wake end from pq_changed as changed

-- name: settle_and_remove
-- Where finished jobs are not kept.
with :given, pq_removed as (
  delete from :table as job using pq_given as given
  where :is_given and given.outcome = 'done'
  returning given.number
), pq_changed as (
  :change and given.outcome <> 'done'
  returning job.tableoid, job.q_name, given.number, given.outcome
)
select number, case when outcome in ('retry', 'released', 'broken') then :wake end from pq_changed as changed
union all
select number, null from pq_removed

-- name: free
-- It is still running this delivery, and no transaction is about to end it.
select id from :table where :held for no key update skip locked

-- name: failed_lately
-- Whether it failed for the first time less than an hour ago, or has not failed yet.
select id from :table where :held and coalesce(failed_at, statement_timestamp()) > statement_timestamp() - interval '1 hour'

-- name: extend
update :table set due_at = statement_timestamp() + make_interval(secs => %(lease)s)
where :held
returning id

-- name: extend_all
-- The heartbeat. Returns those of the deliveries, given in arrays, that are still held. A row that a transaction has
-- locked is passed over: nobody can claim it, and to wait for it would let the other leases expire. A lease that the
-- holder has extended for longer is not made shorter, unless it is exact.
with pq_given as (
  select * from unnest(
    %(ids)s::bigint[], %(attempts)s::int[], %(dequeued_at)s::timestamptz[], %(leases)s::float8[], %(exact)s::bool[]
  ) as delivery (id, attempts, dequeued_at, lease, exact)
), pq_held as (
  select job.id, given.lease, given.exact from :table as job join pq_given as given using (id, attempts, dequeued_at)
  where (due_at is null) is false
), pq_free as (
  select id from :table where id = any (array(select id from pq_held)) for update skip locked
), pq_extended as (
  update :table as job set due_at = greatest(
    statement_timestamp() + make_interval(secs => held.lease), case when not held.exact then job.due_at end
  )
  from pq_held as held join pq_given as given using (id)
  where job.id = held.id and job.id = any (array(select id from pq_free))
    and job.attempts = given.attempts and job.dequeued_at = given.dequeued_at and (job.due_at is null) is false
)
select id from pq_held

-- name: locked
-- Which of the deliveries are held in rows that somebody else has locked.
with pq_held as (
  select id from :table join
    unnest(%(ids)s::bigint[], %(attempts)s::int[], %(dequeued_at)s::timestamptz[])
    as delivery (id, attempts, dequeued_at) using (id, attempts, dequeued_at)
  where (due_at is null) is false
), pq_free as (
  select id from :table where id = any (array(select id from pq_held)) for update skip locked
)
select id from pq_held where id not in (select id from pq_free)

-- name: serves
-- Changes nothing, and fails where a settlement would: no connection, no right, a read-only session, a locked table.
update :table set due_at = due_at where false

-- name: progress
update :table set result = %(result)s
where :held
returning id

-- name: cancelled
-- Which of these jobs were: see control.sql.
select id from :table
where id = any (%(ids)s::bigint[]) and dequeued_at is not null and due_at is null and error is null
  and failed_at is not null
