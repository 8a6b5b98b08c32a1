-- The statements of the listening session; pq/_db/waiting.py says why these steps, in this order.

-- name: look
-- For each of the queues: its name; the gate's key, which must be computed as in the notify trigger; the oldest
-- transaction that is writing, and the next that will; whether it is paused, and if not, the seconds until a row becomes due; whether one is ready or due.
-- All but the second transaction in one snapshot: that is read later (age() counts from the transaction to begin next),
-- since a snapshot doesn't tell which transactions have begun after the last that has ended.
select
  queue,
  (
    select hashtextextended(format('%%I.%%I %%s', nspname, relname, queue), 0)
    from pg_class join pg_namespace on pg_namespace.oid = relnamespace
    where pg_class.oid = to_regclass(%(table)s)
  ),
  pg_snapshot_xmin(seen)::text::bigint,
  pg_snapshot_xmax(seen)::text::bigint + age(pg_snapshot_xmax(seen)::xid),
  paused,
  (
    select extract(epoch from due_at - clock_timestamp())::float8 from :table
    where not paused and q_name = queue and due_at > statement_timestamp() and due_at < 'infinity'
    order by q_name, due_at
    limit 1
  ),
  coalesce(
    (
      select id from :table
      where q_name = queue and dequeued_at is null and due_at is null
      order by q_name, expected_at, id
      limit 1
    ),
    (
      select id from :table
      where q_name = queue and due_at <= statement_timestamp()
      order by q_name, due_at
      limit 1
    )
  ) is not null and not paused
from unnest(%(queues)s::text[]) as queue, pg_current_snapshot() as seen,
  lateral (select exists (select from :table where q_name = queue and :marker) as paused) as marker

-- name: take_gate
select pg_try_advisory_lock_shared(%(key)s)

-- name: leave_gate
select pg_advisory_unlock_shared(%(key)s)
