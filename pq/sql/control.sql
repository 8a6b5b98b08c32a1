-- Changes to jobs that nobody asked get() for. Each is one statement, in which a row is changed only if it still is what
-- it was to be when it was locked; one that another transaction has locked is not waited for. Each row that was, or
-- seemed, to be changed is returned, with whether it was.

-- name: free
pq_wanted as materialized (
  select id from :table where id = any (%(ids)s::bigint[]) and q_name = %(queue)s and :which
), pq_free as materialized (
  select id from :table where id = any (array(select id from pq_wanted)) and q_name = %(queue)s and :which
  for update skip locked
)

-- name: which
-- Whether nobody has it: ready or scheduled. One whose lease has expired is ready, too.
(dequeued_at is null or due_at <= statement_timestamp())

-- name: given_back
-- As a claim makes ready what was leased: whoever had it is fenced out.
dequeued_at = null, expiries = expiries + case when dequeued_at is null then 0 else 1 end

-- name: unfinished
-- In place of "which".
(dequeued_at is null or due_at is not null or error is not null) and (:marker) is not true

-- name: removes
-- Whether there is nothing to be kept.
(error is not null and dequeued_at is not null and due_at is null)

-- name: does_remove
-- In place of "removes", where finished jobs are not kept. The row of a running one tells whoever runs it.
(dequeued_at is null or (error is not null and due_at is null))

-- name: cancel
-- A job that runs is fenced out by that: its settlement finds it neither due nor taken when it was. The time of a failure
-- without its error says that it was cancelled; no other end leaves that.
with :free, pq_removed as (
  delete from :table where id = any (array(select id from pq_free)) and :removes
  returning id
), pq_changed as (
  update :table set
    dequeued_at = clock_timestamp(), due_at = null, error = null, failed_at = clock_timestamp()
  where id = any (array(select id from pq_free)) and not :removes
  returning id
), pq_done as (
  select id from pq_removed union all select id from pq_changed
)
select id, id in (select id from pq_done) from pq_wanted

-- name: reschedule
-- due_at is set here, too: the trigger would not, where it happens to be what schedule_at becomes.
with :free, pq_changed as (
  update :table set
    schedule_at = case when %(schedules)s then :new_schedule else schedule_at end,
    due_at = case when %(schedules)s then :new_schedule when dequeued_at is null then due_at end,
    expected_at = case when %(expects)s then :new_expected else expected_at end,
    :given_back
  where id = any (array(select id from pq_free))
  returning id, tableoid, q_name
), pq_done as (
  select id, :wake from pq_changed as changed
)
select id, id in (select id from pq_done) from pq_wanted

-- name: move
with :free, pq_changed as (
  update :table set q_name = %(target)s, due_at = case when dequeued_at is null then due_at end, :given_back
  where id = any (array(select id from pq_free))
  returning id, tableoid, q_name
), pq_done as (
  select id, :wake from pq_changed as changed
)
select id, id in (select id from pq_done) from pq_wanted

-- name: pause
-- Two at once may make two markers, which are as good as one.
insert into :table (q_name, data, dequeued_at, due_at)
select %(queue)s, '"paused"', statement_timestamp(), '200000-01-01 00:00:00+00'
where not exists (select from :table where q_name = %(queue)s and :marker)

-- name: resume
-- Notify even if nobody seems to wait: who waits for a paused queue has left its gate.
with pq_changed as (
  delete from :table where q_name = %(queue)s and :marker
  returning tableoid, q_name
)
select pg_notify('pq_' || to_hex(gate.key), '') from pq_changed as changed, lateral (:gate) as gate

-- name: paused
select exists (select from :table where q_name = %(queue)s and :marker)
