-- The statements that put jobs, and those of a queue as a whole.

-- name: put
-- A trigger of the table wakes those who wait.
insert into :table (q_name, data:headers_column) values (%(queue)s, %(data)s:headers_value)
returning id

-- name: put_keyed
insert into :table (q_name, data, schedule_at, expected_at, key:headers_column)
values (%(queue)s, %(data)s, :new_schedule, :new_expected, %(key)s:headers_value)
returning id

-- name: put_timed
-- Another trigger of the table sets due_at.
insert into :table (q_name, data, schedule_at, expected_at:headers_column)
values (%(queue)s, %(data)s, :new_schedule, :new_expected:headers_value)
returning id

-- name: put_untimed
-- Jobs without times, as an array; the ids are returned in its order.
insert into :table (q_name, data:headers_column)
select %(queue)s, item.data::json:headers_value from unnest(%(data)s::text[]) as item (data)
returning id

-- name: insert_given
-- Jobs with times, as arrays that are of one length, or empty. An empty text is a null.
insert into :table (q_name, data, schedule_at, expected_at:headers_column)
select
  %(queue)s, item.data::json,
  :item_times:headers_value
from unnest(
  %(data)s::text[], %(schedule_at)s::text[], %(schedule_in)s::text[], %(expected_at)s::text[], %(expected_in)s::text[]
) as item (data, schedule_at, schedule_in, expected_at, expected_in)

-- name: insert_keyed
-- The same with keys.
insert into :table (q_name, data, schedule_at, expected_at, key:headers_column)
select
  %(queue)s, item.data::json,
  :item_times,
  nullif(item.key, ''):headers_value
from unnest(
  %(data)s::text[], %(schedule_at)s::text[], %(schedule_in)s::text[], %(expected_at)s::text[], %(expected_in)s::text[],
  %(key)s::text[]
) as item (data, schedule_at, schedule_in, expected_at, expected_in, key)

-- name: item_times
coalesce(
    nullif(item.schedule_at, '')::timestamptz,
    (statement_timestamp() at time zone 'utc' + nullif(item.schedule_in, '')::interval) at time zone 'utc'
  ),
  coalesce(
    nullif(item.expected_at, '')::timestamptz,
    (statement_timestamp() at time zone 'utc' + nullif(item.expected_in, '')::interval) at time zone 'utc'
  )

-- name: put_many
:insert_given
returning id

-- name: put_bounded
-- As put_many, if the queue has room; else one row, a null. The condition is evaluated once, before the first row.
with pq_room as materialized (select :room as is_there), pq_put as (
  :insert_given
  where (select room.is_there from pq_room as room)
  returning id
)
select put.id from pq_put as put
union all
select null from pq_room as room where not room.is_there

-- name: has_room
select :room

-- name: load
copy :table (q_name, data, schedule_at, expected_at, key:headers_column) from stdin

-- name: now
select clock_timestamp() at time zone 'utc'

-- name: give_back
-- Undo a claim of a job that nobody has seen, but only while it is still that claim.
update :table set dequeued_at = null where id = %(id)s and dequeued_at = %(dequeued_at)s::timestamp at time zone 'utc'

-- name: put_back
-- Undo a claim that has deleted its row.
insert into :table (id, q_name, data, enqueued_at, schedule_at, expected_at, attempts, headers)
values (
  %(id)s, %(queue)s, %(text)s, %(enqueued_at)s::timestamp at time zone 'utc',
  %(schedule_at)s::timestamp at time zone 'utc', %(expected_at)s::timestamp at time zone 'utc', %(attempts)s,
  %(headers)s::json
)
on conflict do nothing

-- name: update
-- Why the id is cast is told in claim.sql.
update :table set data = %(data)s where id = (%(id)s)::bigint and q_name = %(queue)s
returning id

-- name: clear
-- A paused queue stays paused, and a limited one limited.
delete from :table where q_name = %(queue)s and (:marker) is not true

-- name: names
with recursive :names_found
select names.q_name from pq_names as names order by names.q_name

-- name: has_jobs
-- Written like this, no plan but a look into each index seems cheap.
select coalesce(
  (select id from :table where q_name = %(queue)s and :is_ready order by q_name, expected_at, id limit 1),
  (select id from :table where q_name = %(queue)s and :in_due order by q_name, due_at limit 1),
  (select id from :table where q_name = %(queue)s and :is_dead order by q_name, dequeued_at, id limit 1)
) is not null

-- name: jobs_left
-- The jobs of all queues, by state.
select
  count(*) filter (where (:is_ready) or :is_due), count(*) filter (where (:is_scheduled) or (:is_held)),
  count(*) filter (where :is_running), count(*) filter (where :is_dead)
from :table

-- name: result
select result::text from :table where id = %(id)s and q_name = %(queue)s
