-- The events of a stream that pq.testing performs.

-- name: has_log
select to_regclass(%(log)s) is not null

-- name: published
-- The events that this transaction has published, and that were not performed yet.
select event.id from :log as event
where event.txid = pg_current_xact_id_if_assigned()
  and event.id > coalesce(nullif(current_setting(%(setting)s, true), ''), '0')::bigint
order by event.id

-- name: performed
select set_config(%(setting)s, %(id)s::bigint::text, true)
