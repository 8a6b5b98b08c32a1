-- What is going on in all queues, for people and for monitoring. No statement here reads more rows of a queue than its cap,
-- whatever the size of the table, unless exact numbers were asked for. As in claim.sql, "order by" repeats the key of an
-- index, and inner limits are subqueries: the planner then reads the index in order, and no more of it than is wanted.

-- name: overview
-- For each queue with jobs that are not finished, or paused: its numbers of jobs, those above the cap counted as one; since
-- when its next job is ready; when the first scheduled one will be; whether it is paused, and limited; how many sessions
-- wait for it. Beside each queue stand the server's time and what there is to tell of the table; if there are no queues,
-- these stand alone.
with recursive :names_found, :waits :count_parts, pq_known as materialized (
  select names.q_name, pq_given.oid as tableoid from pq_names as names, (select to_regclass(%(table)s)::oid) as pq_given (oid)
)
select
  statement_timestamp() at time zone 'utc', :about_table,
  queue.*
from (select) as pq_one left join lateral (
  select
    changed.q_name, counted.ready, counted.scheduled, counted.held, counted.running, counted.dead,
    :since at time zone 'utc' as since,
    (
      select :due_time at time zone 'utc' from :table as job
      where job.q_name = changed.q_name and :is_scheduled
      order by job.q_name, job.due_at
      limit 1
    ),
    exists (select from :table as job where job.q_name = changed.q_name and :pause_marker),
    exists (select from :table as job where job.q_name = changed.q_name and :limit_marker),
    coalesce((
      select waits.count from pq_waits as waits where waits.key = (select gate.key from (:gate) as gate)
    ), 0)
  from pq_known as changed :counted
) as queue on true
order by queue.q_name

-- name: about_table
-- Its size with the tables of long values, and its indexes; its dead rows; how old the oldest transaction is; and the
-- server's version.
pg_total_relation_size(to_regclass(%(table)s)),
  pg_stat_get_dead_tuples(to_regclass(%(table)s)),
  (
    select extract(epoch from clock_timestamp() - min(xact_start))::float8 from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid()
  ),
  current_setting('server_version')

-- name: waits
-- The gates that sessions of this database hold; see waiting.sql.
pq_waits as materialized (
  select (locks.classid::bigint << 32) | locks.objid::bigint as key, count(*) as count from pg_locks as locks
  where locks.locktype = 'advisory' and locks.objsubid = 1 and locks.granted and locks.mode = 'ShareLock'
    and locks.database = (select oid from pg_database where datname = current_database())
  group by 1
)

-- name: since
-- Since when the job has been ready that is taken next: the first with a priority, or without one, or the first that has
-- become due, whichever has been so for longest. Times are clamped to what Python can hold.
least(
      (
        select :ready_time from :table as job
        where job.q_name = changed.q_name and :is_ready
        order by job.q_name, job.expected_at, job.id
        limit 1
      ),
      (
        select :ready_time from :table as job
        where job.q_name = changed.q_name and :is_ready and job.expected_at is null
        order by job.q_name, job.expected_at, job.id
        limit 1
      ),
      (
        select :due_time from :table as job
        where job.q_name = changed.q_name and :is_due
        order by job.q_name, job.due_at
        limit 1
      )
    )

-- name: ready_time
least(greatest(job.enqueued_at, job.schedule_at, '0001-01-01 00:00:00+00'), '9999-12-31 23:59:59.999999+00')

-- name: due_time
least(greatest(job.due_at, '0001-01-01 00:00:00+00'), '9999-12-31 23:59:59.999999+00')

-- name: count_parts

-- name: counted
-- Each number is one more than the cap at most.
, lateral (
    select
      (
        select count(*) from (
          select from :table as job where job.q_name = changed.q_name and :is_ready
          order by job.q_name, job.expected_at, job.id
          limit (select %(cap)s::bigint + 1)
        ) as pq_some
      ) + (
        select count(*) from (
          select from :table as job where job.q_name = changed.q_name and :is_due
          order by job.q_name, job.due_at
          limit (select %(cap)s::bigint + 1)
        ) as pq_some
      ) as ready,
      pending.scheduled, pending.running,
      (
        select count(*) from (
          select from :table as job where job.q_name = changed.q_name and :is_held
          order by job.q_name, job.due_at
          limit (select %(cap)s::bigint + 1)
        ) as pq_some
      ) as held,
      (
        select count(*) from (
          select from :table as job where job.q_name = changed.q_name and :is_dead
          order by job.q_name, job.dequeued_at, job.id
          limit (select %(cap)s::bigint + 1)
        ) as pq_some
      ) as dead
    from (
      select
        count(*) filter (where dequeued_at is null) as scheduled,
        count(*) filter (where dequeued_at is not null) as running
      from (
        select job.dequeued_at from :table as job
        where job.q_name = changed.q_name and job.due_at > statement_timestamp() and job.due_at < 'infinity'
          and (:marker) is not true
        order by job.q_name, job.due_at
        limit (select %(cap)s::bigint + 1)
      ) as pq_some
    ) as pending
  ) as counted

-- name: count_exactly
-- In place of "count_parts".
, pq_ready_number as materialized (
  select job.q_name, count(*) as count from :table as job where :is_ready group by job.q_name
), pq_due_number as materialized (
  select
    job.q_name,
    count(*) filter (where :is_due) as due,
    count(*) filter (where :is_scheduled) as scheduled,
    count(*) filter (where :is_held) as held,
    count(*) filter (where :is_running) as running
  from :table as job where job.due_at is not null group by job.q_name
), pq_dead_number as materialized (
  select job.q_name, count(*) as count from :table as job where :is_dead group by job.q_name
)

-- name: counted_exactly
-- In place of "counted".
left join lateral (
    select
      coalesce(ready.count, 0) + coalesce(due.due, 0) as ready, coalesce(due.scheduled, 0) as scheduled,
      coalesce(due.held, 0) as held, coalesce(due.running, 0) as running, coalesce(dead.count, 0) as dead
    from (select) as pq_one
      left join pq_ready_number as ready on ready.q_name = changed.q_name
      left join pq_due_number as due on due.q_name = changed.q_name
      left join pq_dead_number as dead on dead.q_name = changed.q_name
  ) as counted on true

-- name: task
-- The task that a job calls, as pq writes it: the first member of an object. Not by ->>, which reads all of the data, and
-- fails at what JSON allows and a text can't hold. The rest of the name stays escaped.
substring(left(job.data::text, 1000) from E'^\\s*\\{\\s*"function"\\s*:\\s*"((?:[^"\\\\]|\\\\.)*)"')

-- name: shown
-- What a running job has told of its progress, unless it is long.
case when pg_column_size(job.result) <= 10000 then job.result::text end

-- name: running
-- The jobs that run under a lease, of all queues, the longest first.
with recursive :names_found
select
  job.id, job.q_name, job.task, job.worker, job.attempts, job.dequeued_at at time zone 'utc', job.due_at at time zone 'utc',
  job.progress
from pq_names as names, lateral (
  select job.id, job.q_name, :task as task, job.worker, job.attempts, job.dequeued_at, job.due_at, :shown as progress
  from :table as job
  where job.q_name = names.q_name and :is_running
  order by job.q_name, job.due_at
  limit (select %(limit)s::bigint)
) as job
order by job.dequeued_at, job.id
limit %(limit)s

-- name: dead
-- The newest dead jobs of each queue, with the beginning of their errors.
with recursive :dead_names
select job.id, job.q_name, job.task, job.error, job.died_at at time zone 'utc'
from pq_names as names, lateral (
  select job.id, job.q_name, :task as task, left(job.error, 4000) as error, job.dequeued_at as died_at
  from :table as job
  where job.q_name = names.q_name and :is_dead
  order by job.q_name desc, job.dequeued_at desc, job.id desc
  limit (select %(cap)s::bigint + 1)
) as job
where %(queue)s::text is null or names.q_name = %(queue)s

-- name: dead_names
pq_dead as (
  (select job.q_name from :table as job where :is_dead order by q_name, dequeued_at, id limit 1)
  union all
  select (
    select job.q_name from :table as job where :is_dead and job.q_name > before.q_name
    order by job.q_name, dequeued_at, id limit 1
  ) from pq_dead as before where before.q_name is not null
), pq_names as materialized (
  select dead.q_name from pq_dead as dead where dead.q_name is not null
)

-- name: sessions
-- The sessions that wait for jobs, and for which of these queues.
with recursive :names_found, pq_known as materialized (
  select names.q_name, pq_given.oid as tableoid from pq_names as names, (select to_regclass(%(table)s)::oid) as pq_given (oid)
), pq_gates as materialized (
  select changed.q_name, (select gate.key from (:gate) as gate) as key from pq_known as changed
)
select
  locks.pid, activity.application_name, host(activity.client_addr),
  array_agg(gates.q_name order by gates.q_name)
from pg_locks as locks
  join pq_gates as gates on gates.key = (locks.classid::bigint << 32) | locks.objid::bigint
  left join pg_stat_activity as activity on activity.pid = locks.pid
where locks.locktype = 'advisory' and locks.objsubid = 1 and locks.granted and locks.mode = 'ShareLock'
  and locks.database = (select oid from pg_database where datname = current_database())
group by 1, 2, 3
order by 1

-- name: history
-- What has ended among the newest rows, by minute, queue and task.
select
  date_trunc('minute', ended.at) at time zone 'utc', ended.q_name, ended.task, count(*),
  count(*) filter (where ended.is_dead), count(*) filter (where ended.attempts > 1),
  avg(ended.waited)::float8, max(ended.waited)::float8, avg(ended.ran)::float8, max(ended.ran)::float8,
  max(ended.looked), min(ended.lowest)
from (
  select
    coalesce(job.finished_at, job.dequeued_at) as at, job.q_name, :task as task, job.attempts, false as is_dead,
    extract(epoch from job.dequeued_at - greatest(job.enqueued_at, job.schedule_at)) as waited,
    extract(epoch from job.finished_at - job.dequeued_at) as ran,
    count(*) over () as looked, min(job.id) over () as lowest
  from (
    select * from :table order by id desc limit (select %(cap)s::bigint)
  ) as job
  where :is_finished
) as ended
where ended.at > statement_timestamp() - make_interval(mins => %(minutes)s)
group by 1, 2, 3
order by 1, 2, 3
