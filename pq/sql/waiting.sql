-- The statements of the listening session; pq/_db/waiting.py says why these steps, in this order.

-- name: gate
-- The queue's key (its channel is 'pq_' and the key in hexadecimal), and its gate taken, shared with other waiters.
-- The key must be computed as in the notify trigger.
select key, pg_try_advisory_lock_shared(key)
from (
  select hashtextextended(format('%%I.%%I %%s', nspname, relname, %(queue)s::text), 0) as key
  from pg_class join pg_namespace on pg_namespace.oid = relnamespace
  where pg_class.oid = to_regclass(%(table)s)
  offset 0  -- keeps the lock above the condition
) as name

-- name: look
-- The transactions now writing; the seconds until the next row is due; whether a row is ready. One snapshot.
select
  array(select x::text::bigint from pg_snapshot_xip(pg_current_snapshot()) as x),
  (
    select extract(epoch from due_at - clock_timestamp())::float8 from :table
    where q_name = %(queue)s and due_at < 'infinity'
    order by q_name, due_at
    limit 1
  ),
  exists (select from :table where q_name = %(queue)s and dequeued_at is null and due_at is null)

-- name: ungate
select pg_advisory_unlock_shared(%(key)s)
