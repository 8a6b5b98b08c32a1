-- Fragments that the statements of all files can name.

-- name: is_ready
-- The states of a row; docs/explanation/design.rst has them in a table. A row that is due counts as ready, too. What is
-- after "is" names columns alone, so that it holds in any statement, of one queue or of all.
dequeued_at is null and due_at is null

-- name: is_due
-- statement_timestamp() and not now(): inside a long transaction now() stands still, and what became due meanwhile would
-- never be seen.
due_at <= statement_timestamp()

-- name: is_scheduled
due_at > statement_timestamp() and due_at < 'infinity' and dequeued_at is null

-- name: is_held
due_at = 'infinity' and dequeued_at is null

-- name: is_due_later
-- Scheduled, or running. Held jobs and markers are due later still.
due_at > statement_timestamp() and due_at < '200000-01-01 00:00:00+00'

-- name: is_running
-- The upper bound says that the row is in the index of running rows.
:is_due_later and dequeued_at is not null

-- name: has_lease
-- In the index of running rows, with those whose lease has expired.
due_at < '200000-01-01 00:00:00+00' and dequeued_at is not null

-- name: is_dead
error is not null and dequeued_at is not null and due_at is null

-- name: is_finished
dequeued_at is not null and due_at is null and error is null

-- name: is_done
-- Finished, and not cancelled.
:is_finished and failed_at is null

-- name: state
case
  when (:is_ready) or :is_due then 'ready'
  when :is_scheduled then 'scheduled'
  when :is_held then 'held'
  when :is_dead then 'dead'
  when :is_finished then 'finished'
  else 'running'
end

-- name: marker
-- Not a job: a row that says that its queue is paused, or limited. It is taken, so that nobody takes it, pq 1.9.1
-- included; and due in a year to which no time of Python's reaches, so that it stands behind all jobs in the index.
due_at between '200000-01-01 00:00:00+00' and '200000-01-02 00:00:00+00' and dequeued_at is not null

-- name: pause_marker
due_at = '200000-01-01 00:00:00+00' and dequeued_at is not null

-- name: stand
-- Where a row with a key stands, as the index of keys has it: in line (0), held (1), dead (2), scheduled, or waiting for
-- those that it follows (3). What began stays in line while it waits for its retry; and so does what is to be tried again
-- in a moment as if it had not begun (is_alone is false).
(case
  when dequeued_at is null then case
    when due_at = 'infinity' and waits_for is null then 1 when due_at is null or attempts > 0 or is_alone is false then 0 else 3
  end
  when due_at is not null then 0
  when error is not null then 2
end)

-- name: limit_marker
-- A limit of the queue says how many jobs may run at a time, or begin in a period; see claim.sql.
due_at = '200000-01-02 00:00:00+00' and dequeued_at is not null

-- name: is_free
-- A place is free unless its job runs in the delivery that took it: so it can't be lost, however that delivery ends. A
-- token is free a period after it was taken.
case slot.kind
  when 'rate' then slot.taken_at is null or slot.taken_at + limits.period <= clock_timestamp()
  else not exists (
    select from :table as job
    where job.id = any (array[slot.job]) and job.dequeued_at = slot.taken_at
      and (job.due_at <= statement_timestamp()) is false
  ) and not :is_kept
end

-- name: is_kept
-- See claim.sql.
false

-- name: is_limit_of
-- Whether it is a limit of the queue: its own, or one that it shares.
((limits.queues is null and limits.name = %(queue)s) or %(queue)s = any (limits.queues))

-- name: limits_and_slots
-- Each limit with its places, and with its tokens, for statements that group these by limit and kind.
:limits_table as limits
  cross join lateral (values ('running', limits.running), ('rate', limits.rate)) as kind (kind, most)
  cross join lateral (
    select slot.job, slot.taken_at, :is_free as is_free from :slots_table as slot
    where slot.name = limits.name and slot.kind = kind.kind
  ) as pq_slot

-- name: free_in
-- The seconds until the first of the tokens is free.
extract(epoch from min(pq_slot.taken_at) + limits.period - clock_timestamp())::float8

-- name: free_slots
-- The free places, or tokens, of a limit, in the order of their index. Why it has a limit is told in claim.sql.
select slot.* from :slots_table as slot
where slot.name = limits.name and slot.kind = limits.kind and :is_free
order by slot.name, slot.kind, slot.n
limit (select null::bigint)

-- name: is_seen
-- Locks the place, if it still is the one that was seen. Whether it is free is told by the statement's snapshot, also where
-- the server asks again, since another claim has just changed the row: and that claim's job is not in the snapshot.
exists (
  select from :slots_table as place
  where place.name = slot.name and place.kind = slot.kind and place.n = slot.n
    and place.job is not distinct from slot.job and place.taken_at is not distinct from slot.taken_at
  for update skip locked
)

-- name: in_window
-- Whether the row has a token for some time yet, whatever becomes of the job: it is not to be deleted. For those that have
-- not begun, and for finished ones.
(unique_until > statement_timestamp() and unique_until < 'infinity') is true

-- name: ends
-- See lease.sql.
update :table set finished_at = statement_timestamp(), due_at = null, error = null, failed_at = null, result = %(result)s
where :held
returning id

-- name: removes_ended
-- In place of "ends", where finished jobs are not kept.
delete from :table where :held and not (:stays)
returning id

-- name: held
:is_its_row and attempts = %(attempts)s and dequeued_at = %(dequeued_at)s and (due_at is null) is false

-- name: is_its_row
id = %(id)s

-- name: stays
-- Whether a finished row has to be kept for a while: for its token, or since another job follows it, to which a row that is
-- deleted before it has ended has failed.
:in_window or follower is not null

-- name: ready
q_name = %(queue)s and :is_ready

-- name: due
q_name = %(queue)s and :is_due

-- name: room
-- Whether the queue has at most so many ready jobs, as this transaction sees it. No more of them are counted than it takes
-- to tell, and that in the indexes. Why "order by" and the limits look like this is told in claim.sql.
%(room)s >= (
  select count(*) from (
    select 1 from (
      select from :table where :ready
      order by q_name, expected_at, id
      limit (select %(room)s::bigint + 1)
    ) as ready
    union all
    select 1 from (
      select from :table where :due
      order by q_name, due_at
      limit (select %(room)s::bigint + 1)
    ) as due
  ) as counted
)

-- name: new_schedule
-- A time as a person has given it. A relative one goes by way of UTC: else a day would last 23 or 25 hours when the
-- clocks of the session's time zone change.
coalesce(
  %(schedule_at)s::timestamptz,
  (statement_timestamp() at time zone 'utc' + %(schedule_in)s::interval) at time zone 'utc'
)

-- name: new_expected
coalesce(
  %(expected_at)s::timestamptz,
  (statement_timestamp() at time zone 'utc' + %(expected_in)s::interval) at time zone 'utc'
)

-- name: headers_column
-- What a put says of the headers of its jobs, where it has none.

-- name: headers_value

-- name: headers_column_given
-- In place of "headers_column", along with "headers_value_given".
, headers

-- name: headers_value_given
, %(headers)s::json

-- name: headers_value_of_event
-- In place of "headers_value": those of the event of which a job is made, unless they are too long. Which ones are no text,
-- whoever reads them leaves out.
, case when json_typeof(item.data::json #> '{args,0,headers}') = 'object'
  and octet_length(item.data::json #>> '{args,0,headers}') <= 16384 then item.data::json #> '{args,0,headers}' end

-- name: columns
-- What else is told of deliveries under a lease stands last.
:job_columns,
  attempts, expiries

-- name: job_columns
-- A job as pq/_jobs/row.py reads it, which has to be changed along with this. Data is text, for the codec. Times are
-- naive and in UTC, which drivers can read whatever the session's DateStyle, and clamped to what Python can hold.
id, :data_text,
  least(greatest(enqueued_at, :first_time), :last_time) at time zone 'utc',
  case when schedule_at is not null then
    least(greatest(schedule_at, :first_time), :last_time) at time zone 'utc'
  end,
  case when expected_at is not null then
    least(greatest(expected_at, :first_time), :last_time) at time zone 'utc'
  end,
  case when dequeued_at is not null then
    least(greatest(dequeued_at, :first_time), :last_time) at time zone 'utc'
  end,
  key

-- name: first_time
-- The first and the last time that Python can hold.
'0001-01-01 00:00:00+00'

-- name: last_time
'9999-12-31 23:59:59.999999+00'

-- name: data_text
data::text

-- name: failure
-- What stands behind the columns where the error is wanted, too.
error,
  case when failed_at is not null then
    least(greatest(failed_at, :first_time), :last_time) at time zone 'utc'
  end

-- name: row
-- The columns of the table that "columns" and "failure" read, for a query around another one. It is not "*": a table may
-- have columns of the user's, of any name.
id, data, enqueued_at, schedule_at, expected_at, dequeued_at, attempts, expiries, key, error, failed_at, due_at, waits_for, on_failed,
finished_at, worker, headers

-- name: is_gate
-- Whether a lock, of pg_locks as `locks`, is that of a session which waits at a gate; see waiting.sql.
locks.locktype = 'advisory' and locks.objsubid = 1 and locks.granted and locks.mode = 'ShareLock'
  and locks.database = (select oid from pg_database where datname = current_database())

-- name: gate_of_lock
-- The key of that gate.
(locks.classid::bigint << 32) | locks.objid::bigint

-- name: gate
-- The key of the gate of the queue `changed.q_name` in the table `changed.tableoid`. It must be the key that the notify
-- trigger computes, in whatever session: so quote_all_identifiers, which would have format() put quotes around all names, is
-- off for that moment (arguments are evaluated from left to right); and the hash is of the bytes, not of what the
-- collation of the column makes of them.
select hashtextextended(
  (
    case when current_setting('quote_all_identifiers')::boolean
    then left(set_config('quote_all_identifiers', 'off', true), 0)
      || format('%%I.%%I', nspname, relname)
      || left(set_config('quote_all_identifiers', 'on', true), 0)
    else format('%%I.%%I', nspname, relname)
    end || ' ' || changed.q_name
  ) collate "C", 0
) as key
from pg_class join pg_namespace on pg_namespace.oid = relnamespace
where pg_class.oid = changed.tableoid

-- name: wake
-- For rows that are ready again: notify whoever waits, as the trigger does for those that are put. Why after the update,
-- and why in one expression, is told there. :changed is what the update returns.
(
  select pg_notify('pq_' || to_hex(gate.key), '')
  from (:gate) as gate
  where case when pg_try_advisory_lock(gate.key) then not pg_advisory_unlock(gate.key) else true end
)

-- name: names_found
-- Go from one name to the next in each of the three indexes; finished rows are in none. "order by" repeats the whole key,
-- as in claim.sql.
pq_ready as (
  (select q_name from :table where :is_ready order by q_name, expected_at, id limit 1)
  union all
  select (
    select job.q_name from :table as job where :is_ready and job.q_name > before.q_name
    order by job.q_name, expected_at, id limit 1
  ) from pq_ready as before where before.q_name is not null
), pq_due as (
  (select q_name from :table where :in_due order by q_name, due_at limit 1)
  union all
  select (
    select job.q_name from :table as job where :in_due and job.q_name > before.q_name
    order by job.q_name, due_at limit 1
  ) from pq_due as before where before.q_name is not null
), :dead_found, pq_names as materialized (
  select found.q_name from (
    select ready.q_name from pq_ready as ready
    union select due.q_name from pq_due as due
    union select dead.q_name from pq_dead as dead
  ) as found
  where found.q_name is not null
)

-- name: dead_found
-- The same in the index of dead rows.
pq_dead as (
  (select q_name from :table where :is_dead order by q_name, dequeued_at, id limit 1)
  union all
  select (
    select job.q_name from :table as job where :is_dead and job.q_name > before.q_name
    order by job.q_name, dequeued_at, id limit 1
  ) from pq_dead as before where before.q_name is not null
)

-- name: in_due
-- In the index of due rows, and not the marker of a limit.
due_at is not null and due_at <> '200000-01-02 00:00:00+00'

-- name: task
-- The task that a job calls, as pq writes it: the first member of an object. Not by ->>, which reads all of the data, and
-- fails at what JSON allows and a text can't hold. What is escaped in the name stays so.
case when left(data::text, 11) = '{"function"' then split_part(left(data::text, 300), '"', 4) end
