-- The statements of a queue. A row is ready when dequeued_at and due_at are null, and due when due_at has passed.
-- statement_timestamp() and not now(): inside a long transaction now() stands still, and what became due meanwhile
-- would never be seen.

-- name: columns
-- A job as get() returns it: data as text for the codec; times as naive UTC, clamped to what Python can hold.
id, data::text, length(data::text),
  least(greatest(enqueued_at, '0001-01-01 00:00:00+00'), '9999-12-31 23:59:59.999999+00') at time zone 'utc',
  case when schedule_at is not null then
    least(greatest(schedule_at, '0001-01-01 00:00:00+00'), '9999-12-31 23:59:59.999999+00') at time zone 'utc'
  end,
  case when expected_at is not null then
    least(greatest(expected_at, '0001-01-01 00:00:00+00'), '9999-12-31 23:59:59.999999+00') at time zone 'utc'
  end,
  dequeued_at

-- name: put
-- The trigger of the table sets due_at and wakes whoever waits.
insert into :table (q_name, data, schedule_at, expected_at)
values (
  %(queue)s, %(data)s,
  coalesce(%(schedule_at)s::timestamptz, statement_timestamp() + %(schedule_in)s::interval),
  coalesce(%(expected_at)s::timestamptz, statement_timestamp() + %(expected_in)s::interval)
)
returning id

-- name: claim
-- Take the best job, and make the other due rows ready; for a short transaction of pq's own, since it locks all of
-- these. The order by clauses repeat the whole index keys: else the planner walks the primary key through all rows.
with due as materialized (
  select id, expected_at from :table
  where q_name = %(queue)s and due_at <= statement_timestamp()
  order by q_name, due_at
  limit 1000
  for update skip locked
), head as materialized (
  select id, expected_at from :table
  where q_name = %(queue)s and dequeued_at is null and due_at is null
  order by q_name, expected_at, id
  limit 1
  for update skip locked
), best as materialized (
  select id from (select * from due union all select * from head) as candidates
  order by expected_at, id
  limit 1
), promoted as (
  update :table set due_at = null, dequeued_at = null
  where id in (select id from due except select id from best)
), taken as (
  update :table set dequeued_at = statement_timestamp(), due_at = null
  where id = any (array(select id from best))
  returning *
)
select :columns from taken

-- name: claim_in_transaction
-- The same for a transaction that stays open: it locks the row that it takes and no other, else it would hide jobs
-- that it did not take. The subquery is read in order and only as far as the first row that is not locked.
with best as materialized (
  select job.id
  from (
    (
      select id, expected_at from :table
      where q_name = %(queue)s and dequeued_at is null and due_at is null
      order by q_name, expected_at, id
    )
    union all
    (
      select id, expected_at from (
        select id, expected_at from :table
        where q_name = %(queue)s and due_at <= statement_timestamp()
        order by q_name, due_at
        limit 100
      ) as due
    )
    order by expected_at, id
  ) as candidates
  join :table as job on job.id = candidates.id
  where job.q_name = %(queue)s
    and (job.due_at <= statement_timestamp() or (job.due_at is null and job.dequeued_at is null))
  order by candidates.expected_at, candidates.id
  limit 1
  for update of job skip locked
), taken as (
  update :table set dequeued_at = statement_timestamp(), due_at = null
  where id = any (array(select id from best))
  returning *
)
select :columns from taken

-- name: give_back
-- Undo a claim whose data could not be decoded; only if it is still that claim.
update :table set dequeued_at = null where id = %(id)s and dequeued_at = %(dequeued_at)s

-- name: update
update :table set data = %(data)s where id = %(id)s and q_name = %(queue)s
returning length(data::text)

-- name: count
select (
  select count(*) from :table where q_name = %(queue)s and dequeued_at is null and due_at is null
) + (
  select count(*) from :table where q_name = %(queue)s and due_at <= statement_timestamp()
)

-- name: clear
delete from :table where q_name = %(queue)s

-- name: names
select distinct q_name from :table order by q_name

-- name: has_rows
select exists (select from :table where q_name = %(queue)s)
