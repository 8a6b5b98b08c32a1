-- The upkeep of a stream: its slots are emptied when all have read them; and the rebase of one from a dump.

-- name: slot
-- The slot that a statement is about: one of the following.
:slot_a

-- name: first_slot
:slot_a

-- name: second_slot
:slot_b

-- name: third_slot
:slot_c

-- name: next_slot
-- The slot that the clock comes to next, and whether it has events.
select pq_next.slot, exists (select from :log as event where event.slot = pq_next.slot)
from (
  select mod(floor(extract(epoch from statement_timestamp()) / %(retain)s)::bigint + 1, 3::bigint)::int
) as pq_next (slot)

-- name: one_at_a_time
select pg_try_advisory_xact_lock(hashtextextended(%(log)s collate "C", 0))

-- name: lock_slot
-- It waits for those who read or write there now, but not for long: others wait behind it.
set local lock_timeout = '100ms';
set local statement_timeout = '10s';
lock table :slot in access exclusive mode

-- name: truncate
truncate :slot

-- name: newest
-- For each partition of each subscription its position.
select distinct on (subscription, partition) * from :positions
order by subscription, partition, version desc

-- name: is_unread
-- Whether an event is one that a position has not read.
not pg_visible_in_snapshot(event.txid, position.seen)
  and not coalesce(event.id <= position.after and pg_visible_in_snapshot(event.txid, position.upto), false)

-- name: spent
-- Whether all that is in a slot is behind all positions, in no open batch, and as old as it must be. Most often the newest
-- transaction tells, by one descent of the index.
select not exists (
  select from (:newest) as position
  where (select txid from :slot order by txid desc limit 1) >= pg_snapshot_xmin(position.seen) and exists (
    select from :slot as event where event.txid >= pg_snapshot_xmin(position.seen) and :is_unread
  )
) and not exists (
  select from :batches
  where first <= (select id from :slot order by id desc limit 1) and last >= (select id from :slot order by id limit 1)
) and coalesce(
  (select at from :slot order by id desc limit 1) <= clock_timestamp() - make_interval(secs => %(retain)s), true
)

-- name: overdue
-- Whether the newest event of a slot is as old as retain_unread says.
select coalesce(
  (select at from :slot order by id desc limit 1) <= clock_timestamp() - make_interval(secs => %(retain_unread)s), false
)

-- name: give_up
-- Move each position behind what it has not read in a slot, which is locked, and note how many events it has lost so.
with pq_last as materialized (
  select max(id) as id from :slot
), pq_now as materialized (
  select pg_current_snapshot() as s, pg_current_xact_id_if_assigned() as own
), pq_unread as materialized (
  select position.subscription, position.partition, position.version, count(*) as n
  from (:newest) as position
    join :subscriptions as subscription on subscription.name = position.subscription
    join :slot as event on :is_unread
      and (subscription.types is null or event.type = any (subscription.types))
      and (hashtextextended(coalesce(event.key, '') collate "C", 0) & 1073741823) %% subscription.partitions
        = position.partition
  group by position.subscription, position.partition, position.version
), pq_moved as (
  update :positions as position set
    version = position.version + 1, moved_at = statement_timestamp(),
    upto = coalesce(position.upto, :now_snapshot),
    upto_top = case when position.upto is not null then position.upto_top end,
    after = greatest(position.after, (select id from pq_last))
  from pq_unread as unread, pq_now as pq_now
  where position.subscription = unread.subscription and position.partition = unread.partition
    and position.version = unread.version
), pq_batches as (
  delete from :batches as batch using pq_last as its where batch.first <= its.id
  returning batch.subscription, batch.last - batch.first + 1 as n
)
update :subscriptions as subscription set lost = subscription.lost + lost.n
from (
  select subscription, sum(n)::bigint as n from (
    select subscription, n from pq_unread union all select subscription, n from pq_batches
  ) as lost
  group by subscription
) as lost
where subscription.name = lost.subscription
returning subscription.name, lost.n

-- name: at_home
select made_by = xmin and home = tableoid from :origin
