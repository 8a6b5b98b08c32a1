-- Taking events from a stream. What "visible" means here is pg_visible_in_snapshot(): by the number of the transaction
-- that published an event and a stored snapshot, never by when a row was read. docs/explanation/streams.rst has the proof.

-- name: its_subscription
pq_now as materialized (
  select pg_current_snapshot() as s, pg_current_xact_id_if_assigned() as own
), pq_subscription as materialized (
  select types, partitions, shared, paused_at is not null as paused, lost, max_retries, ordered = 'stop' as stops
  from :subscriptions where name = %(subscription)s
)

-- name: its_position
-- Open batches come first: those of a partition are delivered one after the other, unless the subscription is shared. So do
-- the events that were set aside, and are due again.
:its_subscription, pq_position as materialized (:newest_of_partition), pq_open as materialized (
  select batch.due_at from :batches as batch, pq_subscription as subscription
  where batch.subscription = %(subscription)s and batch.partition = %(partition)s
    and batch.first >= (select open_from from pq_position)
    and (not subscription.shared or batch.due_at <= statement_timestamp())
  order by batch.subscription, batch.partition, batch.first
  limit (select 1)
), pq_state as materialized (
  select subscription.*, (select due_at from pq_open) as due_at,
    (:at_home) as at_home,
    (select id is not null from (:a_retry) as retry) as has_retries
  from pq_subscription as subscription
), pq_window as materialized (
  select position.version, position.seen, position.top, position.mark, position.after, position.upto is not null as inside,
    coalesce(position.upto, :now_snapshot) as upto, case when position.upto is not null then position.upto_top end as upto_top,
    9223372036854775807 as last, position.open_from, state.types, state.partitions, state.shared
  from pq_position as position, pq_now as pq_now, pq_state as state
  where :is_open
)

-- name: newest_of_partition
select position.* from :positions as position
where position.subscription = %(subscription)s and position.partition = %(partition)s
order by position.subscription, position.partition, position.version desc
limit (select 1)

-- name: is_open
state.at_home and not state.paused and state.lost = 0
    and (state.due_at is null or state.shared and %(past_open)s)
    and (not state.has_retries or %(past_retries)s)

-- name: is_wanted
((select types from pq_window) is null or event.type = any ((select types from pq_window)::text[]))
  and (
    (select partitions from pq_window) = 1
    or :key_hash %% (select partitions from pq_window)
      = %(partition)s
  )

-- name: event_columns
event.id, event.at, event.type, event.key, event.data, event.headers

-- name: all_events
-- Of a window, those whose ids are behind "after" and up to "last". Late ones are those of transactions that were running
-- when the last window ended, and have ended since: they are found by their transactions. Fresh ones are of transactions
-- that have begun since then; they are above the mark. One more than n is read, which tells whether the window is over.
-- "id + 0" is no condition for an index: late ones are few, and by their ids the server would read all.
pq_late as (
  select :event_columns from (
    select * from :log as event
    where (select after < mark from pq_window) and event.txid = any (array(
      select running from pq_window as pq_window, pg_snapshot_xip(pq_window.seen) as running
      where pg_visible_in_snapshot(running, pq_window.upto)
    ))
    union all
    select * from :log as event
    where (select after < mark from pq_window)
      and event.txid >= (select pg_snapshot_xmax(seen) from pq_window)
      and event.txid < (select least(top, pg_snapshot_xmax(upto)) from pq_window)
      and pg_visible_in_snapshot(event.txid, (select upto from pq_window))
  ) as event
  where event.id + 0 <= (select mark from pq_window) and event.id + 0 > (select after from pq_window)
    and event.id + 0 <= (select last from pq_window)
    and :is_wanted
  order by event.id
  limit (select %(n)s::bigint + 1)
), pq_fresh as (
  select :event_columns from :log as event
  where event.id > (select greatest(mark, after) from pq_window) and event.id <= (select last from pq_window)
    and not pg_visible_in_snapshot(event.txid, (select seen from pq_window))
    and pg_visible_in_snapshot(event.txid, (select upto from pq_window))
    and :is_wanted
  order by event.id
  limit (select %(n)s::bigint + 1)
), pq_read as materialized (
  select event.* from (select * from pq_late union all select * from pq_fresh) as event
  order by event.id
  limit (select %(n)s::bigint + 1)
), pq_end as materialized (
  select count(*) <= %(n)s as is_over, max(id) as last from pq_read
), pq_events as not materialized (
  select * from pq_read where id < (select case when is_over then last + 1 else last end from pq_end)
), pq_size as materialized (
  select count(*) as n, min(id) as first, max(id) as last, (select is_over from pq_end) as is_over from pq_events
)

-- name: position_moves
-- The position is locked if it is still the one that was read, and there is something to do: an idle look writes nothing.
-- Where a subscription does not want all events, it moves behind those that it has passed when they are many.
pq_free as materialized (
  select position.ctid as row from :positions as position
  where position.subscription = %(subscription)s and position.partition = %(partition)s
    and position.version = (select version from pq_window)
    and (
      (select size.n > 0 or its.inside from pq_size as size, pq_window as its)
      or (select types is not null or partitions > 1 from pq_window) and (
        select event.id from :log as event
        where event.id > (select mark from pq_window)
          and pg_visible_in_snapshot(event.txid, (select upto from pq_window))
        order by event.id
        offset 100 limit 1
      ) is not null
    )
  order by position.subscription, position.partition, position.version desc
  limit (select 1)
  for no key update skip locked
), pq_moved as (
  update :positions as position set
    version = position.version + 1, moved_at = statement_timestamp(),
    seen = case when size.is_over then its.upto else its.seen end,
    mark = case when size.is_over then greatest(its.mark, size.last, :end_of_window) else its.mark end,
    upto = case when size.is_over then null else its.upto end,
    upto_top = case when size.is_over then null when its.inside then its.upto_top else :top end,
    top = case when not size.is_over then its.top when its.inside then its.upto_top else :top end,
    after = case when size.is_over then 0 else size.last end,
    open_from = :open_from
  from pq_window as its, pq_size as size, pq_now as pq_now
  where position.ctid = (select row from pq_free)
  returning 1
)

-- name: open_from
-- The first of the batches that are open once the position has moved: the one that is read now. Others can be open only
-- where the subscription is shared.
coalesce(
  least(size.first, case when its.shared then (
    select batch.first from :batches as batch
    where batch.subscription = %(subscription)s and batch.partition = %(partition)s and batch.first >= its.open_from
    order by batch.subscription, batch.partition, batch.first
    limit 1
  ) end),
  its.open_from
)

-- name: end_of_window
-- Where there are events that are not wanted: the last one of the window.
case when its.types is not null or its.partitions > 1 then (
  select event.id from :log as event where pg_visible_in_snapshot(event.txid, its.upto)
  order by event.id desc
  limit 1
) end

-- name: told
-- What a take tells: in a row of its own, before those of the events, which are many. No row: there is no such
-- subscription.
state.at_home, state.paused, state.lost, extract(epoch from state.due_at - statement_timestamp())::float8,
  exists (select from pq_moved) and (select n = 0 from pq_size),
  state.has_retries, state.partitions, state.shared, state.max_retries, state.stops

-- name: no_event
null::bigint as id, null::timestamp, null::text, null::text, null::text, null::text

-- name: a_retry
-- A job of an event that was set aside, if one is ready.
select coalesce(
  (
    select id from :table where q_name = %(queue)s and :is_ready
    order by q_name, expected_at, id
    limit 1
  ),
  (
    select id from :table where q_name = %(queue)s and :is_due
    order by q_name, due_at
    limit 1
  )
) as id

-- name: as_read
event.id, least(greatest(event.at, :first_time), :last_time) at time zone 'utc',
  event.type, event.key, event.data::text, event.headers::text

-- name: take
-- Read events, and move the position behind them: exactly once, where both are part of the transaction of the effects.
with :its_position, :all_events, :position_moves
select json_build_array(:told)::text, :no_event from pq_state as state
union all
select null, :as_read from pq_events as event, pq_moved
order by id nulls first

-- name: take_leased
-- The same under a lease: what was read is a batch of its own, until it is done.
with :its_position, :all_events, :position_moves, :new_batch
select json_build_array(:told, batch.number, batch.delivery, batch.attempts)::text, :no_event
from pq_state as state left join pq_batch as batch on true
union all
select null, :as_read from pq_events as event, pq_moved
order by id nulls first

-- name: new_batch
pq_batch as (
  insert into :batches (
    subscription, partition, seen, top, mark, upto, after, first, last, delivery, attempts, due_at
  )
  select %(subscription)s, %(partition)s, its.seen, its.top, its.mark, its.upto, its.after, size.first, size.last, 1, 1,
    :lease_end
  from pq_window as its, pq_size as size, pq_moved where size.n > 0
  returning number, delivery, attempts
)

-- name: lease_end
statement_timestamp() + make_interval(secs => %(lease)s)

-- name: its_batch
-- The batch of the partition that is to be delivered again: of one that was delivered before, the first half, until the
-- event that fails is alone. The next batch of a partition has to wait for it; if the subscription is shared, those that are
-- in other hands are passed over.
:its_subscription, pq_position as materialized (
  :newest_of_partition
  for key share skip locked  -- whoever seeks or unsubscribes waits, or would not see the other half
), pq_chosen as materialized (
  select batch.* from :batches as batch, pq_subscription as subscription
  where batch.subscription = %(subscription)s and batch.partition = %(partition)s
    and batch.first >= (select open_from from pq_position)
    and batch.due_at <= statement_timestamp() and not subscription.paused
    and (
      subscription.shared or batch.number = (
        select first.number from :batches as first
        where first.subscription = %(subscription)s and first.partition = %(partition)s
          and first.first >= (select open_from from pq_position)
        order by first.subscription, first.partition, first.first
        limit (select 1)
      )
    )
  order by batch.subscription, batch.partition, batch.first
  limit (select 1)
  for update of batch skip locked
), pq_window as materialized (
  select batch.seen, batch.top, batch.mark, batch.after, batch.upto, batch.last, subscription.types,
    subscription.partitions
  from pq_chosen as batch, pq_subscription as subscription
)

-- name: half_of_batch
pq_half as materialized (
  select part.*, (select min(event.id) from pq_events as event where event.id > part.last) as next
  from (
    select count(*) as n, max(event.id) as last
    from (
      select event.id from pq_events as event
      order by event.id
      limit (
        select least(case when batch.attempts = 0 then size.n else (size.n + 1) / 2 end, %(most)s)
        from pq_chosen as batch, pq_size as size
      )
    ) as event
  ) as part
), pq_rest as (
  insert into :batches (subscription, partition, seen, top, mark, upto, after, first, last, due_at)
  select %(subscription)s, %(partition)s, batch.seen, batch.top, batch.mark, batch.upto, half.last,
    half.next, batch.last, statement_timestamp()
  from pq_chosen as batch, pq_half as half
  where half.next is not null
)

-- name: take_again
-- Deliver a batch again. No row: there is none to be had; only one: all of its events are gone.
with :its_batch, :all_events, :half_of_batch, pq_batch as (
  update :batches as batch set
    delivery = batch.delivery + 1,
    attempts = case when half.next is null then batch.attempts + 1 else 1 end,
    last = coalesce(half.last, batch.last),
    due_at = :lease_end
  from pq_half as half
  where batch.number = (select number from pq_chosen)
  returning batch.number, batch.delivery, batch.attempts, batch.last
)
select json_build_array(batch.number, batch.delivery, batch.attempts)::text, :no_event from pq_batch as batch
union all
select null, :as_read from pq_batch as batch join pq_events as event on event.id <= batch.last
order by id nulls first

-- name: done
delete from :batches where number = %(number)s and delivery = %(delivery)s returning number

-- name: extend
update :batches set due_at = :lease_end
where number = %(number)s and delivery = %(delivery)s
returning number

-- name: release
-- As if it had not been delivered.
update :batches set due_at = statement_timestamp(), attempts = greatest(attempts - 1, 0)
where number = %(number)s and delivery = %(delivery)s
returning number

-- name: failed
-- The next delivery comes after a pause.
update :batches set due_at = statement_timestamp() + make_interval(secs => %(pause)s), error = %(error)s
where number = %(number)s and delivery = %(delivery)s
returning number

-- name: set_aside
-- Put events as jobs that are tried again after a pause or, without one, are dead. A job that was one before gives its data.
pq_aside as (
  insert into :table (q_name, data, attempts, schedule_at, dequeued_at, error, failed_at, headers)
  select %(queue)s, its.data, given.attempts, statement_timestamp() + make_interval(secs => given.delay),
    case when given.delay is null then statement_timestamp() end,
    given.error, case when given.error is not null then statement_timestamp() end,
    case when json_typeof(its.data -> 'headers') = 'object' and octet_length(its.data ->> 'headers') <= 16384
      then its.data -> 'headers' end
  from (
    select its.id, its.attempts, nullif(its.delay, '')::float8 as delay, nullif(its.error, '') as error,
      nullif(its.data, '') as data
    from unnest(%(ids)s::bigint[], %(attempts)s::int[], %(delays)s::text[], %(errors)s::text[], %(data)s::text[])
      as its (id, attempts, delay, error, data)
  ) as given left join :log as event on event.id = given.id and given.data is null, lateral (
    select coalesce(given.data::json, :as_job) as data
  ) as its
  where exists (select from pq_ended) and (given.data is not null or event.id is not null)
  returning id
)

-- name: as_job
json_build_object(
  'id', event.id, 'at', to_char(event.at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"'),
  'type', event.type, 'key', event.key, 'data', event.data, 'headers', event.headers
)

-- name: put_aside
-- Where the position has moved in the same transaction.
with pq_ended as (select 1), :set_aside
select from pq_ended

-- name: done_and_aside
with pq_ended as (
  delete from :batches where number = %(number)s and delivery = %(delivery)s returning number
), :set_aside
select number from pq_ended

-- name: ready_partitions
-- For each partition: whether a take is worth its while, and the seconds until its first batch is due again. Those of which
-- neither can be said are left out, but for the first. No row: there is no such subscription. Of an array the planner
-- expects 10 numbers, of generate_series() 1,000: that would be dear enough for it to have the statement compiled first.
select place.partition, place.partitions, place.is_ready, place.due_in
from (
  select n as partition, its.partitions,
    extract(epoch from batch.due_at - statement_timestamp())::float8 as due_in,
    case
      when its.partitions = 1 then true
      when its.paused then false
      when n = 0 and (its.lost > 0 or not its.at_home or its.has_retries) then true
      when batch.due_at is not null then batch.due_at <= statement_timestamp()
      when position.upto is not null then true
      else :has_unread
    end as is_ready
  from (
      select subscription.types, subscription.partitions, subscription.paused_at is not null as paused, subscription.lost,
        (:at_home) as at_home,
        (select id is not null from (:a_retry) as retry) as has_retries
      from :subscriptions as subscription where subscription.name = %(subscription)s
    ) as its
    cross join lateral unnest(array(select generate_series(0, its.partitions - 1))) as n
    cross join lateral (
      select position.* from :positions as position
      where position.subscription = %(subscription)s and position.partition = n
      order by position.subscription, position.partition, position.version desc
      limit (select 1)
    ) as position
    left join lateral (
      select batch.due_at from :batches as batch
      where batch.subscription = %(subscription)s and batch.partition = n and batch.first >= position.open_from
      order by batch.subscription, batch.partition, batch.first
      limit (select 1)
    ) as batch on true
  offset 0  -- or what is_ready says would be found out twice
) as place
where place.is_ready or place.due_in is not null or place.partition = 0
order by place.partition

-- name: has_unread
-- Fresh events, late ones, or so many that are not wanted that the position should move behind them.
(
  select event.id from :log as event
  where event.id > position.mark and not pg_visible_in_snapshot(event.txid, position.seen) and :is_its
  order by event.id
  limit 1
) is not null or (
  select event.id from :log as event
  where event.txid = any (array(select pg_snapshot_xip(position.seen))) and event.id + 0 <= position.mark and :is_its
  limit (select 1)
) is not null or (
  select event.id from :log as event
  where event.txid >= pg_snapshot_xmax(position.seen)
    and event.txid < coalesce(position.top, pg_snapshot_xmax(pg_current_snapshot()))
    and event.id + 0 <= position.mark and :is_its
  limit (select 1)
) is not null or (
  select event.id from :log as event where event.id > position.mark
  order by event.id
  offset 100 limit 1
) is not null

-- name: is_its
-- A CASE, of which the planner expects half of the events, not one in thousands: so it does not fear to read all of them.
case when its.types is null or event.type = any (its.types) then :key_hash %% its.partitions = n end
