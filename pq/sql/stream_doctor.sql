-- What the doctor looks for in one stream. Each statement returns a row for each finding; its columns are words of the
-- text.

-- name: stream_restored
select %(stream)s as stream where not (:at_home)

-- name: stream_unread
-- Subscriptions whose first unread event is old. An event is looked for behind the position alone: late ones are young.
select %(stream)s as stream, position.subscription, event.at::text as since,
  extract(epoch from clock_timestamp() - event.at)::int as age,
  (select id from :log order by id desc limit 1) - greatest(position.mark, position.after) as events
from (:newest) as position
  join :subscriptions as its on its.name = position.subscription
  cross join lateral (
    select at from :log
    where id > greatest(position.mark, position.after) and (its.types is null or type = any (its.types))
      and not pg_visible_in_snapshot(txid, position.seen)
    order by id
    limit 1
  ) as event
where event.at < clock_timestamp() - 3 * make_interval(secs => %(retain)s)
order by event.at
limit %(at_most)s

-- name: stream_not_rotated
select %(stream)s as stream, event.at::text as since, extract(epoch from clock_timestamp() - event.at)::int as age,
  (select sum(pg_total_relation_size(relid)) from pg_partition_tree(%(log)s) where isleaf)::bigint as bytes
from (select at from :log order by id limit 1) as event
where event.at < clock_timestamp() - 4 * make_interval(secs => %(retain)s)

-- name: stream_sequence_cache
select %(stream)s as stream, seqcache as cache from pg_sequence where seqrelid = to_regclass(%(event_id)s) and seqcache > 1
