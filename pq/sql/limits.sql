-- What pq.limits does. Whoever changes a limit holds the lock of the table of the limits, so that two at once agree on which
-- queues are limited; whoever only takes away places locks the row of the limit.

-- name: list
select limits.name, limits.queues, limits.running, limits.rate, extract(epoch from limits.period)::float8, limits.per_key,
  limits.on_retry, limits.on_dead
from :limits_table as limits
where limits.name = coalesce(%(name)s::text, limits.name)
order by limits.name

-- name: taken
-- For each limit of running jobs the number of its places that are taken.
select limits.name, (
  select count(*) from :slots_table as slot where slot.name = limits.name and slot.kind = 'running' and not :is_free
)
from :limits_table as limits
where limits.running is not null
order by limits.name

-- name: lock
lock table :limits_table in share row exclusive mode

-- name: set
-- Returns the queues that the limit had before, and has now.
with pq_before as materialized (
  select limits.queues from :limits_table as limits where limits.name = %(name)s
), pq_set as (
  insert into :limits_table as limits (name, queues, running, rate, period, per_key, on_retry, on_dead)
  values (
    %(name)s, %(queues)s::text[], %(running)s, %(rate)s, make_interval(secs => %(period)s::float8), %(per_key)s,
    %(on_retry)s, %(on_dead)s
  )
  on conflict (name) do update set
    queues = excluded.queues, running = excluded.running, rate = excluded.rate, period = excluded.period,
    per_key = excluded.per_key, on_retry = excluded.on_retry, on_dead = excluded.on_dead
)
select before.queues from pq_before as before

-- name: remove
delete from :limits_table where name = %(name)s
returning queues

-- name: held_for
-- The limits of a queue, for whoever takes places away.
select limits.name from :limits_table as limits
where :is_limit_of
for update skip locked

-- name: kinds
pq_limit as materialized (
  select limits.name, limits.queues, kind.kind, kind.most, limits.period
  from :limits_table as limits,
    lateral (values ('running', limits.running), ('rate', limits.rate)) as kind (kind, most)
  where kind.most is not null and limits.name = any (coalesce(%(names)s::text[], array[limits.name]))
)

-- name: add_places
-- As many rows as the limit has places. Jobs that run already take one each: more than there are, if need be.
with :kinds, pq_added as (
  insert into :slots_table (name, kind, n)
  select limits.name, limits.kind, each.n from pq_limit as limits, generate_series(1, limits.most) as each (n)
  on conflict do nothing
)
insert into :slots_table (name, kind, n, job, taken_at)
select limits.name, limits.kind,
  greatest(
    limits.most,
    (select max(slot.n) from :slots_table as slot where slot.name = limits.name and slot.kind = limits.kind)
  ) + row_number() over (partition by limits.name),
  job.id, job.dequeued_at
from pq_limit as limits, :table as job
where limits.kind = 'running' and job.q_name = any (coalesce(limits.queues, array[limits.name])) and :is_running
  and not exists (
    select from :slots_table as slot
    where slot.name = limits.name and slot.kind = limits.kind and slot.job = job.id and slot.taken_at = job.dequeued_at
  )

-- name: remove_places
-- Those that are more than the limit has, as far as they are free and nobody has locked them. The others are taken away when
-- they are free: until then, no job begins.
with :kinds, pq_free as materialized (
  select free.* from pq_limit as limits, lateral (
    select slot.name, slot.kind, slot.n from :slots_table as slot
    where slot.name = limits.name and slot.kind = limits.kind and :is_free and :is_seen
    order by slot.n desc
    limit (
      select greatest(count(*) - limits.most, 0) from :slots_table as slot
      where slot.name = limits.name and slot.kind = limits.kind
    )
  ) as free
)
delete from :slots_table as slot using pq_free as free
where slot.name = free.name and slot.kind = free.kind and slot.n = free.n

-- name: number_places
-- Those that are left have the numbers from 1 on.
with :kinds, pq_gap as materialized (
  select limits.name, limits.kind, each.n, row_number() over (partition by limits.name, limits.kind order by each.n) as number
  from pq_limit as limits, generate_series(1, limits.most) as each (n)
  where not exists (
    select from :slots_table as slot where slot.name = limits.name and slot.kind = limits.kind and slot.n = each.n
  )
), pq_high as materialized (
  select high.*, row_number() over (partition by high.name, high.kind order by high.n) as number
  from pq_limit as limits, lateral (
    select slot.name, slot.kind, slot.n from :slots_table as slot
    where slot.name = limits.name and slot.kind = limits.kind and slot.n > limits.most
    for update skip locked
  ) as high
)
update :slots_table as slot set n = gap.n
from pq_gap as gap join pq_high as high using (name, kind, number)
where slot.name = high.name and slot.kind = high.kind and slot.n = high.n

-- name: forget_places
-- Those of limits that are no more. A block may have some, which are left.
with pq_left as materialized (
  select slot.name, slot.kind, slot.n from :slots_table as slot
  where not exists (
    select from :limits_table as limits
    where limits.name = slot.name
      and case slot.kind when 'rate' then limits.rate is not null else limits.running is not null end
  )
  for update of slot skip locked
)
delete from :slots_table as slot using pq_left as gone
where slot.name = gone.name and slot.kind = gone.kind and slot.n = gone.n

-- name: limited
-- The queues whose claims look at limits.
select coalesce(queue.name, limits.name) as name
from :limits_table as limits left join lateral unnest(limits.queues) as queue (name) on true
where limits.running is not null or limits.rate is not null

-- name: mark
insert into :table (q_name, data, dequeued_at, due_at)
select queue.name, '"limited"'::json, statement_timestamp(), '200000-01-02 00:00:00+00'::timestamptz
from (select distinct each.name from (:limited) as each) as queue
where not exists (select from :table as job where job.q_name = queue.name and :limit_marker)

-- name: unmark
delete from :table
where q_name = any (%(queues)s::text[]) and :limit_marker and q_name not in (select queue.name from (:limited) as queue)

-- name: wake
-- Notify whoever waits for these queues, and those who have left a gate.
select pg_notify('pq_' || to_hex(gate.key), '')
from (
  select queue.name as q_name, to_regclass(%(table)s)::oid as tableoid from unnest(%(queues)s::text[]) as queue (name)
) as changed, lateral (:gate) as gate

-- name: sharers
-- The queues with which a queue shares places.
select distinct coalesce(queue.name, limits.name)
from :limits_table as limits left join lateral unnest(limits.queues) as queue (name) on true
where limits.running is not null
  and :is_limit_of

-- name: check_keys
-- Have the keys of a queue looked at again that have jobs which wait.
insert into :checks_table (q_name, key, check_at)
select distinct q_name, key, statement_timestamp() from :table
where q_name = %(name)s and due_at = 'infinity' and dequeued_at is null and key is not null

-- name: reserve_tokens
-- For a transaction that stays open: a token of each rate for each job, for half a minute, on a connection of its own. The
-- last column is for how many jobs; if there are rates, there is at least one row.
with pq_limit as materialized (
  select limits.name, 'rate' as kind, limits.period,
    exists (
      select from :slots_table as slot where slot.name = limits.name and slot.kind = 'rate' and slot.n > limits.rate
    ) as is_over
  from :limits_table as limits
  where limits.rate is not null and limits.tableoid = (%(table)s::bigint)::oid
    and :is_limit_of
), pq_place as materialized (
  select place.*, row_number() over (partition by place.name) as number
  from pq_limit as limits, lateral (
    select slot.name, slot.kind, slot.n from (
      :free_slots
    ) as slot
    where not limits.is_over and :is_seen
    limit (select %(limit)s::bigint)
  ) as place
), pq_count as materialized (
  select min((select count(*) from pq_place as place where place.name = limits.name)) as most from pq_limit as limits
), pq_reserved as (
  update :slots_table as slot set job = null, taken_at = clock_timestamp() + interval '30 s'
  from pq_place as place, pq_count as counted
  where slot.name = place.name and slot.kind = place.kind and slot.n = place.n and place.number <= counted.most
  returning slot.name, slot.n, place.number
)
select reserved.name, reserved.n, reserved.number, counted.most
from pq_count as counted left join pq_reserved as reserved on true
where counted.most is not null

-- name: settle_tokens
update :slots_table as slot set taken_at = case when given.number <= %(used)s then clock_timestamp() end
from unnest(%(names)s::text[], %(ns)s::integer[], %(numbers)s::bigint[]) as given (name, n, number)
where slot.name = given.name and slot.kind = 'rate' and slot.n = given.n and slot.taken_at > clock_timestamp()
