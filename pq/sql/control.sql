-- Changes to jobs from outside. Each is one statement: it locks the rows, and changes those that still are in a state that
-- it is for. It does not wait for a row that another transaction has locked. It returns each row that was to be changed,
-- and whether it was.

-- name: free
pq_wanted as materialized (
  select id from :table where id = any (%(ids)s::bigint[]) and q_name = %(queue)s and :which
), pq_free as materialized (
  select id from :table where id = any (array(select wanted.id from pq_wanted as wanted)) and q_name = %(queue)s and :which
  for update skip locked
)

-- name: which
-- The jobs that may be changed: those that are ready, or scheduled. A job whose lease has expired is ready, too.
(dequeued_at is null or :is_due)

-- name: fits
-- In place of "which": besides, an index can hold the key and the token beside the name of the other queue.
((dequeued_at is null or :is_due) and :has_room)

-- name: has_room
coalesce(greatest(octet_length(key), octet_length(unique_key)), 0) <= %(room)s

-- name: given_back
-- Make the row ready as a claim does: whoever had it under a lease has lost it.
dequeued_at = null, expiries = expiries + case when dequeued_at is null then 0 else 1 end

-- name: unfinished
-- In place of "which".
(:is_finished) is not true and (:marker) is not true

-- name: removes
-- Whether the row is deleted: a dead job has been decided on. "is false" as in lease.sql.
((error is null) is false and dequeued_at is not null and due_at is null and not (:in_window))

-- name: does_remove
-- In place of "removes", where finished jobs are not kept. The row of a running job stays, to tell whoever runs it.
((dequeued_at is null or ((error is null) is false and due_at is null)) and not (:in_window))

-- name: cancel
-- Whoever runs the job loses it: the settlement finds the row neither due nor taken when it was. The time of a failure
-- without an error says that the job was cancelled; no other end leaves that.
with :free, pq_removed as (
  delete from :table where id = any (array(select free.id from pq_free as free)) and :removes
  returning id
), pq_changed as (
  update :table set
    dequeued_at = clock_timestamp(), due_at = null, error = null, failed_at = clock_timestamp(),
    finished_at = clock_timestamp()
  where id = any (array(select free.id from pq_free as free)) and not :removes
  returning id
), pq_done as (
  select removed.id from pq_removed as removed union all select changed.id from pq_changed as changed
)
select wanted.id, wanted.id in (select done.id from pq_done as done) from pq_wanted as wanted

-- name: reschedule
-- due_at is set here, too: the trigger would not, where it already is what schedule_at becomes. A job that is held behind
-- others of its key stays so, unless it gets a time.
with :free, pq_changed as (
  update :table set
    schedule_at = case when :stays_held then schedule_at when %(schedules)s then :new_schedule else schedule_at end,
    due_at = case
      when :stays_held then due_at when %(schedules)s then :new_schedule when dequeued_at is null then due_at
    end,
    expected_at = case when %(expects)s then :new_expected else expected_at end,
    :given_back
  where id = any (array(select free.id from pq_free as free))
  returning id, tableoid, q_name
), pq_done as (
  select changed.id, :wake from pq_changed as changed
)
select wanted.id, wanted.id in (select done.id from pq_done as done) from pq_wanted as wanted

-- name: stays_held
(:is_held and key is not null and waits_for is null and :new_schedule is null)

-- name: move
with :free, pq_changed as (
  update :table set q_name = %(target)s, due_at = case when dequeued_at is null then due_at end, :given_back
  where id = any (array(select free.id from pq_free as free))
  returning id, tableoid, q_name
), pq_done as (
  select changed.id, :wake from pq_changed as changed
)
select wanted.id, wanted.id in (select done.id from pq_done as done) from pq_wanted as wanted

-- name: longest
-- What a job that could not be moved has too much of.
select greatest(octet_length(key), octet_length(unique_key)) from :table
where id = any (%(ids)s::bigint[]) and q_name = %(queue)s and not :has_room

-- name: last
select coalesce(max(id), 0) from :table

-- name: chosen
-- The jobs that a person means, along the primary key, or the index of keys.
select id, case when %(has_error)s then error end from :table
where q_name = %(queue)s and id > %(after)s and id <= %(last)s and (:marker) is not true and :which and :of_key
  and (%(task)s::text is null or :task = %(task)s) and (error is not null or not %(has_error)s)
order by id
limit (select %(limit)s::bigint)

-- name: of_key
(key = %(key)s and :stand is not null)

-- name: any_key
(%(key)s::text is null or key = %(key)s)

-- name: listed
-- In place of "which".
(:state) = coalesce(%(state)s, :state) and ((:is_finished) is not true or %(state)s = 'finished')

-- name: pause
-- Two pauses at once may insert two markers, which are as good as one.
insert into :table (q_name, data, dequeued_at, due_at)
select %(queue)s, '"paused"', statement_timestamp(), '200000-01-01 00:00:00+00'
where not exists (select from :table where q_name = %(queue)s and :pause_marker)

-- name: resume
-- Notify even if nobody seems to wait: those who wait for a paused queue have left its gate.
with pq_changed as (
  delete from :table where q_name = %(queue)s and :pause_marker
  returning tableoid, q_name
)
select pg_notify('pq_' || to_hex(gate.key), '') from pq_changed as changed, lateral (:gate) as gate

-- name: paused
select exists (select from :table where q_name = %(queue)s and :pause_marker)
