-- The functions of the extension pgq, as pq.pgqueue calls them.

-- name: is_installed
select exists (
    select from pg_catalog.pg_proc p
    join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    where n.nspname = 'pgq' and p.proname = 'next_batch_custom'
)

-- name: version
select pgq.version()

-- name: create
select pgq.create_queue(%(queue)s::text)

-- name: drop
select pgq.drop_queue(%(queue)s::text, %(force)s::boolean)

-- name: config
select pgq.set_queue_config(%(queue)s::text, %(name)s::text, %(value)s::text)

-- name: queue_info
select * from pgq.get_queue_info(%(queue)s::text)

-- name: consumer_info
select * from pgq.get_consumer_info(%(queue)s::text, %(consumer)s::text)

-- name: register
select pgq.register_consumer_at(%(queue)s::text, %(consumer)s::text, %(tick)s::bigint)

-- name: unregister
select pgq.unregister_consumer(%(queue)s::text, %(consumer)s::text)

-- name: insert
select pgq.insert_event(%(queue)s, %(type)s, %(data)s, %(extra1)s, %(extra2)s, %(extra3)s, %(extra4)s)

-- Where some are objects that the driver turns into text. The casts take the server a fifth of the time.
-- name: insert_cast
select pgq.insert_event(
    %(queue)s::text, %(type)s::text, %(data)s::text,
    %(extra1)s::text, %(extra2)s::text, %(extra3)s::text, %(extra4)s::text
)

-- The table is right until the end of the transaction. It has no default for the time of an event.
-- name: table
select pgq.quote_fqname(pgq.current_event_table(%(queue)s::text)), now()::text

-- name: copy
copy :table (:columns) from stdin

-- name: external_tick
select pgq.ticker(%(queue)s::text, %(tick)s::bigint, %(time)s::timestamptz, %(seq)s::bigint)

-- name: next
select batch_id, cur_tick_id, prev_tick_id, cur_tick_time, prev_tick_time, cur_tick_event_seq, prev_tick_event_seq
from pgq.next_batch_custom(
    %(queue)s::text, %(consumer)s::text, %(lag)s::interval, %(count)s::int, %(interval)s::interval
)

-- By the extension pgq_coop, which shares the batches of a consumer among its subconsumers.
-- name: next_coop
select b.id, i.tick_id, i.prev_tick_id, i.batch_end, i.batch_start, i.seq_end, i.seq_start
from pgq_coop.next_batch_custom(
    %(queue)s::text, %(consumer)s::text, %(subconsumer)s::text,
    %(lag)s::interval, %(count)s::int, %(interval)s::interval, %(dead)s::interval
) b (id)
left join lateral pgq.get_batch_info(b.id) i on true

-- name: register_coop
select pgq_coop.register_subconsumer(%(queue)s::text, %(consumer)s::text, %(subconsumer)s::text)

-- name: unregister_coop
select pgq_coop.unregister_subconsumer(%(queue)s::text, %(consumer)s::text, %(subconsumer)s::text, %(handling)s::int)

-- name: events
select ev_id, ev_time, ev_txid, ev_retry, ev_type, ev_data, ev_extra1, ev_extra2, ev_extra3, ev_extra4
from pgq.get_batch_events(%(batch)s::bigint) :condition

-- name: condition
where (:predicate)

-- Makes the cursor, and fetches from it what :fetch does.
-- name: open
select from pgq.get_batch_cursor(%(batch)s::bigint, %(cursor)s::text, 0, %(predicate)s::text); :fetch

-- name: fetch
fetch :size from :cursor

-- name: close
close :cursor

-- name: finish
select :schema.finish_batch(%(batch)s::bigint)

-- The events come again only if this finishes the batch: else somebody else has finished it.
-- name: finish_with_retries
with pq_finished as materialized (
    select :schema.finish_batch(%(batch)s::bigint) as batches
)
select batches, (
    select count(pgq.event_retry_raw(
        %(queue)s::text, %(consumer)s::text, current_timestamp + e.seconds * interval '1 second',
        e.id, e.time, e.retry + 1, e.type, e.data, e.extra1, e.extra2, e.extra3, e.extra4
    ))
    from json_to_recordset(%(events)s::json) e (
        seconds float8, id bigint, time timestamptz, retry int,
        type text, data text, extra1 text, extra2 text, extra3 text, extra4 text
    )
    where batches = 1
)
from pq_finished

-- The key is that of pgqueue: its ticker and this one exclude each other.
-- name: lock
select pg_catalog.pg_try_advisory_lock(d.oid::int, n.oid::int)
from pg_catalog.pg_database d, pg_catalog.pg_namespace n
where d.datname = current_catalog and n.nspname = 'pgq'

-- name: tick
select pgq.ticker()

-- name: retry
select pgq.maint_retry_events()

-- name: maintenance
select func_name, func_arg, pgq.quote_fqname(func_arg) from pgq.maint_operations()

-- name: vacuum
:verb :table

-- name: maintain
select :function()

-- name: maintain_one
select :function(%(argument)s::text)

-- For queues that are streams: what can't stand beside the statements of pgqueue_stream.sql, which are bound to a stream.

-- name: stream_copy
copy :log (:columns) from stdin

-- name: stream_filter
select * from (:events) as _evs where (:predicate) order by ev_id

-- name: stream_settings
comment on table :subscriptions is :text
