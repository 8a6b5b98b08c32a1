-- How deliveries under a lease end, and what their holders write. Each statement takes effect only where the row is still
-- running that delivery, and returns the rows where it did. "attempts" alone would not tell two deliveries apart: a
-- release takes one back.
--
-- All of these must go by the primary key, whatever the planner believes of the table. Three things see to that.
-- "(due_at is null) is false" means "due_at is not null", but does not make the planner think of the index of due rows,
-- which it may take for short. "id = any (array[…])" means "id = …", but rules out a merge join and a hash join, for
-- which a table that was vacuumed while it was empty would be read as a whole. And the planner is led to expect a single
-- delivery, so that to look it up seems cheaper than to read the table.

-- name: is_one_of_claim
-- In place of "is_its_row", for deliveries of one claim, which have one time. Of the inner query's array the planner expects
-- ten elements, however long it is.
id = any (array(select unnest(%(ids)s::bigint[])))

-- name: given
-- One element of each array for each delivery; an empty text is a null. Both conditions are always true; the planner
-- expects one row in 200 to satisfy each.
pq_given as materialized (
  select delivery.id, delivery.attempts, delivery.dequeued_at, delivery.outcome, nullif(delivery.delay, '')::float8 as delay,
    nullif(delivery.error, '') as error, nullif(delivery.result, '') as result, delivery.number
  from unnest(
    %(ids)s::bigint[], %(attempts)s::int[], %(dequeued_at)s::timestamptz[],
    %(outcomes)s::text[], %(delays)s::text[], %(errors)s::text[], %(results)s::text[]
  ) with ordinality as delivery (id, attempts, dequeued_at, outcome, delay, error, result, number)
  where delivery.number = abs(delivery.number) and delivery.number = delivery.number + 0
)

-- name: given_deliveries
pq_given as materialized (
  select delivery.* from unnest(%(ids)s::bigint[], %(attempts)s::int[], %(dequeued_at)s::timestamptz[])
    with ordinality as delivery (id, attempts, dequeued_at, number)
  where delivery.number = abs(delivery.number) and delivery.number = delivery.number + 0
)

-- name: given_leases
-- What the heartbeat gives.
pq_given as materialized (
  select delivery.* from unnest(
    %(ids)s::bigint[], %(attempts)s::int[], %(dequeued_at)s::timestamptz[], %(leases)s::float8[], %(exact)s::bool[]
  ) with ordinality as delivery (id, attempts, dequeued_at, lease, exact, number)
  where delivery.number = abs(delivery.number) and delivery.number = delivery.number + 0
)

-- name: is_given
job.id = any (array[given.id]) and job.attempts = given.attempts and job.dequeued_at = given.dequeued_at
    and (job.due_at is null) is false

-- name: change
-- A retry sets schedule_at, too, so that pq 1.9.1 waits as well.
update :table as job set
    dequeued_at = case given.outcome when 'done' then job.dequeued_at when 'dead' then statement_timestamp() end,
    finished_at = case when given.outcome in ('done', 'dead') then statement_timestamp() end,
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

-- name: done
-- Deliveries that are done, with one result: a third of the work of "settle".
:ends

-- name: done_and_remove
:removes_ended

-- name: settle
with :given, pq_changed as (
  :change
  returning job.tableoid, job.q_name, given.number, given.outcome :no_key
) :no_states
select changed.number, case when changed.outcome in ('retry', 'released', 'broken') then :wake end from pq_changed as changed

-- name: settle_and_remove
-- Where finished jobs are not kept.
with :given, pq_removed as (
  delete from :table as job using pq_given as given
  where :is_given and given.outcome = 'done' and not (:stays)
  returning given.number :no_key
), pq_changed as (
  :change and (given.outcome <> 'done' or :stays)
  returning job.tableoid, job.q_name, given.number, given.outcome :no_key
) :no_states
select changed.number, case when changed.outcome in ('retry', 'released', 'broken') then :wake end from pq_changed as changed
union all
select removed.number, null from pq_removed as removed

-- name: no_key
-- In place of "with_key", where no delivery has changed the state of its key.

-- name: with_key
, job.id, job.q_name as queue, job.key

-- name: no_states
-- In place of "states".

-- name: states
-- Keep the states of those keys whose jobs were settled indeed. One of them for each key, in one order for all.
, pq_states as (
  insert into :states_table (q_name, key, state, job)
  select distinct on (ended.queue, ended.key) ended.queue, ended.key, given.state::json, ended.id
  from (:ended) as ended join unnest(%(states)s::text[]) with ordinality as given (state, number) using (number)
  where given.state <> '' and ended.key is not null
  order by ended.queue, ended.key, ended.number desc
  on conflict (q_name, key) do update
  set state = excluded.state, changed_at = excluded.changed_at, job = excluded.job
)

-- name: ended
:kept_rows

-- name: kept_rows
select changed.number, changed.id, changed.queue, changed.key from pq_changed as changed

-- name: ended_or_removed
-- In place of "ended", where finished jobs are not kept.
:kept_rows
union all
select removed.number, removed.id, removed.queue, removed.key from pq_removed as removed

-- name: key_state
-- The state of the job's key; and whether jobs of one key may run at the same time, and would write over each other's.
select
  (select states.state::text from :states_table as states where states.q_name = job.q_name and states.key = job.key),
  coalesce(
    (select per_key from :limits_table as limits where limits.name = job.q_name and limits.queues is null) > 1, false
  )
from :table as job where :held

-- name: free
-- Return the job if it is still running this delivery and no other transaction is about to end it.
select id from :table where :held for no key update skip locked

-- name: failed_lately
-- Whether it failed for the first time less than an hour ago, or has not failed yet.
select id from :table where :held and coalesce(failed_at, statement_timestamp()) > statement_timestamp() - interval '1 hour'

-- name: extend
update :table set due_at = statement_timestamp() + make_interval(secs => %(lease)s)
where :held
returning id

-- name: extend_all
-- The heartbeat: extend the leases of those deliveries that are still held, and return these. A row that another
-- transaction has locked is passed over: nobody can claim it, and to wait for it would let the other leases expire. A
-- lease that the holder has extended for longer is not made shorter, unless it is exact.
with :given_leases, pq_held as materialized (
  select job.id from pq_given as given join :table as job on :is_given
), pq_free as materialized (
  select job.id, given.lease, given.exact from pq_given as given join :table as job on :is_given
  for update of job skip locked
), pq_extended as (
  update :table as job set due_at = greatest(
    statement_timestamp() + make_interval(secs => free.lease), case when not free.exact then job.due_at end
  )
  from pq_free as free
  where job.id = any (array[free.id])
)
select held.id from pq_held as held

-- name: locked
-- Return those of the deliveries that are held in rows which another transaction has locked.
with :given_deliveries, pq_held as materialized (
  select job.id from pq_given as given join :table as job on :is_given
), pq_free as materialized (
  select job.id from pq_given as given join :table as job on :is_given
  for update of job skip locked
)
select held.id from pq_held as held where held.id not in (select free.id from pq_free as free)

-- name: serves
-- Changes nothing, and fails where a settlement would: no connection, no right, a read-only session, a locked table.
update :table set due_at = due_at where false

-- name: progress
update :table set result = %(result)s
where :held
returning id

-- name: steps
select steps::text from :table where :held

-- name: add_step
-- Only the one that is new: what this delivery has kept before may have been rolled back.
update :table set steps = (coalesce(left(nullif(steps::text, '{}'), -1) || ', ', '{') || %(entry)s || '}')::json
where :held
returning id

-- name: write
update :table set data = %(data)s
where :held
returning id

-- name: write_ended
-- Replace the data for a holder that has ended the job itself, while nobody has made it ready again.
update :table set data = %(data)s
where id = %(id)s and attempts = %(attempts)s and dequeued_at >= %(dequeued_at)s and due_at is null
returning id

-- name: cancelled
-- Return those of the jobs that were cancelled; see control.sql.
select id from :table
where id = any (%(ids)s::bigint[]) and :is_finished and failed_at is not null
