-- The statements that take jobs. They must be planned well without statistics, too: a queue that has grown since the last
-- ANALYZE is believed to be nearly empty, and then a sort of all its rows seems cheap. So each "order by" repeats the
-- whole key of an index, and each limit is a subquery: the planner then expects to need a tenth of the rows, whatever
-- their number, and reads the index in order. "limit (select null)" is no limit but for that. Rows are joined by
-- "= any (array(...))" and by "exists (... for update)", which leave no choice but the primary key.

-- name: taken
-- By the clock: a statement that was held up can take what became ready after it had come in. And once, not for each
-- row: all that are taken together have one time. The error is of an attempt under a lease: the row would look dead.
update :table set dequeued_at = (select clock_timestamp()), due_at = null, error = null, failed_at = null

-- name: leased
-- In place of "taken": when it will be due again, and one more delivery.
update :table set dequeued_at = (select clock_timestamp()),
  due_at = clock_timestamp() + make_interval(secs => %(lease)s), attempts = attempts + 1, expiries = :expiries

-- name: removes
-- Whether it does.
false

-- name: does_remove
true

-- name: expiries
-- A row that is due and taken is one whose lease has expired.
expiries + case when dequeued_at is null then 0 else 1 end

-- name: removed
-- In place of "taken", where finished jobs are not kept.
delete from :table

-- name: open
-- Whether the queue is not paused, as 1 or 0, to multiply limits by. The marker would stand alone at the end of the queue's
-- part of an index: this costs one descent there.
pq_open as materialized (
  select case when exists (select from :table where q_name = %(queue)s and :marker) then 0 else 1 end as open
)

-- name: claim
-- Take the best jobs, and make the other due rows ready; for a short transaction of pq's own, since it locks all of
-- these. Jobs without priority count only above the low-water mark.
with :open, pq_due as materialized (
  select id, expected_at from :table
  where :due
  order by q_name, due_at
  limit (select 1000 * open from pq_open)
  for update skip locked
), pq_urgent as materialized (
  select id, expected_at from :table
  where :ready and expected_at is not null
  order by q_name, expected_at, id
  limit (select %(limit)s::bigint * open from pq_open)
  for update skip locked
), pq_other as materialized (
  select id, expected_at from :table
  where :ready and expected_at is null and id > %(mark)s
  order by q_name, expected_at, id
  limit (select %(limit)s::bigint * open - (select count(*) from pq_urgent) from pq_open)
  for update skip locked
), pq_best as materialized (
  select id from (select * from pq_due union all select * from pq_urgent union all select * from pq_other) as candidates
  order by expected_at, id
  limit (select %(limit)s::bigint)
), pq_promoted as (
  update :table set due_at = null, dequeued_at = null, expiries = :expiries
  where id = any (array(select id from pq_due except select id from pq_best))
), pq_taken as (
  :taken
  where id = any (array(select id from pq_best))
  returning *
)
select :columns, expiries, exists (select from pq_due), :removes from pq_taken
order by expected_at, id

-- name: claim_in_transaction
-- The same for a transaction that stays open: it locks the rows that it takes and no others, else it would hide jobs
-- that it did not take. The candidates are read in order, and only as far as there are enough that are not locked; when
-- all of them are, there may be due rows behind the first 100.
with :open, pq_best as materialized (
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
  limit (select %(limit)s::bigint * open from pq_open)
), pq_rest as materialized (
  select id from :table
  where :due and not exists (select from pq_best)
  order by q_name, due_at
  limit (select %(limit)s::bigint * open from pq_open)
  for update skip locked
), pq_taken as (
  :taken
  where id = any (array(select id from pq_best union all select id from pq_rest))
  returning *
)
select :columns, expiries, true, :removes from pq_taken
order by expected_at, id
