-- What the probes of a worker ask.

-- name: waiting
-- Whether jobs wait that any worker could take: ready for so many seconds, in a queue that is neither paused nor limited,
-- not in the line of a key, and not locked. Of each queue the first ones are looked at.
select exists (
  select from :table as job
  where job.id = any (array(
    select first.id
    from unnest(%(queues)s::text[]) as queue (name), lateral (
      select id, key, greatest(enqueued_at, schedule_at) as since from :table as job
      where job.q_name = queue.name and :is_ready
      order by job.q_name, job.expected_at, job.id
      limit (select 100)
    ) as first
    where first.key is null and first.since < statement_timestamp() - make_interval(secs => %(seconds)s)
      and not exists (
        select from :table as mark where mark.q_name = queue.name and (:marker)
      )
  ))
  for key share skip locked
)
