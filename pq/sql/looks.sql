-- What is going on in all queues, for people and for monitoring. No statement here reads more rows of a queue than its cap,
-- whatever the size of the table, unless exact numbers were asked for. As in claim.sql, "order by" repeats the key of an
-- index, and inner limits are subqueries: the planner then reads the index in order, and no more of it than is wanted.

-- name: overview
-- For each queue with jobs that are not finished, or paused: its numbers of jobs, those above the cap counted as one; since
-- when its next job is ready; when the first scheduled one will be; whether it is paused, and limited; how many sessions
-- wait for it. Beside each queue stand the server's time and what there is to tell of the table; if there are no queues,
-- these stand alone.
with recursive :names_found, :waits :count_parts, :known
select
  statement_timestamp() at time zone 'utc', :about_table,
  queue.*
from (select) as pq_one left join lateral (
  select
    changed.q_name, counted.ready, counted.scheduled, counted.held, counted.running, counted.dead,
    counted.scheduled_is_cut, counted.running_is_cut,
    :since at time zone 'utc' as since,
    (
      select min(:due_time) filter (where :is_scheduled) at time zone 'utc' from (
        select job.due_at, job.dequeued_at from :table as job
        where job.q_name = changed.q_name and :is_due_later
        order by job.q_name, job.due_at
        limit (select counted.running + 1)
      ) as job
    ),
    (select id from :table as job where job.q_name = changed.q_name and :pause_marker order by job.q_name, job.due_at limit 1) is not null,
    (select id from :table as job where job.q_name = changed.q_name and :limit_marker order by job.q_name, job.due_at limit 1) is not null,
    coalesce((
      select waits.count from pq_waits as waits where waits.key = (select gate.key from (:gate) as gate)
    ), 0)
  from pq_known as changed :counted
) as queue on true
order by queue.q_name

-- name: known
-- The queues, as `gate` needs them.
pq_known as materialized (
  select names.q_name, pq_given.oid as tableoid from pq_names as names, (select to_regclass(%(table)s)::oid) as pq_given (oid)
)

-- name: about_table
-- Its size with the tables of long values, and its indexes; its dead rows, and how many were inserted, by the server's
-- statistics; how old the oldest transaction is; and the server's version.
pg_total_relation_size(to_regclass(%(table)s)),
  pg_stat_get_dead_tuples(to_regclass(%(table)s)),
  pg_stat_get_tuples_inserted(to_regclass(%(table)s)),
  (
    select extract(epoch from clock_timestamp() - min(xact_start))::float8 from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid()
  ),
  current_setting('server_version')

-- name: waits
-- The gates that sessions of this database hold; see waiting.sql.
pq_waits as materialized (
  select :gate_of_lock as key, count(*) as count from pg_locks as locks
  where :is_gate
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
least(greatest(job.enqueued_at, job.schedule_at, :first_time), :last_time)

-- name: due_time
least(greatest(job.due_at, :first_time), :last_time)

-- name: taken_time
least(greatest(job.dequeued_at, :first_time), :last_time)

-- name: end_time
case when job.finished_at is not null then least(greatest(job.finished_at, :first_time), :last_time) end

-- name: count_parts

-- name: counted
-- Each number is one more than the cap at most; of two it is told, too, whether the look was cut. Within the indexes
-- alone, but for the running rows: what is due later and does not run is scheduled. The newest running rows are looked at
-- first, since those in front of them may have expired.
, lateral (
    select count(*) filter (where :is_running) as count, count(*) as seen, count(*) > %(cap)s as is_cut
    from (
      select job.due_at, job.dequeued_at from :table as job
      where job.q_name = changed.q_name and :has_lease
      order by job.q_name desc, job.dequeued_at desc, job.id desc
      limit (select %(cap)s::bigint + 1)
    ) as pq_some
  ) as running, lateral (
    select
      :ready_number + :due_number as ready,
      case when running.is_cut then pq_pending.scheduled else pq_later.number - running.count end as scheduled,
      running.is_cut and pq_pending.is_cut as scheduled_is_cut,
      :held_number as held, running.count as running, running.is_cut as running_is_cut, :dead_number as dead
    from (
        select count(*) as number from (
          select from :table as job
          where not running.is_cut and job.q_name = changed.q_name and :is_due_later
          order by job.q_name, job.due_at
          limit (select running.count + %(cap)s::bigint + 1)
        ) as pq_some
      ) as pq_later, (
        select count(*) filter (where dequeued_at is null) as scheduled, count(*) > %(cap)s as is_cut
        from (
          select job.dequeued_at from :table as job
          where running.is_cut and job.q_name = changed.q_name and :is_due_later
          order by job.q_name, job.due_at
          limit (select %(cap)s::bigint + 1)
        ) as pq_some
      ) as pq_pending
  ) as counted

-- name: ready_number
(
        select count(*) from (
          select from :table as job where job.q_name = changed.q_name and :is_ready
          order by job.q_name, job.expected_at, job.id
          limit (select %(cap)s::bigint + 1)
        ) as pq_some
      )

-- name: due_number
(
        select count(*) from (
          select from :table as job where job.q_name = changed.q_name and :is_due
          order by job.q_name, job.due_at
          limit (select %(cap)s::bigint + 1)
        ) as pq_some
      )

-- name: held_number
-- No row that is taken has this time.
(
        select count(*) from (
          select from :table as job where job.q_name = changed.q_name and job.due_at = 'infinity'
          order by job.q_name, job.due_at
          limit (select %(cap)s::bigint + 1)
        ) as pq_some
      )

-- name: dead_number
(
        select count(*) from (
          select from :table as job where job.q_name = changed.q_name and :is_dead
          order by job.q_name, job.dequeued_at, job.id
          limit (select %(cap)s::bigint + 1)
        ) as pq_some
      )

-- name: count_exactly
-- In place of "count_parts". Each index is read to its end, in its order.
, pq_ready_number as materialized (
  select counted.q_name, count(*) as count from (
    select q_name from :table where :is_ready order by q_name, expected_at, id limit (select null::bigint)
  ) as counted
  group by counted.q_name
), pq_due_number as materialized (
  select
    counted.q_name,
    count(*) filter (where due_at <= statement_timestamp()) as due,
    count(*) filter (where :is_due_later) as later,
    count(*) filter (where due_at = 'infinity') as held
  from (
    select q_name, due_at from :table where due_at is not null order by q_name, due_at limit (select null::bigint)
  ) as counted
  group by counted.q_name
), pq_running_number as materialized (
  select counted.q_name, count(*) as count from (
    select q_name from :table where :is_running order by q_name, dequeued_at, id limit (select null::bigint)
  ) as counted
  group by counted.q_name
), pq_dead_number as materialized (
  select counted.q_name, count(*) as count from (
    select q_name from :table where :is_dead order by q_name, dequeued_at, id limit (select null::bigint)
  ) as counted
  group by counted.q_name
)

-- name: counted_exactly
-- In place of "counted".
left join lateral (
    select
      coalesce(ready.count, 0) + coalesce(due.due, 0) as ready,
      coalesce(due.later, 0) - coalesce(running.count, 0) as scheduled, false as scheduled_is_cut,
      coalesce(due.held, 0) as held, coalesce(running.count, 0) as running, false as running_is_cut,
      coalesce(dead.count, 0) as dead
    from (select) as pq_one
      left join pq_ready_number as ready on ready.q_name = changed.q_name
      left join pq_due_number as due on due.q_name = changed.q_name
      left join pq_running_number as running on running.q_name = changed.q_name
      left join pq_dead_number as dead on dead.q_name = changed.q_name
  ) as counted on true

-- name: shown
-- What a running job has told of its progress, unless it is long.
case when pg_column_size(job.result) <= 10000 then job.result::text end

-- name: running
-- The jobs that run under a lease, of all queues, the longest first. Of a queue no more than a thousand jobs are passed over
-- whose lease has expired.
with recursive :names_found, pq_longest as materialized (
  select longest.id from pq_names as names, lateral (
    select leased.id, leased.dequeued_at from (
      select job.id, job.q_name, job.dequeued_at, job.due_at from :table as job
      where job.q_name = names.q_name and :has_lease
      order by job.q_name, job.dequeued_at, job.id
      limit (select %(limit)s::bigint + 1000)
    ) as leased
    where :is_running
    order by leased.dequeued_at, leased.id
    limit (select %(limit)s::bigint)
  ) as longest
  order by longest.dequeued_at, longest.id
  limit %(limit)s
)
select
  job.id, job.q_name, :task, job.worker, job.attempts, :taken_time at time zone 'utc', :due_time at time zone 'utc', :shown
from :table as job
where job.id = any (array(select longest.id from pq_longest as longest)) and :is_running
order by job.dequeued_at, job.id

-- name: dead
-- The newest dead jobs of each queue, or of one, with the beginning of their errors; how many of a queue may count, of which
-- there is one more. All queues share five times as many as are looked at of one.
with recursive :dead_names, pq_most as materialized (
  select least(%(cap)s, greatest(1, 5 * %(cap)s / greatest(count(*), 1))) as most from pq_names
)
select job.id, job.q_name, job.task, job.error, job.died_at at time zone 'utc', state.most
from pq_most as state, pq_names as names, lateral (
  select job.id, job.q_name, :task as task, left(job.error, 400) as error, :taken_time as died_at
  from :table as job
  where job.q_name = names.q_name and :is_dead
  order by job.q_name desc, job.dequeued_at desc, job.id desc
  limit (select state.most + 1)
) as job

-- name: dead_before
-- The dead jobs of a queue that died before one of them, the newest first.
select job.id, job.q_name, :task, left(job.error, 400), :taken_time at time zone 'utc'
from :table as job
where job.q_name = %(queue)s and :is_dead
  and (job.dequeued_at, job.id) < (%(died_at)s::timestamp at time zone 'utc', %(id)s::bigint)
order by job.q_name desc, job.dequeued_at desc, job.id desc
limit %(limit)s

-- name: dead_names
:dead_found, pq_names as materialized (
  select dead.q_name from pq_dead as dead
  where dead.q_name is not null and coalesce(dead.q_name = %(queue)s, %(queue)s::text is null)
)

-- name: sessions
-- The sessions that wait for jobs, and for which of these queues.
with recursive :names_found, :known, pq_gates as materialized (
  select changed.q_name, (select gate.key from (:gate) as gate) as key from pq_known as changed
)
select
  locks.pid, activity.application_name, host(activity.client_addr),
  array_agg(gates.q_name order by gates.q_name)
from pg_locks as locks
  join pq_gates as gates on gates.key = (:gate_of_lock)
  left join pg_stat_activity as activity on activity.pid = locks.pid
where :is_gate
group by 1, 2, 3
order by 1

-- name: fronts
-- Ids next to which jobs have ended lately, by the order in which jobs are taken, the highest first: those of the newest
-- row; and of each queue, of the first ready job without a priority, and of the last ones that were taken, or died.
with recursive :names_found, pq_newest as materialized (
  select id from :table order by id desc limit 1
)
select distinct front.id from (
  select newest.id from pq_newest as newest
  union all
  select front.id from pq_names as names, lateral (
    (
      select job.id from :table as job
      where job.q_name = names.q_name and :is_ready and job.expected_at is null
      order by job.q_name, job.expected_at, job.id
      limit 1
    )
    union all
    (
      select job.id from :table as job
      where job.q_name = names.q_name and :has_lease
      order by job.q_name desc, job.dequeued_at desc, job.id desc
      limit 1
    )
    union all
    (
      select job.id from :table as job
      where job.q_name = names.q_name and :is_dead
      order by job.q_name desc, job.dequeued_at desc, job.id desc
      limit 1
    )
  ) as front
  where coalesce(names.q_name = %(queue)s, %(queue)s::text is null)
) as front
order by 1 desc

-- name: history
-- What has ended among so many rows up to each of these ids, by minute, queue and task. Two looks may meet. A first row,
-- without a minute, says how many rows were seen; how many of these up to the first id, and when the oldest of these was put.
with pq_seen as materialized (
  select distinct on (seen.id) seen.*, front.number
  from unnest(%(ids)s::bigint[], %(limits)s::bigint[]) with ordinality as front (id, most, number), lateral (
    select
      job.id, job.q_name, job.enqueued_at, job.attempts, :is_finished as is_finished, :is_dead as is_dead,
      case when (:is_done) or (:is_dead) then :task end as task,
      case when (:is_done) or (:is_dead) then coalesce(job.finished_at, job.dequeued_at) end as at,
      case when :is_done then extract(epoch from :taken_time - :ready_time) end as waited,
      case when :is_done then extract(epoch from :end_time - :taken_time) end as ran
    from :table as job where job.id <= front.id
    order by job.id desc
    limit (select front.most)
  ) as seen
  order by seen.id, front.number
)
select
  null::timestamp, null, null, count(*), count(*) filter (where seen.number = 1), null, null, null, null, null,
  least(greatest(min(seen.enqueued_at) filter (where seen.number = 1), :first_time), :last_time) at time zone 'utc'
from pq_seen as seen
union all
select
  ended.minute at time zone 'utc', ended.q_name, ended.task, count(*) filter (where ended.is_finished),
  count(*) filter (where ended.is_finished and ended.attempts > 1), count(*) filter (where ended.is_dead),
  avg(ended.waited)::float8, max(ended.waited)::float8, avg(ended.ran)::float8, max(ended.ran)::float8, null
from (select seen.*, date_trunc('minute', seen.at) as minute from pq_seen as seen where seen.at is not null) as ended
where ended.minute > statement_timestamp() - make_interval(mins => %(minutes)s) and ended.at <= statement_timestamp()
  and coalesce(ended.q_name = %(queue)s, %(queue)s::text is null)
group by 1, 2, 3
order by 1 nulls first, 2, 3
