-- The statements of a queue. A row is ready when dequeued_at and due_at are null, and due when due_at has passed.
-- statement_timestamp() and not now(): inside a long transaction now() stands still, and what became due meanwhile
-- would never be seen.

-- name: put
-- The trigger of the table wakes whoever waits.
insert into :table (q_name, data) values (%(queue)s, %(data)s)
returning id

-- name: put_timed
-- Another trigger sets due_at.
insert into :table (q_name, data, schedule_at, expected_at)
values (%(queue)s, %(data)s, :new_schedule, :new_expected)
returning id

-- name: put_untimed
-- The same for an array of jobs without times; the ids are in its order.
insert into :table (q_name, data)
select %(queue)s, data::json from unnest(%(data)s::text[]) as data
returning id

-- name: put_many
-- The same with times: arrays of one length, or empty.
insert into :table (q_name, data, schedule_at, expected_at)
select
  %(queue)s, data::json,
  coalesce(schedule_at, (statement_timestamp() at time zone 'utc' + schedule_in) at time zone 'utc'),
  coalesce(expected_at, (statement_timestamp() at time zone 'utc' + expected_in) at time zone 'utc')
from unnest(
  %(data)s::text[], %(schedule_at)s::timestamptz[], %(schedule_in)s::interval[],
  %(expected_at)s::timestamptz[], %(expected_in)s::interval[]
) as item (data, schedule_at, schedule_in, expected_at, expected_in)
returning id

-- name: load
copy :table (q_name, data, schedule_at, expected_at) from stdin

-- name: now
select clock_timestamp() at time zone 'utc'

-- name: give_back
-- Undo a claim of a job that nobody has seen; only if it is still that claim.
update :table set dequeued_at = null where id = %(id)s and dequeued_at = %(dequeued_at)s::timestamp at time zone 'utc'

-- name: put_back
-- Undo one that has deleted it.
insert into :table (id, q_name, data, enqueued_at, schedule_at, expected_at, attempts)
values (
  %(id)s, %(queue)s, %(text)s, %(enqueued_at)s::timestamp at time zone 'utc',
  %(schedule_at)s::timestamp at time zone 'utc', %(expected_at)s::timestamp at time zone 'utc', %(attempts)s
)
on conflict do nothing

-- name: update
update :table set data = %(data)s where id = %(id)s and q_name = %(queue)s
returning length(data::text)

-- name: count
select (
  select count(*) from :table where :ready
) + (
  select count(*) from :table where :due
)

-- name: clear
-- A queue that is paused stays so.
delete from :table where q_name = %(queue)s and (:marker) is not true

-- name: names
with recursive :names_found
select q_name from pq_names order by q_name

-- name: queues
-- The counts read what they count, within the indexes but for how long the ready jobs are. Times are clamped to what
-- Python can hold, here before min(), since greatest() of null and a time is that time.
with recursive :names_found
select
  names.q_name, ready.count + due.count, scheduled.count, running.count, dead.count,
  least(ready.since, due.since) at time zone 'utc',
  (
    select least(due_at, '9999-12-31 23:59:59.999999+00') at time zone 'utc' from :table as job
    where job.q_name = names.q_name and due_at > statement_timestamp() and dequeued_at is null
    order by job.q_name, due_at
    limit 1
  ),
  exists (select from :table as job where job.q_name = names.q_name and :marker)
from pq_names as names,
  lateral (
    select
      count(*),
      min(
        least(greatest(enqueued_at, schedule_at, '0001-01-01 00:00:00+00'), '9999-12-31 23:59:59.999999+00')
      ) as since
    from :table as job
    where job.q_name = names.q_name and dequeued_at is null and due_at is null
  ) as ready,
  lateral (
    select count(*), min(greatest(due_at, '0001-01-01 00:00:00+00')) as since from :table as job
    where job.q_name = names.q_name and due_at <= statement_timestamp()
  ) as due,
  lateral (
    select count(*) from :table as job
    where job.q_name = names.q_name and due_at > statement_timestamp() and dequeued_at is null
  ) as scheduled,
  lateral (
    select count(*) from :table as job
    where job.q_name = names.q_name and due_at > statement_timestamp() and dequeued_at is not null
      and (:marker) is not true
  ) as running,
  lateral (
    select count(*) from :table as job
    where job.q_name = names.q_name and error is not null and dequeued_at is not null and due_at is null
  ) as dead
order by names.q_name

-- name: names_found
-- From one name to the next, in each of the three indexes: finished rows are in none. "order by" repeats the whole key,
-- as in claim.sql.
pq_ready as (
  (select q_name from :table where :in_ready order by q_name, expected_at, id limit 1)
  union all
  select (
    select q_name from :table where :in_ready and q_name > pq_ready.q_name order by q_name, expected_at, id limit 1
  ) from pq_ready where q_name is not null
), pq_due as (
  (select q_name from :table where :in_due order by q_name, due_at limit 1)
  union all
  select (
    select q_name from :table where :in_due and q_name > pq_due.q_name order by q_name, due_at limit 1
  ) from pq_due where q_name is not null
), pq_dead as (
  (select q_name from :table where :in_dead order by q_name, dequeued_at, id limit 1)
  union all
  select (
    select q_name from :table where :in_dead and q_name > pq_dead.q_name order by q_name, dequeued_at, id limit 1
  ) from pq_dead where q_name is not null
), pq_names as materialized (
  select q_name from (
    select q_name from pq_ready union select q_name from pq_due union select q_name from pq_dead
  ) as found
  where q_name is not null
)

-- name: has_jobs
-- In this form no plan but a look into each index seems cheap.
select coalesce(
  (select id from :table where q_name = %(queue)s and :in_ready order by q_name, expected_at, id limit 1),
  (select id from :table where q_name = %(queue)s and :in_due order by q_name, due_at limit 1),
  (select id from :table where q_name = %(queue)s and :in_dead order by q_name, dequeued_at, id limit 1)
) is not null

-- name: in_ready
dequeued_at is null and due_at is null

-- name: in_due
due_at is not null

-- name: in_dead
error is not null and dequeued_at is not null and due_at is null

-- name: result
select result::text from :table where id = %(id)s and q_name = %(queue)s
