-- What pq.testing does in the transaction of a test.

-- name: turn
-- Turn the clock forward: all that is to come moves towards now. The rows of a test are seen by its transaction alone.
with pq_rows as (
  update :table set
    due_at = case when due_at < 'infinity' and (:marker) is not true then due_at - :step else due_at end,
    schedule_at = case when due_at < 'infinity' and schedule_at < 'infinity' then schedule_at - :step else schedule_at end,
    unique_until = case
      when unique_until > '-infinity' and unique_until < 'infinity' then unique_until - :step else unique_until
    end
  where (due_at < 'infinity' and (:marker) is not true) or (unique_until > '-infinity' and unique_until < 'infinity')
), pq_tokens as (
  update :slots_table set taken_at = taken_at - :step where kind = 'rate'
), pq_checks as (
  update :checks_table set check_at = check_at - :step
)
select set_config('pq.clock', (:clock + %(seconds)s::float8)::text, true)

-- name: step
make_interval(secs => %(seconds)s)

-- name: clock
-- The seconds by which this transaction has turned the clock.
coalesce(nullif(current_setting('pq.clock', true), ''), '0')::float8

-- name: next
-- The seconds until a job of these queues becomes ready by itself or, while one is ready, until a token of a rate is free.
select extract(epoch from min(due.due_at) - statement_timestamp())::float8 from (
  select due_at from :table
  where q_name = any (%(queues)s::text[]) and due_at > statement_timestamp() and due_at < 'infinity'
    and (:marker) is not true
  union all
  select slot.taken_at + limits.period
  from :slots_table as slot join :limits_table as limits using (name)
  where slot.kind = 'rate' and slot.taken_at + limits.period > statement_timestamp()
    and exists (select from :table where q_name = any (%(queues)s::text[]) and :is_ready)
) as due

-- name: next_schedule
-- The schedule of these queues that is the next to fire: in how many seconds by the clock that was turned, and what tells
-- when it fires after that.
select schedule.name, extract(epoch from schedule.next_at - statement_timestamp())::float8 - :clock,
  schedule.rule, schedule.zone, schedule.anchor at time zone 'utc', schedule.next_at at time zone 'utc'
from :schedules_table as schedule
where not schedule.paused and schedule.next_at is not null and schedule.q_name = any (%(queues)s::text[])
order by schedule.next_at, schedule.name
limit 1

-- name: fires_next
update :schedules_table set next_at = %(following)s::timestamptz where name = %(name)s

-- name: unlock
-- Claims count the keys that their transaction has locked, and stop: a test takes all of its jobs in one.
select set_config('pq.key_locks', '', true)
