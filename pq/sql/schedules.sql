-- The statements of schedules.

-- name: now
select statement_timestamp() at time zone 'utc'

-- name: info
-- As pq/_schedules/schedule.py reads it. Times are naive and in UTC.
name, q_name, rule, zone, missed, jitter, key, unique_key, unique_until = 'infinity', paused, declared,
  next_at at time zone 'utc', last_at at time zone 'utc', last_job, error, data::text

-- name: all
select :info from :schedules_table order by name collate "C"

-- name: one
select :info from :schedules_table where name = %(name)s

-- name: is_same
before.rule = excluded.rule and before.zone is not distinct from excluded.zone

-- name: write
-- A new rule has a time and an anchor of its own. Whoever paused it has a reason; but an error may be over now.
insert into :schedules_table as before
  (name, q_name, data, rule, zone, missed, jitter, key, unique_key, unique_until, declared, anchor, next_at)
values (
  %(name)s, %(queue)s, %(data)s, %(rule)s, %(zone)s, %(missed)s, %(jitter)s, %(key)s, %(unique)s,
  %(until)s, %(declared)s, %(anchor)s, %(next_at)s
)
on conflict (name) do update set
  q_name = excluded.q_name,
  data = excluded.data,
  rule = excluded.rule,
  zone = excluded.zone,
  missed = excluded.missed,
  jitter = excluded.jitter,
  key = excluded.key,
  unique_key = excluded.unique_key,
  unique_until = excluded.unique_until,
  declared = excluded.declared,
  anchor = case when :is_same then before.anchor else excluded.anchor end,
  next_at = case when :is_same then before.next_at else excluded.next_at end,
  paused = before.paused and before.error is null,
  error = null

-- name: undeclare
-- All that no task of these queues has, also those that were found before.
update :schedules_table set declared = false
where declared is not null and q_name = any(%(queues)s::text[]) and name <> all(%(names)s::text[])
returning name

-- name: remove
delete from :schedules_table where name = %(name)s
returning name

-- name: pause
update :schedules_table set paused = true, error = null where name = %(name)s
returning name

-- name: resume
update :schedules_table set paused = false, error = null where name = %(name)s
returning name

-- name: look
-- Those that come next, the late ones first.
select
  name, q_name, rule, zone, missed, jitter, unique_key is not null, anchor at time zone 'utc', next_at at time zone 'utc',
  statement_timestamp() at time zone 'utc'
from :schedules_table
where not paused and next_at is not null and name <> all(%(skipped)s::text[])
order by next_at
limit %(limit)s

-- name: is_due
-- Nobody else has fired, paused, changed or removed it meanwhile.
name = %(name)s and rule = %(rule)s and zone is not distinct from %(zone)s
  and next_at = %(was)s::timestamptz and not paused

-- name: is_over
-- A job whose window is over has its token no more.
schedule.name = %(name)s and job.q_name = schedule.q_name and job.unique_key = schedule.unique_key
  and job.unique_until > '-infinity' and job.unique_until <= statement_timestamp()

-- name: over
select from :schedules_table as schedule, :table as job where :is_over

-- name: release
update :table as job set unique_key = null from :schedules_table as schedule where :is_over

-- name: put_due
-- One job for each moment; an empty text: now.
pq_put as (
  insert into :table (q_name, data, schedule_at, key, unique_key, unique_until:headers_column)
  select due.q_name, due.data, nullif(moment, '')::timestamptz, due.key, due.unique_key, due.unique_until:headers_value
  from pq_due as due, unnest(%(times)s::text[]) as moment
  on conflict (q_name, unique_key) where unique_key is not null do nothing
  returning id
)

-- name: fire
-- Compare and set: of all who try, one finds the row as it was. Whoever comes meanwhile passes over it.
with pq_due as materialized (
  select name, q_name, data, key, unique_key, unique_until from :schedules_table where :is_due
  for update skip locked
), :put_due
update :schedules_table as schedule set
  next_at = %(following)s::timestamptz,
  last_at = coalesce(%(last)s::timestamptz, schedule.last_at),
  last_job = coalesce((select max(put.id) from pq_put as put), schedule.last_job),
  error = null
from pq_due as due
where schedule.name = due.name
returning schedule.name

-- name: fire_now
with pq_due as materialized (
  select name, q_name, data, key, unique_key, unique_until from :schedules_table where name = %(name)s
  for update
), :put_due, pq_noted as (
  update :schedules_table as schedule set last_at = statement_timestamp(), last_job = put.id
  from pq_due as due, pq_put as put
  where schedule.name = due.name
)
select (select count(*) from pq_due), (select put.id from pq_put as put)

-- name: note
-- Why it can't be fired. It may stay due, since another process may be able to.
with pq_due as materialized (
  select name from :schedules_table where :is_due
  for update skip locked
)
update :schedules_table as schedule set paused = %(stops)s, error = %(error)s
from pq_due as due
where schedule.name = due.name and (%(stops)s or schedule.error is distinct from %(error)s)
returning schedule.name
