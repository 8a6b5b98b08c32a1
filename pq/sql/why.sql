-- Why a job does not run. Nothing here locks a row, or waits for one; no more rows are read than the cap says.

-- name: facts
-- What keeps the job: whether its queue is paused; how many sessions wait for the queue; how many of its jobs run; how many
-- jobs are taken before this one, if it is ready; the worker that has it or had it last; and the session whose transaction
-- has the row locked, or has changed it, with the time since when that is open.
select
  (
    select other.id from :table as other where other.q_name = job.q_name and :pause_marker
    order by other.q_name, other.due_at limit 1
  ) is not null,
  (
    select count(*) from pg_locks as locks
    where :is_gate and (:gate_of_lock) = (
        select gate.key from (select job.q_name, job.tableoid) as changed, lateral (:gate) as gate
      )
  ),
  (
    select count(*) filter (where pq_some.due_at > statement_timestamp()) from (
      select other.due_at from :table as other
      where other.q_name = job.q_name and :has_lease
      order by other.q_name desc, other.dequeued_at desc, other.id desc
      limit (select %(cap)s::bigint)
    ) as pq_some
  ),
  case when pq_job.ready then (
    select count(*) from (
      select from :table as other
      where other.q_name = job.q_name and :is_ready and other.expected_at is not null
        and (other.expected_at, other.id) < (coalesce(job.expected_at, 'infinity'), job.id)
      order by other.q_name, other.expected_at, other.id
      limit (select %(cap)s::bigint + 1)
    ) as pq_some
  ) + (
    select count(*) from (
      select from :table as other
      where other.q_name = job.q_name and :is_ready and other.expected_at is null
        and other.id < case when job.expected_at is null then job.id else -9223372036854775808 end
      order by other.q_name, other.expected_at, other.id
      limit (select %(cap)s::bigint + 1)
    ) as pq_some
  ) + (
    select count(*) filter (
      where (coalesce(pq_some.expected_at, 'infinity'), pq_some.id) < (coalesce(job.expected_at, 'infinity'), job.id)
    ) from (
      select other.expected_at, other.id from :table as other
      where other.q_name = job.q_name and :is_due
      order by other.q_name, other.due_at
      limit (select %(cap)s::bigint + 1)
    ) as pq_some
  ) end,
  job.worker, job.waits_for,
  pq_lock.is_there, pq_lock.pid, pq_lock.application_name, pq_lock.state, pq_lock.since at time zone 'utc'
from :table as job
  cross join lateral (select (:is_ready) or :is_due as ready) as pq_job
  left join lateral (
    select true as is_there, locks.pid, activity.application_name, activity.state, activity.xact_start as since
    from pg_locks as locks left join pg_stat_activity as activity on activity.pid = locks.pid
    where locks.locktype = 'transactionid' and locks.granted and locks.mode = 'ExclusiveLock'
      and locks.transactionid = job.xmax and locks.pid is distinct from pg_backend_pid()
    limit 1
  ) as pq_lock on true
where job.id = %(id)s and job.q_name = %(queue)s

-- name: limits
-- Of each limit of the queue: its name and kind; how many it allows, and has given, and to which jobs, the longest first;
-- the seconds until a rate lets a job begin.
select limits.name, kind.kind, kind.most, count(*) filter (where not pq_slot.is_free),
  (array_agg(pq_slot.job order by pq_slot.taken_at) filter (where kind.kind = 'running' and not pq_slot.is_free))[1:5],
  case when kind.kind = 'rate' then :free_in end
from :limits_and_slots
where kind.most is not null and :is_limit_of
group by limits.name, limits.period, kind.kind, kind.most
order by limits.name, kind.kind

-- name: line
-- The jobs of the key in front of the job, as far as these keep it: in line, or dead where a dead one stops the others.
-- Where they stand, who has them and since when; for a dead one, that it is dead.
select job.id, job.stand, job.worker, job.dequeued_at at time zone 'utc', job.due_at > statement_timestamp()
from (
  select id, :stand as stand, worker, dequeued_at, due_at from :table
  where q_name = %(queue)s and key = %(key)s and :stand in (0, 2) and id <> %(id)s
  order by q_name, key, :stand, expected_at, id
  limit (select %(cap)s::bigint)
) as job
where job.stand = 0 or (
  select limits.on_dead from :limits_table as limits where limits.name = %(queue)s and limits.queues is null
) = 'stop'

-- name: held_before
-- How many jobs of the key are held in front of the job.
select count(*) filter (
  where (coalesce(held.expected_at, 'infinity'), held.id)
    < (coalesce(%(expected_at)s::timestamp at time zone 'utc', 'infinity'), %(id)s)
)
from (
  select expected_at, id from :table
  where q_name = %(queue)s and key = %(key)s and :stand = 1
  order by q_name, key, :stand, expected_at, id
  limit (select %(cap)s::bigint + 1)
) as held

-- name: parents
-- The jobs that it waits for, which have not been done.
select id, :state from :table
where id = any (%(ids)s::bigint[]) and not (:is_done)
order by id
