-- Jobs that follow others.

-- name: put
-- Put a job that waits for others, and have these name it; each can name one. Where all of them have ended, it is ready.
-- Return its id; or null, and one of the ids that no job has, and one of a job that has another follower. The rows are
-- locked in the order of their ids. One that was cancelled, or is dead, is left to a check; see follow_function.
with pq_parents as materialized (
  select id, follower, dequeued_at is null or due_at is not null as is_open, error is not null as is_dead, failed_at
  from :table
  where id = any (%(parents)s::bigint[]) and (:marker) is not true
  order by id
  for no key update
), pq_asked as materialized (
  select
    count(*) filter (where parents.is_open or (parents.is_dead and %(on_failed)s <> 'run')) as holding,
    count(*) filter (
      where not parents.is_open and (
        (parents.is_dead and %(on_failed)s = 'cancel')
        or (not parents.is_dead and parents.failed_at is not null and %(on_failed)s <> 'run')
      )
    ) as failed,
    min(parents.id) filter (where parents.follower is not null and (parents.is_open or parents.is_dead)) as taken,
    (
      select min(given.id) from unnest(%(parents)s::bigint[]) as given (id)
      where given.id not in (select parents.id from pq_parents as parents)
    ) as missing
  from pq_parents as parents
), pq_put as (
  insert into :table (q_name, data, expected_at, key, schedule_at, due_at, waits_for, on_failed:headers_column)
  select
    %(queue)s, %(data)s::json, :new_expected, %(key)s, asked.until, asked.until,
    case when asked.until is not null then %(parents)s::bigint[] end,
    case when asked.until is not null then nullif(%(on_failed)s, 'hold') end:headers_value
  from (
    select case when asked.holding + asked.failed > 0 then 'infinity'::timestamptz end as until from pq_asked as asked
    where asked.taken is null and asked.missing is null
  ) as asked
  returning id
), pq_followed as (
  update :table set follower = put.id from pq_put as put
  where :table.id = any (array(
    select parents.id from pq_parents as parents where parents.is_open or (parents.is_dead and %(on_failed)s <> 'run')
  ))
), pq_checks as (
  insert into :checks_table (q_name, key, job, check_at)
  select %(queue)s, 'failed', put.id, clock_timestamp() from pq_put as put, pq_asked as asked where asked.failed > 0
)
select (select put.id from pq_put as put), asked.missing, asked.taken from pq_asked as asked
