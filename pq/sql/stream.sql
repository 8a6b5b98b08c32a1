-- The statements of a stream: what it is, publishing, subscriptions. Taking events is in stream_take.sql.

-- name: find
-- The comment of a table that may be a stream's log, and whether there is such a table.
select obj_description(to_regclass(%(log)s), 'pg_class'), to_regclass(%(log)s) is not null

-- name: publish
insert into :log (type, key, data, headers)
values (%(type)s, %(key)s, %(data)s, %(headers)s)
returning id

-- name: publish_plain
insert into :log (type, data) values (%(type)s, %(data)s) returning id

-- name: publish_many
-- An empty text is a null, but for the data.
insert into :log (type, key, data, headers)
select event.type, nullif(event.key, ''), event.data::json, nullif(event.headers, '')::json
from unnest(%(types)s::text[], %(keys)s::text[], %(data)s::text[], %(headers)s::text[])
  as event (type, key, data, headers)
returning id

-- name: publish_alike
-- Events of one type and key, with the same headers.
insert into :log (type, key, data, headers)
select %(type)s::text, %(key)s::text, event.data, %(headers)s::json from unnest(%(data)s::json[]) as event (data)
returning id

-- name: load
copy :log (type, key, headers, data) from stdin

-- name: subscribe
-- start: 'new', 'beginning' or 'id'. It begins with what is not visible to this statement, or behind the id `after`: of
-- that also what is not committed yet. No row: there is one of that name, or the queue of its retries is another one.
with pq_now as materialized (
  select pg_current_snapshot() as s, pg_current_xact_id_if_assigned() as own
), pq_made as (
  insert into :subscriptions (name, types, partitions, shared, max_retries, ordered)
  select %(subscription)s, %(types)s::text[], %(partitions)s, %(shared)s, coalesce(%(max_retries)s, 3),
    coalesce(%(ordered)s, 'aside')
  where not (:has_other_jobs)
  on conflict do nothing
  returning name
), pq_start as materialized (
  select made.name, :now_snapshot as now, :top as top, %(after)s::bigint as after from pq_made as made, pq_now as pq_now
)
insert into :positions (subscription, partition, seen, top, mark, upto, upto_top, after)
select start.name, n,
  case when start.after is null then start.now else '1:1:' end,
  case when start.after is null then start.top else '1' end,
  coalesce(start.after, (select id from :log order by id desc limit 1), 0),
  case when start.after is not null then start.now end,
  case when start.after is not null then start.top end,
  coalesce(start.after, 0)
from pq_start as start, generate_series(0, %(partitions)s - 1) as n
returning partition

-- name: set_options
-- Null leaves one as it is.
update :subscriptions set max_retries = coalesce(%(max_retries)s, max_retries), ordered = coalesce(%(ordered)s, ordered)
where name = %(subscription)s

-- name: has_other_jobs
-- Whether the queue has a job that is no event which was set aside; finished ones don't count.
select coalesce(
  (select id from :table where q_name = %(queue)s and :is_ready and :is_other order by q_name, expected_at, id limit 1),
  (select id from :table where q_name = %(queue)s and due_at is not null and :is_other order by q_name, due_at limit 1),
  (select id from :table where q_name = %(queue)s and :is_dead and :is_other order by q_name, dequeued_at, id limit 1)
) is not null

-- name: is_other
(
  (:marker) is not true
  and (json_typeof(data) <> 'object' or data -> 'id' is null or data -> 'at' is null or data -> 'headers' is null)
)

-- name: subscription
select name, types, partitions, shared, max_retries, ordered, created_at at time zone 'utc', paused_at at time zone 'utc'
from :subscriptions
where name = %(subscription)s

-- name: all_subscriptions
select name from :subscriptions
order by name collate "C"

-- name: pause
update :subscriptions set paused_at = case when %(paused)s then coalesce(paused_at, statement_timestamp()) end
where name = %(subscription)s
returning name

-- name: lock_positions
-- Whoever takes now has taken when this returns, and nobody begins to: the next statement sees all batches.
select from :positions where subscription = %(subscription)s
order by subscription, partition
for update

-- name: unsubscribe
with pq_gone as (
  delete from :subscriptions where name = %(subscription)s returning name
), pq_positions as (
  delete from :positions where subscription in (select name from pq_gone)
), pq_batches as (
  delete from :batches where subscription in (select name from pq_gone)
)
select name from pq_gone

-- name: at_home
-- Whether it is not from a restored dump. One that was restored beside a row that was there leaves two.
select bool_and(made_by = xmin and home = tableoid) from :origin

-- name: newest
-- For each partition of each subscription its position.
select position.*
from :subscriptions as its
  cross join lateral unnest(array(select generate_series(0, its.partitions - 1))) as n
  cross join lateral (
    select * from :positions as position where position.subscription = its.name and position.partition = n
    order by position.subscription, position.partition, position.version desc
    limit (select 1)
  ) as position

-- name: key_hash
-- Of the key of an event: of so many partitions, which one it is in.
(hashtextextended(coalesce(event.key, '') collate "C", 0) & 1073741823)

-- name: now_snapshot
-- The snapshot of the statement, with this transaction among those that are running: PostgreSQL leaves it out, and what it
-- publishes, before or after, is delivered when it has committed.
case
  when pq_now.own < pg_snapshot_xmax(pq_now.s) then (
    least(pg_snapshot_xmin(pq_now.s), pq_now.own) || ':' || pg_snapshot_xmax(pq_now.s) || ':' || (
      select string_agg(running.x::text, ',' order by running.x)
      from (select pg_snapshot_xip(pq_now.s) union select pq_now.own) as running (x)
    )
  )::pg_snapshot
  else pq_now.s
end

-- name: top
-- A number that all transactions are below which were running at the snapshot of this statement: they may be above the
-- snapshot's xmax (that is the last one that has ended), and then it does not name them. Null if this transaction had a
-- number before: then no such number is known.
case when pq_now.own is null then pg_current_xact_id() end

-- name: read
-- A look at events, by their ids.
select id, at at time zone 'utc', type, key, data::text, headers::text from :log
where id > %(after)s and (%(types)s::text[] is null or type = any (%(types)s::text[]))
order by id
limit %(limit)s

-- name: last_id
select coalesce((select id from :log order by id desc limit 1), 0), coalesce((select id from :log order by id limit 1), 0)

-- name: before
-- The id of the last event before a time, or of the one with which the log begins. Ids and times have nearly the same order:
-- so this halves the ids until the event is found, each time by one descent of the index.
with recursive pq_asked as materialized (
  select coalesce(%(at)s::timestamptz, statement_timestamp() - make_interval(secs => %(seconds)s::float8)) as at
), pq_span (low, high) as (
  select
    coalesce((select id from :log order by id limit 1), 1) - 1,
    coalesce((select id from :log order by id desc limit 1), 0) + 1
  union all
  select case when event.at < asked.at then event.id else span.low end,
    case when event.at < asked.at then span.high else (span.low + span.high) / 2 end
  from pq_span as span cross join pq_asked as asked
    left join lateral (
      select id, at from :log
      where id >= (span.low + span.high) / 2 and id < span.high
      order by id
      limit 1
    ) as event on true
  where span.high - span.low > 1
)
select low from pq_span order by high - low limit 1

-- name: told_lost
-- No row: another consumer tells it.
update :subscriptions as subscription set lost = 0
from (select name, lost from :subscriptions where name = %(subscription)s and lost > 0 for update skip locked) as was
where subscription.name = was.name
returning was.lost

-- name: seek
-- As subscribe; and what is in batches is not delivered again by these.
with pq_now as materialized (
  select pg_current_snapshot() as s, pg_current_xact_id_if_assigned() as own
), pq_start as materialized (
  select subscription.name, :now_snapshot as now, :top as top, %(after)s::bigint as after
  from :subscriptions as subscription, pq_now as pq_now
  where subscription.name = %(subscription)s
), pq_batches as (
  delete from :batches where subscription in (select name from pq_start)
)
update :positions as position set
  version = position.version + 1, moved_at = statement_timestamp(),
  seen = case when start.after is null then start.now else '1:1:' end,
  top = case when start.after is null then start.top else '1' end,
  mark = coalesce(start.after, (select id from :log order by id desc limit 1), 0),
  upto = case when start.after is not null then start.now end,
  upto_top = case when start.after is not null then start.top end,
  after = coalesce(start.after, 0)
from pq_start as start
where position.subscription = start.name
returning position.partition

-- name: size
-- The bytes of the log, when its first event was published, and the ids of the first and the last.
select
  (select sum(pg_total_relation_size(relid)) from pg_partition_tree(%(log)s) where isleaf)::bigint,
  (select at from :log order by id limit 1) at time zone 'utc',
  (select id from :log order by id limit 1), (select id from :log order by id desc limit 1)

-- name: database
select current_database()
