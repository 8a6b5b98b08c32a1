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

-- name: is_unread
-- Whether an event is one that a position has not read.
not pg_visible_in_snapshot(event.txid, position.seen)
  and not coalesce(event.id <= position.after and pg_visible_in_snapshot(event.txid, position.upto), false)

-- name: spent
-- Whether all that is in a slot is behind all positions, in no open batch, and as old as it must be. Most often the
-- newest transaction tells, by one descent of the index.
select not exists (
  select from (:newest) as position
  where (select txid from :slot order by txid desc limit 1) >= pg_snapshot_xmin(position.seen) and exists (
    select from :slot as event where event.txid >= pg_snapshot_xmin(position.seen) and :is_unread
  )
) and not exists (
  select from (:newest) as position
    join :batches as batch on batch.subscription = position.subscription and batch.partition = position.partition
      and batch.first >= position.open_from
  where batch.first <= (select id from :slot order by id desc limit 1)
    and batch.last >= (select id from :slot order by id limit 1)
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
    join :slot as event on :is_unread and :is_wanted
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

-- name: lock_all
lock table :log, :positions, :batches in access exclusive mode

-- name: is_new
-- Whether an event was published here, since the row of the origin was restored: its transaction has a number of this
-- server, behind that of the restore, and has written the row itself, or a savepoint of it has. Numbers of rows have 32 bits.
event.txid::text::bigint > pq_restore.txid
  and ((event.xmin::text::bigint - event.txid::text::bigint) & 4294967295) < 2147483648

-- name: rebase
-- In a restored dump the numbers of transactions, and so snapshots, mean nothing. But with each other they still tell
-- which events a position has not read, and which are in a batch; what was published here since then nobody has read. So
-- events are numbered anew: those that are unread by the same positions, and in the same batches, get one number, and each
-- snapshot is made of these. All numbers are below those of the transactions of this server.
with pq_restore as materialized (
  select max(now.txid - ((now.txid - xmin::text::bigint) & 4294967295)) as txid
  from :origin, (select pg_current_xact_id()::text::bigint as txid) as now
), pq_readers as materialized (
  select row_number() over () as n, reader.* from (
    select subscription, partition, null::bigint as number, seen, upto, after, null::bigint as first,
      null::bigint as last
    from (:newest) as position
    union all
    select subscription, partition, number, seen, upto, after, first, last from :batches
  ) as reader
), pq_marks as materialized (
  select event.id, array(
    select position.n from pq_readers as position
    where case
      when :is_new then position.number is null
      when position.number is null then :is_unread
      else event.id between position.first and position.last
        and not pg_visible_in_snapshot(event.txid, position.seen) and pg_visible_in_snapshot(event.txid, position.upto)
    end
    order by position.n
  ) as readers
  from :log as event, pq_restore
), pq_numbers as materialized (
  select mark.readers, 2 + row_number() over () as txid from (select distinct readers from pq_marks) as mark
), pq_top as materialized (
  select 3 + count(*) as txid from pq_numbers
), pq_snapshots as materialized (
  select reader.n, reader.subscription, reader.partition, reader.number, reader.first,
    format(
      '3:%%s:%%s', (select txid from pq_top),
      (
        select string_agg(given.txid::text, ',' order by given.txid) from pq_numbers as given
        where reader.n = any (given.readers)
      )
    )::pg_snapshot as seen,
    (select min(mark.id) from pq_marks as mark where reader.n = any (mark.readers)) - 1 as before
  from pq_readers as reader
), pq_events as (
  update :log as event set txid = given.txid::text::xid8
  from pq_marks as mark join pq_numbers as given on given.readers = mark.readers
  where event.id = mark.id
), pq_positions as (
  update :positions as position set
    version = position.version + 1, moved_at = statement_timestamp(), seen = its.seen, top = pq_top.txid::text::xid8,
    mark = coalesce(its.before, (select max(id) from pq_marks), position.mark),
    after = coalesce(its.before, 0), upto = null, upto_top = null
  from pq_snapshots as its, pq_top as pq_top
  where its.number is null and its.subscription = position.subscription and its.partition = position.partition
), pq_batches as (
  update :batches as batch set
    seen = its.seen, top = pq_top.txid::text::xid8, upto = pg_current_snapshot(), mark = its.first - 1,
    after = its.first - 1
  from pq_snapshots as its, pq_top as pq_top
  where batch.number = its.number
)
select (select txid from pq_top) <= pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
  setval(%(event_id)s, greatest((select max(id) from pq_marks), (select last_value from :event_id)))

-- name: settle_in
update :origin set made_by = '0', home = 0

-- name: settle_in_as
update :origin set made_by = xmin, home = tableoid

-- name: is_wanted
(subscription.types is null or event.type = any (subscription.types))
  and :key_hash %% subscription.partitions = position.partition

-- name: lag
-- For each partition of a subscription: by how many ids it is behind the last event; if that is wanted, the exact number of
-- unread events; for how many seconds the first of them has been there; and how many events, at most, are in batches.
select
  greatest(0, coalesce((select id from :log order by id desc limit 1), 0) - greatest(position.mark, position.after)),
  exactly.n, extract(epoch from statement_timestamp() - coalesce(exactly.at, fresh.at))::float8,
  coalesce((
    select sum(last - first + 1) from :batches as batch
    where batch.subscription = subscription.name and batch.partition = position.partition
      and batch.first >= position.open_from
  ), 0)::bigint
from :subscriptions as subscription
  join (:newest) as position on position.subscription = subscription.name
  left join lateral (
    select event.at from :log as event
    where event.id > greatest(position.mark, position.after) and :is_unread and :is_wanted
    order by event.id
    limit 1
  ) as fresh on true
  left join lateral (
    select count(*) as n, min(event.at) as at from :log as event
    where %(exact)s and event.txid >= pg_snapshot_xmin(position.seen) and :is_unread and :is_wanted
  ) as exactly on true
where subscription.name = %(subscription)s
