-- What is in a queue. Nothing here locks a row, or waits for one that is locked.

-- name: job
-- After the state comes what jobs of this state are ordered by, exact, for the page after this job. Then, of a job that
-- waits for others: for how many, of how many; and whether one of these has failed. At last when it ended, which for one
-- that was taken without a lease is when that was; and who has it, or had it, under a lease; and its
-- headers.
:columns, :failure,
  case when due_at is not null then
    least(greatest(due_at, :first_time), :last_time) at time zone 'utc'
  end,
  state,
  (
    case state
      when 'ready' then expected_at when 'scheduled' then due_at when 'finished' then null when 'held' then null
      else dequeued_at
    end at time zone 'utc'
  )::text,
  case when state = 'held' and waits_for is not null then (
    select count(*) from unnest(job.waits_for) as given (id) join :table as parent on parent.id = any (array[given.id])
    where given.id = abs(given.id) and given.id = given.id + 0 and parent.follower = job.id
      and (parent.dequeued_at is null or parent.due_at is not null or parent.error is not null)
  ) end,
  case when state = 'held' then cardinality(waits_for) end,
  coalesce(state = 'held' and on_failed = 'stopped', false),
  case when state in ('finished', 'dead') then
    least(greatest(coalesce(finished_at, dequeued_at), :first_time), :last_time) at time zone 'utc'
  end,
  worker,
  headers::text

-- name: find
select :job
from (
  select :row, :state as state from :table where id = %(id)s and q_name = %(queue)s and (:marker) is not true
) as job

-- name: ends
-- How far jobs of any queue are: the id, whether the job has yet to end, its queue, its state, whether it was cancelled,
-- how often it was delivered, and what it has left if it has ended. Why the join and the conditions on numbers look like
-- this is told in lease.sql. It begins with "select", which says that it can be repeated.
select job.id, dequeued_at is null or due_at is not null, q_name, :state, :is_finished and failed_at is not null, attempts,
  case when :is_finished then result::text end, error
from unnest(%(ids)s::bigint[]) with ordinality as given (id, number)
  join :table as job on job.id = any (array[given.id]) and (:marker) is not true
where given.number = abs(given.number) and given.number = given.number + 0

-- name: progress
select case when due_at is not null and dequeued_at is not null then result::text end
from :table where id = %(id)s and q_name = %(queue)s and (:marker) is not true

-- name: list
-- One state after the other, from "first" to "last"; a branch that is not among these costs nothing. Ready jobs are those
-- with a priority, those without, and what is due but not yet made ready, in the order in which a claim takes them. As in
-- claim.sql, "order by" repeats the key of an index, and limits are subqueries. With all conditions in one query few rows
-- would be expected where there are many, and the order of the index not used: so the last one stands around another query.
select :job
from (
  select :row, rank, place, :state as state from (
    (
      select :row, 1 as rank, expected_at as place from :table
      where :asks_ready and :ready and expected_at is not null
        and (expected_at, id) > (:ready_key, %(ready_id)s)
      order by q_name, expected_at, id
      limit (select %(limit)s::bigint)
    )
    union all
    (
      select :row, 1, expected_at from :table
      where :asks_ready and :ready and expected_at is null and id > %(untimed_id)s
      order by q_name, expected_at, id
      limit (select %(limit)s::bigint)
    )
    union all
    (
      select :row, 1, expected_at from :table
      where :asks_ready and :due and (
        (expected_at, id) > (:ready_key, %(ready_id)s) or (expected_at is null and id > %(untimed_id)s)
      )
      order by expected_at, id
      limit (select %(limit)s::bigint)
    )
    union all
    (
      select :row, 2, due_at from (
        select :row from :table
        where :asks_scheduled and q_name = %(queue)s and due_at > statement_timestamp() and due_at < 'infinity'
          and (due_at, id) > (:scheduled_key, %(scheduled_id)s)
        order by q_name, due_at, id
        limit (select null::bigint)
      ) as pending
      where :is_scheduled
      order by due_at, id
      limit (select %(limit)s::bigint)
    )
    union all
    (
      select :row, 3, null from (
        select :row from :table
        where :asks_held and q_name = %(queue)s and due_at = 'infinity' and id > %(held_id)s
        order by q_name, due_at, id
        limit (select null::bigint)
      ) as pending
      where :is_held
      order by due_at, id
      limit (select %(limit)s::bigint)
    )
    union all
    (
      select :row, 4, dequeued_at from (
        select :row from :table
        where :asks_running and q_name = %(queue)s and :has_lease and (dequeued_at, id) > (:running_key, %(running_id)s)
        order by q_name, dequeued_at, id
        limit (select null::bigint)
      ) as leased
      where :is_running
      order by dequeued_at, id
      limit (select %(limit)s::bigint)
    )
    union all
    (
      select :row, 5, dequeued_at from :table
      where :asks_dead and :dead and (dequeued_at, id) > (:dead_key, %(dead_id)s)
      order by q_name, dequeued_at, id
      limit (select %(limit)s::bigint)
    )
    union all
    (
      select :row, 6, null from :table
      where :asks_finished and :finished and id > %(finished_id)s
      order by id
      limit (select %(limit)s::bigint)
    )
  ) as found
  order by rank, place, id
  limit %(limit)s
) as job
order by rank, place, id

-- name: list_key
-- The unfinished and the dead jobs of a key, in order.
select :job
from (
  select :row, :state as state from :table
  where q_name = %(queue)s and key = %(key)s and :stand is not null
  order by (:stand in (1, 3)), attempts = 0, expected_at, id
  limit %(limit)s
) as job

-- name: ids_of_key
select id from :table where q_name = %(queue)s and key = %(key)s and :stand is not null

-- name: asks_ready
1 between %(first)s and %(last)s

-- name: asks_scheduled
2 between %(first)s and %(last)s

-- name: asks_held
3 between %(first)s and %(last)s

-- name: asks_running
4 between %(first)s and %(last)s

-- name: asks_dead
5 between %(first)s and %(last)s

-- name: asks_finished
6 between %(first)s and %(last)s

-- name: ready_key
%(ready_key)s::timestamp at time zone 'utc'

-- name: scheduled_key
%(scheduled_key)s::timestamp at time zone 'utc'

-- name: running_key
%(running_key)s::timestamp at time zone 'utc'

-- name: dead_key
%(dead_key)s::timestamp at time zone 'utc'

-- name: running
q_name = %(queue)s and :is_running

-- name: dead
q_name = %(queue)s and :is_dead

-- name: finished
-- No index leads to these.
q_name = %(queue)s and :is_finished

-- name: count_ready
select (select count(*) from :table where :ready) + (select count(*) from :table where :due)

-- name: count_scheduled
-- What is due later, and does not run: this is counted within the indexes.
select (
    select count(*) from :table where q_name = %(queue)s and :is_due_later
  ) - (select count(*) from :table where :running)

-- name: count_held
-- No row that is taken has this time.
select count(*) from :table where q_name = %(queue)s and due_at = 'infinity'

-- name: count_running
select count(*) from :table where :running

-- name: count_dead
select count(*) from :table where :dead

-- name: count_finished
select count(*) from :table where :finished

-- name: count
-- All jobs that are not finished.
select
  (select count(*) from :table where :ready)
  + (select count(*) from :table where q_name = %(queue)s and due_at < '200000-01-01 00:00:00+00')
  + (select count(*) from :table where q_name = %(queue)s and due_at = 'infinity')
  + (select count(*) from :table where :dead)

-- name: counts
-- In one look at all rows of the table, since there are the finished ones.
select :state as state, count(*) from :table where q_name = %(queue)s and (:marker) is not true group by 1

-- name: start_of_data
-- In place of "data_text", for lists on a page: the data of a job may have a gigabyte.
left(data::text, 500)

-- name: name_of_task
-- Likewise.
coalesce(:task, '')

-- name: no_data
''::text

-- name: most_of_data
left(data::text, 65536)

-- name: in_order
-- Before a statement that is to read rows in the order of an index, and stop: where the planner does not know how many rows
-- there are, or that they lie in that order, it would read all and sort them.
select set_config('enable_seqscan', 'off', true), set_config('enable_sort', 'off', true);

-- name: place
-- Where a job is, whatever its queue; how long its data is; and what it has left.
select q_name, octet_length(data::text), left(result::text, 65536), octet_length(result::text)
from :table where id = %(id)s and (:marker) is not true

-- name: these
-- Why the join and the conditions on numbers look like this is told in lease.sql.
select q_name, :job
from (
  select q_name, :row, :state as state, number
  from unnest(%(ids)s::bigint[]) with ordinality as given (wanted, number)
    join :table on id = any (array[wanted]) and (:marker) is not true
  where number = abs(number) and number = number + 0
) as job
order by number

-- name: newest_dead
select q_name, :job
from (
  select q_name, :row, :state as state from :table
  where :dead and (dequeued_at, id) < (
    coalesce((select dequeued_at from :table where id = %(after)s and :dead), 'infinity'), coalesce(%(after)s, 0)
  )
  order by q_name desc, dequeued_at desc, id desc
  limit (select %(limit)s::bigint)
) as job
order by dequeued_at desc, id desc

-- name: retrying
-- Jobs that have failed and wait for their next attempt, among the first scheduled ones of each queue.
select q_name, :job
from (
  select q_name, :row, :state as state
  from unnest(%(queues)s::text[]) as given (name) cross join lateral (
    select q_name, :row from :table
    where q_name = given.name and due_at > statement_timestamp() and due_at < 'infinity'
    order by q_name, due_at
    limit %(cap)s
  ) as pending
  where dequeued_at is null and error is not null
  order by due_at, id
  limit (select %(limit)s::bigint)
) as job
order by due_at, id

-- name: newest
-- Jobs in a state, or with a text in their data, among the newest rows before one. No index leads to either.
select q_name, :job
from (
  select q_name, :row, :state as state from (:newest_rows) as newest
  where (:marker) is not true and q_name = coalesce(%(queue)s, q_name) and (:state) = coalesce(%(state)s, :state)
    and (%(text)s::text is null or position(lower(%(text)s) in lower(data::text)) > 0)
  order by id desc
  limit (select %(limit)s::bigint)
) as job
order by id desc

-- name: newest_rows
select q_name, :row from :table where id < %(before)s order by id desc limit (select %(cap)s::bigint)

-- name: reach
-- How far down the newest rows go; null: to the first one.
select min(id), count(*) from (:newest_rows) as newest

-- name: matching
select given.id from unnest(%(ids)s::bigint[]) with ordinality as given (id, number)
  join :table as job on job.id = any (array[given.id]) and position(lower(%(text)s) in lower(data::text)) > 0
where given.number = abs(given.number) and given.number = given.number + 0
order by number
limit %(limit)s
