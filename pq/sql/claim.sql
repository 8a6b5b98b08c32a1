-- The statements that take a job. They must be planned well without statistics, too: a queue that has grown since the
-- last ANALYZE is believed to be nearly empty, and then a sort of all its rows seems cheap. So each "order by" repeats the
-- whole key of an index, and where more than one row is wanted the limit is a subquery: the planner then expects to need a
-- tenth of the rows, whatever their number, and reads the index in order. "limit (select null)" is no limit but for that.
-- Rows are joined by "= any (array(...))" and by "exists (... for update)", which leave no choice but the primary key.
-- Planning takes longer than execution: that is why there are several, from the usual, short one to the complete one.

-- name: taken
-- By the clock: a statement that was held up can take what became ready after it had come in.
dequeued_at = clock_timestamp(), due_at = null

-- name: leased
-- In place of "taken": when it will be due again, and one more delivery.
dequeued_at = clock_timestamp(), due_at = clock_timestamp() + make_interval(secs => %(lease)s),
  attempts = attempts + 1

-- name: claim_ready
-- The common case: no row is due, so that the first ready one is the best. Returns nothing if there is a due row.
update :table set :taken
where id = (
  select id from :table
  where :ready and :first_due is null
  order by q_name, expected_at, id
  limit 1
  for update skip locked
)
returning :columns

-- name: claim_above
-- The same among the ids above the low-water mark. Returns nothing if there is a row with an expected_at, either.
update :table set :taken
where id = (
  select id from :table
  where :ready and expected_at is null and id > %(mark)s and :first_due is null and (
    select id from :table
    where :ready and expected_at is not null
    order by q_name, expected_at, id
    limit 1
  ) is null
  order by q_name, expected_at, id
  limit 1
  for update skip locked
)
returning :columns

-- name: claim
-- Take the best job, and make the other due rows ready; for a short transaction of pq's own, since it locks all of
-- these.
with due as materialized (
  select id, expected_at from :table
  where :due
  order by q_name, due_at
  limit (select 1000)
  for update skip locked
), head as materialized (
  select id, expected_at from :table
  where :ready
  order by q_name, expected_at, id
  limit 1
  for update skip locked
), best as materialized (
  select id from (select * from due union all select * from head) as candidates
  order by expected_at, id
  limit 1
), promoted as (
  update :table set due_at = null, dequeued_at = null
  where id = any (array(select id from due except select id from best))
), taken as (
  update :table set :taken
  where id = any (array(select id from best))
  returning *
)
select :columns from taken

-- name: claim_in_transaction
-- The same for a transaction that stays open: it locks the row that it takes and no other, else it would hide jobs
-- that it did not take. The candidates are read in order, and only as far as the first row that is not locked; when
-- all of them are, there may be due rows behind the first 100.
with best as materialized (
  select id from (
    (
      select id, expected_at from :table
      where :ready
      order by q_name, expected_at, id
      limit (select null::bigint)
    )
    union all
    select id, expected_at from (
      select id, expected_at from :table
      where :due
      order by q_name, due_at
      limit (select 100)
    ) as due
    order by expected_at, id
    limit (select null::bigint)
  ) as candidates
  where exists (
    select from :table as job
    where job.id = candidates.id and q_name = %(queue)s
      and (due_at <= statement_timestamp() or (due_at is null and dequeued_at is null))
    for update skip locked
  )
  limit 1
), rest as materialized (
  select id from :table
  where :due and not exists (select from best)
  order by q_name, due_at
  limit 1
  for update skip locked
), taken as (
  update :table set :taken
  where id = any (array(select id from best union all select id from rest))
  returning *
)
select :columns from taken
