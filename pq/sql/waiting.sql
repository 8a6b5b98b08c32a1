-- The statements of threads that wait; the docstring of pq/_wait says why these steps, in this order. A column of the user's
-- table could have any name, so all columns but those of the table are qualified.

-- name: look
-- For each of the queues: its name; the key of its gate; the oldest transaction that is writing, and the next that will;
-- whether it is paused, and if not, the seconds until a row becomes due, a rate lets jobs begin, or a key is to be
-- checked; whether one is ready or due, or a check is; what `schedule_in` stands for. All but the second transaction in one
-- snapshot: that is read later (age() counts from the transaction to begin next), since a snapshot doesn't tell which
-- transactions have begun after the last that has ended.
select
  changed.q_name,
  gate.key,
  pg_snapshot_xmin(pq_seen.snapshot)::text::bigint,
  pg_snapshot_xmax(pq_seen.snapshot)::text::bigint + age(pg_snapshot_xmax(pq_seen.snapshot)::xid),
  pq_marker.paused,
  least(
    (
      select extract(epoch from due_at - clock_timestamp())::float8 from :table
      where not pq_marker.paused and q_name = changed.q_name and :is_due_later
      order by q_name, due_at
      limit 1
    ),
    (
      -- not greatest() of min(): without a check that is 0, and waiters would never sleep
      select greatest(0, extract(epoch from check_at - clock_timestamp()))::float8 from :checks_table
      order by check_at
      limit 1
    ),
    pq_full.free_in
  ),
  :has_job and not pq_marker.paused and not pq_full.is_full,
  :schedule_in
from :asked
  cross join pg_current_snapshot() as pq_seen (snapshot)
  cross join lateral (:gate) as gate
  :bars

-- name: schedule_in
-- Nothing; or next_schedule_in in its place.
null::float8

-- name: next_schedule_in
-- The seconds until the next schedule is due; null if there is none.
(
    select extract(epoch from next_at - clock_timestamp())::float8 from :schedules_table
    where not paused and next_at is not null
    order by next_at
    limit 1
  )

-- name: bars
-- What may keep jobs of the queue from beginning: a pause, or limits.
cross join lateral (
    select coalesce(bool_or(:pause_marker), false), coalesce(bool_or(:limit_marker), false)
    from :table where q_name = changed.q_name and :marker
  ) as pq_marker (paused, limited)
  cross join lateral (:full) as pq_full (is_full, free_in)

-- name: full
-- Whether a limit lets no job of the queue begin, and the seconds until all of its rates do.
select coalesce(bool_or(pq_limit.free < 1), false), max(pq_limit.free_in)
from (
  select
    case when kind.kind = 'rate' then count(*) filter (where pq_slot.is_free)
    else kind.most - count(*) filter (where not pq_slot.is_free) end as free,
    case when kind.kind = 'rate' and not bool_or(pq_slot.is_free) then :free_in end as free_in
  from :limits_and_slots
  where pq_marker.limited and kind.most is not null
    and ((limits.queues is null and limits.name = changed.q_name) or changed.q_name = any (limits.queues))
  group by limits.name, limits.period, kind.kind, kind.most
) as pq_limit

-- name: keys
-- The keys of the queues' gates; none if there is no such table.
select changed.q_name, gate.key from :asked cross join lateral (:gate) as gate

-- name: peek
-- Those of the queues that have a job, unless they are paused, or a limit is full.
select changed.q_name from :asked
  :bars
where :has_job and not pq_marker.paused and not pq_full.is_full

-- name: asked
-- The queues, as `gate` needs them.
(
  select pq_asked.name as q_name, to_regclass(%(table)s)::oid as tableoid
  from unnest(%(queues)s::text[]) as pq_asked (name)
) as changed

-- name: has_job
-- Not by "exists", which the planner could turn into a join that reads all ready rows.
coalesce(
  (
    select id from :table
    where q_name = changed.q_name and :is_ready
    order by q_name, expected_at, id
    limit 1
  ),
  (
    select id from :table
    where q_name = changed.q_name and :is_due
    order by q_name, due_at
    limit 1
  ),
  (select 1 from :checks_table where check_at <= statement_timestamp() order by check_at limit 1)
) is not null

-- name: take_gates
select pq_gate.key, pg_try_advisory_lock_shared(pq_gate.key) from unnest(%(keys)s::bigint[]) as pq_gate (key)

-- name: leave_gates
select pg_advisory_unlock_shared(pq_gate.key) from unnest(%(keys)s::bigint[]) as pq_gate (key)

-- name: most_gates
-- A quarter of the server's table of locks.
select least(
  1000,
  current_setting('max_locks_per_transaction')::integer
    * (current_setting('max_connections')::integer + current_setting('max_prepared_transactions')::integer) / 4
)
