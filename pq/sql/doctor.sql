-- A statement for each check of pq/doctor/findings.py, whose texts name the columns; each row is a finding. No statement
-- reads more of the table than the ends of its indexes. What a role may not see of other sessions is null here.

-- name: timeouts
select current_setting('statement_timeout'), current_setting('lock_timeout')

-- name: restore
select
  set_config('statement_timeout', %(timeout)s, true), set_config('lock_timeout', %(lock_timeout)s, true)

-- name: beside_missing
select name from unnest(%(beside)s::text[]) as expected (name) where to_regclass(name) is null

-- name: index_missing
select name, place, definition
from unnest(%(indexes)s::text[], %(places)s::text[], %(definitions)s::text[]) as expected (name, place, definition)
where not exists (
  select from pg_index join pg_class on oid = indexrelid
  where indrelid = to_regclass(place) and relname = name
) and to_regclass(place) is not null

-- name: index_invalid
select indexrelid::regclass::text as name
from pg_index
where indrelid in (
  select to_regclass(name) from unnest(%(table)s::text || %(beside)s::text[]) as tables (name)
) and not indisvalid

-- name: trigger_missing
select name
from unnest(%(triggers)s::text[]) as expected (name)
where not exists (select from pg_trigger where tgrelid = to_regclass(%(table)s) and tgname = name)

-- name: trigger_disabled
select tgname as name, quote_ident(tgname) as quoted
from pg_trigger
where tgrelid = to_regclass(%(table)s) and tgname = any (%(triggers)s) and tgenabled in ('D', 'R')

-- name: trigger_obsolete
select tgname as name, quote_ident(tgname) as quoted
from pg_trigger
where tgrelid = to_regclass(%(table)s) and tgname = any (%(obsolete)s) and tgenabled in ('O', 'A')

-- name: index_obsolete
select indexrelid::regclass::text as name
from pg_index join pg_class on pg_class.oid = indexrelid
where indrelid = to_regclass(%(table)s) and relname in ('priority_idx_', 'priority_idx_no_')

-- name: table_locked
-- Sessions that lock out all puts and gets, and those that wait for such a lock, since all others wait behind these. What
-- is not known of a session, or of a prepared transaction, is taken to be old.
select
  coalesce(session.pid, 0) as pid, name,
  case
    when lock.pid is null then 'The prepared transaction ' || quote_literal(prepared.gid)
    else format('Session %%s (role %%s, application %%s)', lock.pid, usename, quote_literal(application_name))
  end as who,
  case
    when granted then 'has held'
    else format('waits, behind session %%s, for', array_to_string(pg_blocking_pids(lock.pid), ', '))
  end as has,
  regexp_replace(mode, '(.*)Lock', 'the lock \1') as mode, mode = 'AccessExclusiveLock' as hides,
  case mode when 'AccessExclusiveLock' then 'nobody can put, take or see jobs' else 'nobody can put or take jobs' end
    as effect,
  coalesce(date_trunc('second', began)::text, 'an unknown time') as since,
  extract(epoch from clock_timestamp() - began)::bigint as age,
  coalesce(left(regexp_replace(query, '\s+', ' ', 'g'), 200), 'unknown') as query,
  case
    when lock.pid is null then format('rollback prepared %%L;', prepared.gid)
    else format('select pg_terminate_backend(%%s);', lock.pid)
  end as command
from unnest(%(table)s::text || %(beside)s::text[]) as tables (name)
  join pg_locks as lock on relation = to_regclass(name)
  left join pg_stat_activity as session on session.pid = lock.pid
  left join lateral (
    select gid, prepared from pg_prepared_xacts join pg_locks as own on own.transactionid = transaction
    where own.pid is null and own.virtualtransaction = lock.virtualtransaction
    limit 1
  ) as prepared on lock.pid is null,
  lateral (select case when granted then coalesce(xact_start, prepared.prepared) else waitstart end) as since (began)
where lock.database = (select oid from pg_database where datname = current_database())
  and mode in ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
  and lock.pid is distinct from pg_backend_pid()
  and (began < clock_timestamp() - %(lock_age)s::interval) is not false
order by granted desc, began
limit %(at_most)s

-- name: old_transaction
-- A vacuum holds nothing back, and a parallel worker has its leader's snapshot. Of other databases only those count that
-- write: snapshots here go back to them, too.
select
  pid, usename as role, datname as database, application_name as application, state,
  date_trunc('second', xact_start) as since, extract(epoch from clock_timestamp() - xact_start)::bigint as age
from pg_stat_activity
where xact_start < clock_timestamp() - %(transaction_age)s::interval
  and (backend_xid is not null or (backend_xmin is not null and datname = current_database()))
  and pid <> pg_backend_pid() and leader_pid is null
  and pid not in (select pid from pg_stat_progress_vacuum)
order by xact_start
limit %(at_most)s

-- name: old_prepared_transaction
select
  gid, quote_literal(gid) as quoted, owner as role, database,
  date_trunc('second', prepared) as since, extract(epoch from clock_timestamp() - prepared)::bigint as age
from pg_prepared_xacts
where prepared < clock_timestamp() - %(transaction_age)s::interval
order by prepared
limit %(at_most)s

-- name: old_replication_slot
-- inactive_since: since PostgreSQL 17.
select
  slot_name as slot, quote_literal(slot_name) as quoted, slot_type as kind, active_pid as pid,
  coalesce(
    'in use by session ' || active_pid, 'not in use since ' || (to_jsonb(slot) ->> 'inactive_since'), 'not in use'
  ) as state,
  case when xmin is null then 'of the system catalogs' else 'of tables' end as rows,
  greatest(age(xmin), age(catalog_xmin)) as transactions
from pg_replication_slots as slot
where greatest(age(xmin), age(catalog_xmin)) > %(xmin_age)s
order by transactions desc
limit %(at_most)s

-- name: old_standby
select
  pid, usename as role, application_name as application, client_addr as address,
  date_trunc('second', backend_start) as since, age(backend_xmin) as transactions
from pg_stat_replication
where age(backend_xmin) > %(xmin_age)s
order by transactions desc
limit %(at_most)s

-- name: hidden_sessions
select count(*) as sessions, current_user as role, quote_ident(current_user) as quoted
from pg_stat_activity
where query = '<insufficient privilege>' and datname is not null
having count(*) > 0

-- name: idle_in_transaction
select
  pid, usename as role, application_name as application, state,
  date_trunc('second', state_change) as since, extract(epoch from clock_timestamp() - state_change)::bigint as age
from pg_stat_activity
where state like 'idle in transaction%%' and state_change < clock_timestamp() - %(idle_age)s::interval
  and pid <> pg_backend_pid()
  and pid in (
    select pid from pg_locks
    where granted and mode <> 'AccessShareLock' and relation = to_regclass(%(table)s)
      and database = (select oid from pg_database where datname = current_database())
  )
order by state_change
limit %(at_most)s

-- name: autovacuum_off
select
  'for the table' as scope, format('alter table %%s set (autovacuum_enabled = on);', pg_class.oid::regclass) as command
from pg_class, pg_options_to_table(reloptions)
where pg_class.oid = to_regclass(%(table)s) and option_name = 'autovacuum_enabled' and not option_value::boolean
union all
select 'on the server, by ' || name, format('alter system set %%I = on; select pg_reload_conf();', name)
from pg_settings
where name in ('autovacuum', 'track_counts') and setting = 'off'

-- name: dead_rows
select
  n_dead_tup as dead, n_live_tup as live, limits.due,
  date_trunc('second', greatest(last_vacuum, last_autovacuum)) as vacuumed_at,
  coalesce('last vacuumed ' || date_trunc('second', greatest(last_vacuum, last_autovacuum)), 'never vacuumed') as last,
  (select count(*) from pg_stat_progress_vacuum) as workers,
  current_setting('autovacuum_max_workers')::int as max_workers
from pg_stat_all_tables join pg_class on pg_class.oid = relid, lateral (
  select round(
    max(coalesce(own.value, current_setting('autovacuum_vacuum_threshold'))::numeric)
      filter (where option = 'autovacuum_vacuum_threshold')
    + max(coalesce(own.value, current_setting('autovacuum_vacuum_scale_factor'))::numeric)
      filter (where option = 'autovacuum_vacuum_scale_factor') * greatest(reltuples, 0)::numeric
  ) as due
  from unnest(array['autovacuum_vacuum_threshold', 'autovacuum_vacuum_scale_factor']) as option
  left join pg_options_to_table(reloptions) as own (name, value) on name = option
) as limits
where relid = to_regclass(%(table)s) and n_dead_tup > greatest(%(dead_rows)s, 2 * limits.due)

-- name: notify_queue
select round((usage * 100)::numeric, 1) as percent
from pg_notification_queue_usage() as usage
where usage > %(notify_queue)s

-- name: overdue_job
-- Of each queue the row that is due for the longest time: one descent of the index for each.
with recursive pq_head as (
  (
    select q_name, id, due_at, dequeued_at from :table
    where due_at is not null
    order by q_name, due_at
    limit 1
  )
  union all
  select following.* from pq_head, lateral (
    select q_name, id, due_at, dequeued_at from :table
    where due_at is not null and q_name > pq_head.q_name
    order by q_name, due_at
    limit 1
  ) as following
)
select
  q_name as queue, id, date_trunc('second', due_at) as since,
  extract(epoch from clock_timestamp() - greatest(due_at, :first_time))::bigint as age,
  case when dequeued_at is null then 'which was scheduled' else 'whose lease has expired' end as kind
from (select * from pq_head limit %(queues)s) as heads
where due_at < clock_timestamp() - %(overdue_age)s::interval and not exists (:mark)
order by due_at
limit %(at_most)s

-- name: waiting_job
-- Of each queue the ready row that is to be taken next.
with recursive pq_head as (
  (
    select q_name, id, enqueued_at, schedule_at from :table
    where :is_ready
    order by q_name, expected_at, id
    limit 1
  )
  union all
  select following.* from pq_head, lateral (
    select q_name, id, enqueued_at, schedule_at from :table
    where :is_ready and q_name > pq_head.q_name
    order by q_name, expected_at, id
    limit 1
  ) as following
)
select
  q_name as queue, id, date_trunc('second', ready_at) as since,
  extract(epoch from clock_timestamp() - ready_at)::bigint as age
from (select *, greatest(enqueued_at, schedule_at) as ready_at from pq_head limit %(queues)s) as heads
where ready_at < clock_timestamp() - %(waiting_age)s::interval and not exists (:mark)
order by ready_at
limit %(at_most)s

-- name: mark
-- That the queue is paused.
select dequeued_at from :table as mark where mark.q_name = heads.q_name and :pause_marker

-- name: paused_queue
-- A queue that is paused has a row with a due_at.
with recursive pq_head as (
  (select q_name from :table where due_at is not null order by q_name, due_at limit 1)
  union all
  select following.* from pq_head, lateral (
    select q_name from :table where due_at is not null and q_name > pq_head.q_name order by q_name, due_at limit 1
  ) as following
)
select
  q_name as queue, date_trunc('second', since) as since, extract(epoch from clock_timestamp() - since)::bigint as age,
  case when count > %(counted)s then %(counted)s || ' or more' else count::text end as jobs
from (
  select heads.q_name, mark.dequeued_at as since
  from (select * from pq_head limit %(queues)s) as heads, lateral (:mark limit 1) as mark
) as paused, lateral (
  select count(*) as count from (
    (
      select 1 from :table as job where job.q_name = paused.q_name and :is_ready
      order by job.q_name, job.expected_at, job.id
      limit %(counted)s + 1
    )
    union all
    (
      select 1 from :table as job where job.q_name = paused.q_name and :is_due
      order by job.q_name, job.due_at
      limit %(counted)s + 1
    )
  ) as jobs
) as counted
where count > 0
order by since
limit %(at_most)s

-- name: dead_jobs
-- The queues in which a job died last.
with recursive pq_head as (
  (
    select q_name, id, dequeued_at from :table
    where :is_dead
    order by q_name desc, dequeued_at desc, id desc
    limit 1
  )
  union all
  select following.* from pq_head, lateral (
    select q_name, id, dequeued_at from :table
    where :is_dead and q_name < pq_head.q_name
    order by q_name desc, dequeued_at desc, id desc
    limit 1
  ) as following
)
select
  q_name as queue, id, date_trunc('second', dequeued_at) as since,
  extract(epoch from clock_timestamp() - dequeued_at)::bigint as age,
  case when count > %(counted)s then %(counted)s || ' or more' else count::text end as jobs
from (
  select * from (select * from pq_head limit %(queues)s) as heads order by dequeued_at desc limit %(at_most)s
) as heads, lateral (
  select count(*) as count from (
    select 1 from :table as job where job.q_name = heads.q_name and :is_dead
    order by job.q_name, job.dequeued_at, job.id
    limit %(counted)s + 1
  ) as jobs
) as counted
order by dequeued_at desc

-- name: full_limit
-- Limits whose places are all taken, the last one long ago, while a job of their queues is ready.
select
  limits.name, limits.running, queue.name as queue, date_trunc('second', place.since) as since,
  extract(epoch from clock_timestamp() - place.since)::bigint as age
from :limits_table as limits, lateral (
  select max(slot.taken_at) as since from :slots_table as slot
  where slot.name = limits.name and slot.kind = 'running' and not :is_free
  having count(*) >= limits.running
) as place, lateral (
  select sharer.name from unnest(coalesce(limits.queues, array[limits.name])) as sharer (name)
  where (
    select id from :table as job where job.q_name = sharer.name and :is_ready
    order by job.q_name, job.expected_at, job.id
    limit 1
  ) is not null
  limit 1
) as queue
where place.since < clock_timestamp() - %(full_age)s::interval
order by place.since
limit %(at_most)s

-- name: broken_limit
-- What belongs to a limit beside its row: as many places and tokens as it says, and a mark of each of its queues.
select name, problem
from (
  select limits.name, format('%%s of its %%s %%s are missing, so jobs wait that could begin', most - count, most, places)
    as problem
  from :limits_table as limits,
    lateral (values ('running', limits.running, 'places'), ('rate', limits.rate, 'tokens')) as kind (kind, most, places),
    lateral (
      select count(*) as count from :slots_table as slot where slot.name = limits.name and slot.kind = kind.kind
    ) as counted
  where most > count
  union all
  select limits.name, format('queue %%L has no mark of it, so its jobs begin without limit', queue.name)
  from :limits_table as limits, unnest(coalesce(limits.queues, array[limits.name])) as queue (name)
  where (limits.running is not null or limits.rate is not null)
    and not exists (select from :table as job where job.q_name = queue.name and :limit_marker)
) as broken
order by name, problem
limit %(at_most)s

-- name: overdue_schedule
select
  name, q_name as queue, date_trunc('second', next_at) as since,
  extract(epoch from clock_timestamp() - next_at)::bigint as age
from :schedules_table
where not paused and error is null and next_at < clock_timestamp() - %(overdue_age)s::interval
order by next_at
limit %(at_most)s

-- name: failed_schedule
-- The ticker writes down an error, and takes it away when it has fired.
select
  name, q_name as queue, date_trunc('second', next_at) as since, error,
  case when paused then ', and is paused' else '' end as state
from :schedules_table
where error is not null
order by next_at
limit %(at_most)s

-- name: not_durable
select name from pg_settings where name in ('fsync', 'full_page_writes') and setting = 'off'

-- name: table_unlogged
select oid::regclass::text as name from pg_class where oid = to_regclass(%(table)s) and relpersistence = 'u'

-- name: synchronous_commit_off
select source from pg_settings where name = 'synchronous_commit' and setting = 'off'

-- name: connections
select used, allowed
from
  (select sum(numbackends) as used from pg_stat_database) as statistics,
  (
    select current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
      - coalesce(current_setting('reserved_connections', true)::int, 0) as allowed
  ) as settings
where used > %(connections)s * allowed

-- name: ids
-- A sequence that the role may not read is taken to be where the ids are.
select last, largest
from (
  select
    atttypid,
    coalesce(
      case when has_sequence_privilege(sequence, 'usage, select') then pg_sequence_last_value(sequence) end,
      (select max(id) from :table)
    ) as last,
    least(
      (select seqmax from pg_sequence where seqrelid = sequence),
      case atttypid when 'int2'::regtype then 32767 when 'int4'::regtype then 2147483647 else 9223372036854775807 end
    ) as largest
  from pg_attribute, cast(pg_get_serial_sequence(%(table)s, 'id') as regclass) as sequence
  where attrelid = to_regclass(%(table)s) and attname = 'id'
) as ids
where last > %(ids)s * largest

-- name: sequence_behind
-- The snapshot, in which max(id) is read, is older than the look at the sequence: a put between the two does not count.
select sequence::text as sequence, last, largest, format(
    'select setval(%%L, (select max(id) from %%s));', sequence::text, to_regclass(%(table)s)
  ) as command
from (
  select sequence, coalesce(pg_sequence_last_value(sequence), seqstart - seqincrement) as last,
    (select max(id) from :table) as largest
  from cast(pg_get_serial_sequence(%(table)s, 'id') as regclass) as sequence join pg_sequence on seqrelid = sequence
  where has_sequence_privilege(sequence, 'usage, select')
) as ids
where last < largest

-- name: retention_unlimited
-- The number of rows is the planner's estimate. Ids are by and large in the order of time.
select reltuples::bigint as rows, date_trunc('second', since) as since
from pg_class, lateral (
  select min(dequeued_at) as since
  from (select dequeued_at, due_at, error from :table order by id limit %(counted)s) as oldest
  where :is_finished
) as finished
where pg_class.oid = to_regclass(%(table)s) and reltuples >= %(many_rows)s and since is not null

-- name: retention_overdue
-- Of the oldest rows one that is finished, and the job that is dead for the longest time, of the first queues that have
-- some. "kept" is null for what is kept for ever.
select
  id, q_name as queue, state, date_trunc('second', dequeued_at) as since, justify_hours(make_interval(secs => kept))::text as kept,
  extract(epoch from clock_timestamp() - dequeued_at)::bigint as age
from (
  (
    select id, q_name, dequeued_at, 'finished' as state, %(finished_kept)s::float8 as kept
    from (
      select id, q_name, dequeued_at, due_at, error, unique_until from :table order by id limit %(counted)s
    ) as oldest
    where :is_finished and not (:in_window)
    order by dequeued_at
    limit 1
  )
  union all
  (
    select id, q_name, dequeued_at, 'dead', %(dead_kept)s::float8 from (
      with recursive pq_head as (
        (
          select id, q_name, dequeued_at, unique_until from :table where :is_dead
          order by q_name, dequeued_at, id
          limit 1
        )
        union all
        select following.* from pq_head, lateral (
          select id, q_name, dequeued_at, unique_until from :table where :is_dead and q_name > pq_head.q_name
          order by q_name, dequeued_at, id
          limit 1
        ) as following
      )
      select * from pq_head limit %(queues)s
    ) as heads
    where not (:in_window)
    order by dequeued_at
    limit 1
  )
) as oldest
where dequeued_at < clock_timestamp() - make_interval(secs => kept) - %(prune_age)s::interval

-- name: rights
select current_user::text as role, missing, command
from (
  select
    string_agg(name, ', ') as missing,
    format('grant %%s on %%s to %%I;', string_agg(name, ', '), %(table)s::text, current_user) as command
  from unnest(array['select', 'insert', 'update', 'delete']) as name
  where not has_table_privilege(to_regclass(%(table)s), name)
  union all
  select 'usage of ' || sequence, format('grant usage on sequence %%s to %%I;', sequence, current_user)
  from cast(case when to_regclass(%(table)s) is not null then pg_get_serial_sequence(%(table)s, 'id') end as regclass)
    as sequence
  where not has_sequence_privilege(sequence, 'usage')
) as needed
where missing is not null

-- name: read_only
select
  current_user::text as role,
  case when pg_is_in_recovery() then 'the server is a standby' else 'default_transaction_read_only is on' end as reason
where pg_is_in_recovery() or current_setting('default_transaction_read_only') = 'on'

-- name: clock
select extract(epoch from clock_timestamp())::float8 as now
