-- What pq.pgqueue does on a server without the extension pgq: a queue is a stream, a consumer a subscription. As there, a
-- batch stays open until it is finished, and whoever asks for the next one gets it; so its lease is over at once. An event
-- to be retried is a batch of its own, which is due later.

-- name: lock
select pg_catalog.pg_try_advisory_lock(d.oid::int, pg_catalog.hashtext('pq.pgqueue'))
from pg_catalog.pg_database d where d.datname = current_catalog

-- name: check_interval
select %(value)s::interval::text, extract(epoch from %(value)s::interval)::float8

-- name: check_count
select %(value)s::int::text, null

-- name: check_flag
select %(value)s::boolean::text, null

-- name: settings
select obj_description(to_regclass(%(name)s), 'pg_class')

-- name: lock_settings
select pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('pq.pgqueue'), pg_catalog.hashtext(%(name)s))

-- name: publish
-- The data is a JSON text, extra1 the key, and the other extras stand in the headers.
insert into :log (type, key, data, headers) values (
  coalesce(%(type)s::text, ''),
  %(extra1)s::text,
  coalesce(to_json(%(data)s::text), 'null'),
  nullif(json_strip_nulls(json_build_object(
    'extra2', %(extra2)s::text, 'extra3', %(extra3)s::text, 'extra4', %(extra4)s::text,
    'untyped', case when %(type)s::text is null then true end
  ))::text, '{}')::json
)
returning id

-- name: queue_info
select * from json_to_recordset(%(queues)s::json) as q (
  queue_name text, queue_ntables int, queue_cur_table int, queue_rotation_period interval, queue_switch_time timestamptz,
  queue_external_ticker boolean, queue_ticker_paused boolean, queue_ticker_max_count int, queue_ticker_max_lag interval,
  queue_ticker_idle_period interval, ticker_lag interval, ev_per_sec float8, ev_new bigint, last_tick_id bigint
)

-- name: consumer_info
select %(queue)s::text as queue_name, subscription.name as consumer_name,
  coalesce(
    (
      select statement_timestamp() - event.at from :log as event where event.id > greatest(position.mark, position.after)
      order by event.id
      limit 1
    ),
    interval '0'
  ) as lag,
  statement_timestamp() - position.moved_at as last_seen,
  null::bigint as last_tick,
  (
    select batch.number from :batches as batch
    where batch.subscription = subscription.name and batch.partition = 0 and batch.first >= position.open_from
      and (batch.due_at <= statement_timestamp() or batch.delivery > 0)
    order by batch.first
    limit 1
  ) as current_batch,
  null::bigint as next_tick,
  greatest(
    coalesce((select id from :log order by id desc limit 1), 0) - greatest(position.mark, position.after), 0
  ) as pending_events
from :subscriptions as subscription
  join (:newest) as position on position.subscription = subscription.name and position.partition = 0
where %(consumer)s::text is null or subscription.name = %(consumer)s::text
order by subscription.name

-- name: its_columns
event.id, event.at, event.txid, event.type, event.key, event.data, event.headers

-- name: as_event
event.id as ev_id, event.at as ev_time, event.txid::text::bigint as ev_txid,
  case when event.headers ->> 'untyped' is null then event.type end as ev_type, event.data #>> '{}' as ev_data,
  event.key as ev_extra1, event.headers ->> 'extra2' as ev_extra2, event.headers ->> 'extra3' as ev_extra3,
  event.headers ->> 'extra4' as ev_extra4

-- name: its_lease_end
-- The lease is an interval, as text or as a timedelta.
statement_timestamp() + %(lease)s::interval

-- name: enough
-- Of the next events, how many are older than the lag; and whether there are as many, or whether they are as old, as a
-- batch has to be.
with :its_position, :all_events
select
  count(*) filter (where event.at <= statement_timestamp() - coalesce(%(lag)s::interval, interval '0')),
  %(count)s::int is null and %(interval)s::interval is null
    or coalesce(count(*) >= %(count)s::int, false)
    or coalesce(min(event.at) <= statement_timestamp() - %(interval)s::interval, false),
  bool_or(state.due_at <= statement_timestamp())
from pq_state as state left join pq_events as event on true

-- name: next
with :its_position, :all_events, :position_moves, :new_batch
select state.at_home, state.lost, not state.paused and state.due_at <= statement_timestamp(),
  exists (select from pq_moved) and (select n = 0 from pq_size), batch.number, batch.attempts, event.*
from pq_state as state
  left join pq_batch as batch on true
  left join (select :as_event from pq_events as event, pq_moved) as event on true
order by event.ev_id

-- name: open_batch
select batch.* from :batches as batch
where batch.subscription = %(subscription)s and batch.partition = %(partition)s
  and batch.due_at <= statement_timestamp()
  and batch.first >= (select open_from from (:newest_of_partition) as position)
order by batch.subscription, batch.partition, batch.first
limit (select 1)

-- name: window_of_batch
pq_window as materialized (
  select batch.seen, batch.top, batch.mark, batch.after, batch.upto, batch.last, subscription.types,
    subscription.partitions
  from pq_chosen as batch join :subscriptions as subscription on subscription.name = batch.subscription
)

-- name: reopen
-- A batch that was taken before and is not finished, or an event that is to be retried.
with pq_chosen as materialized (:open_batch), :window_of_batch, :all_events
select batch.number, batch.attempts, event.*
from pq_chosen as batch left join (select :as_event from pq_events as event) as event on true
order by event.ev_id

-- name: reopen_leased
-- The same for one of several consumers that share the batches.
with pq_chosen as materialized (:open_batch for update skip locked), :window_of_batch, :all_events, pq_held as (
  update :batches as batch set
    due_at = :lease_end, delivery = batch.delivery + 1
  where batch.number = (select number from pq_chosen)
)
select batch.number, batch.attempts, event.*
from pq_chosen as batch left join (select :as_event from pq_events as event) as event on true
order by event.ev_id

-- name: events
with pq_chosen as materialized (
  select batch.* from :batches as batch where batch.number = %(batch)s
), :window_of_batch, :all_events
select number, attempts, ev.*
from pq_chosen as batch, (select :as_event from pq_events as event) as ev
order by ev_id

-- name: finish
with pq_gone as (
  delete from :batches where number = %(batch)s returning *
), pq_retries as (
  insert into :batches (subscription, partition, seen, top, mark, upto, after, first, last, attempts, due_at)
  select gone.subscription, gone.partition, gone.seen, gone.top, gone.mark, gone.upto, retry.first - 1, retry.first,
    retry.last, retry.attempts, statement_timestamp() + make_interval(secs => retry.seconds)
  from pq_gone as gone, json_to_recordset(%(retries)s::json) as retry (
    first bigint, last bigint, attempts int, seconds float8
  )
)
select number from pq_gone

-- name: consumers
select name from :subscriptions order by name

-- name: subscribe_consumer
:subscribe

-- name: lock_consumer
:lock_positions

-- name: unsubscribe_consumer
:unsubscribe

-- name: tell_lost
:told_lost
