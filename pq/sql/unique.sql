-- Puts with a token. One row of a queue has a token at most: a unique index sees to that. A put tries, in this order and
-- each by a statement of its own: to insert its row, or to join the one that has the token; to join it after a wait; to
-- take the token away from a row that is not joined any more. If none of these succeeds, the row with the token has
-- changed in between, and the put begins anew.
--
-- To join a job is to lock it where the transaction stays open: it can't begin before what was done there can be seen.
-- So that no stream of such transactions keeps a job from starting, none joins a scheduled job that is due, and none waits
-- for a job that is ready for long. See the word "may_wait".

-- name: put
-- In a transaction of its own. If another row has the token, that one is returned, unless somebody has changed or locked
-- it since: what this statement sees of it may be older than what the insert has met.
with pq_put as (
  :insert_row
  where :has_room
  on conflict (q_name, unique_key) where unique_key is not null do nothing
  returning id
)
select id, true from pq_put
union all
select id, false from :table
where :has_token and not :is_over and xmax::text = '0' and not exists (select from pq_put)

-- name: put_in_transaction
with pq_put as (
  :insert_row
  where :has_room
  on conflict (q_name, unique_key) where unique_key is not null do nothing
  returning id
), pq_found as (
  select id from :table
  where :has_token and :must_wait and :may_wait and :not_due and not exists (select from pq_put)
  for share
)
select id, true from pq_put
union all
select id, false from pq_found

-- name: join
-- What has begun, or has a window, is not locked: nobody is promised that it starts.
with pq_found as (
  select id from :table where :has_token and :must_wait
  for share
)
select id, false from :table where :has_token and not :is_over and not :must_wait
union all
select id, false from pq_found

-- name: join_in_transaction
with pq_found as (
  select id from :table where :has_token and :must_wait and :not_due
  for no key update skip locked
)
select id, false from :table where :has_token and not :is_over and not :must_wait
union all
select id, false from pq_found

-- name: find
-- For those who are not to join it: without a lock, which they may want to take in earnest.
select id, false from :table where :has_token and not :is_over

-- name: put_over
-- Insert a row, or change the one that has the token, if that waits and nobody has it locked. A row whose data can't be
-- merged is returned with a null. A held row stays held, unless it gets a time.
with pq_held as materialized (
  select id, data, schedule_at, due_at, attempts, :fits as fits from :table
  where :has_token and not :is_over and dequeued_at is null and :may_change
  for no key update :skips
), pq_new as materialized (
  select held.id, :merged as data, held.due_at = 'infinity' and :wanted is null as is_held, :wanted as wanted,
    held.attempts = 0 and %(time)s::text <> 'keep' as moves
  from pq_held as held, lateral (
    select nullif(held.schedule_at, 'infinity') as its_schedule, :new_schedule as given_schedule,
      case when held.fits then held.data #> %(part)s::text[] end as its_data,
      %(data)s::json #> %(part)s::text[] as given_data
  ) as both_of
  where held.fits
), pq_changed as (
  update :table as job set
    data = new.data,
    schedule_at = case when not new.moves or new.is_held then job.schedule_at else new.wanted end,
    due_at = case when not new.moves or new.is_held then job.due_at else new.wanted end
  from pq_new as new
  where job.id = any (array[new.id])
  returning job.id, job.tableoid, job.q_name, new.moves
), pq_put as (
  :insert_row
  where :has_room and not exists (select from pq_held)
  on conflict (q_name, unique_key) where unique_key is not null do nothing
  returning id
)
select changed.id, false, case when changed.moves then :wake end from pq_changed as changed
union all
select id, true, null from pq_put
union all
select id, null, null from pq_held where not fits

-- name: put_instead
-- Take the token from a row that is not joined any more, and insert one that has it.
with pq_moved as (
  update :table set unique_key = null, unique_until = null
  where :has_token and (:is_over or (:gives_up))
  returning id
), pq_put as (
  :insert_row
  where :has_room and (select count(*) from pq_moved) >= 0
  on conflict (q_name, unique_key) where unique_key is not null do nothing
  returning id
)
select id, true from pq_put

-- name: holder
select id from :table where :has_token

-- name: insert_row
-- Of a job that has a token until it is taken, and nothing else.
insert into :table (q_name, data, unique_key, unique_until:headers_column)
select %(queue)s, %(data)s::json, %(unique)s::text, '-infinity':headers_value

-- name: insert_full_row
-- In place of "insert_row", with all that can be given.
insert into :table (q_name, data, schedule_at, expected_at, key, unique_key, unique_until:headers_column)
select
  %(queue)s, %(data)s::json, :new_schedule, :new_expected, %(key)s::text, %(unique)s::text,
  coalesce(statement_timestamp() + %(window)s::interval, %(until)s::timestamptz):headers_value

-- name: insert_row_as
-- The same with an id that was made before.
insert into :table (id, q_name, data, schedule_at, expected_at, key, unique_key, unique_until:headers_column)
select
  %(id)s::bigint, %(queue)s, %(data)s::json, :new_schedule, :new_expected, %(key)s::text, %(unique)s::text,
  coalesce(statement_timestamp() + %(window)s::interval, %(until)s::timestamptz):headers_value

-- name: ids
-- Nulls where the ids don't come from a sequence that belongs to the column.
select nextval(cast(pg_get_serial_sequence(%(table)s, 'id') as regclass)) from generate_series(1, %(count)s)

-- name: has_room
true

-- name: has_token
q_name = %(queue)s and unique_key = %(unique)s

-- name: is_over
-- Its window has passed. -infinity: until it is taken.
(unique_until > '-infinity' and unique_until <= statement_timestamp())

-- name: must_wait
-- It has to start after the put, which so has to lock it.
(dequeued_at is null and (unique_until = '-infinity' or unique_until = 'infinity'))

-- name: not_due
-- In a transaction that stays open: not a scheduled job that is due. Its start would be put off by each of them.
(schedule_at is null or schedule_at > statement_timestamp())

-- name: may_wait
-- A job that has been ready for less than 30 seconds, or is not ready yet. Behind others one is joined only where nobody
-- has it locked: else it might be locked for ever, by one transaction after the other.
((due_at is null or due_at <= statement_timestamp()) is not true
  or coalesce(nullif(schedule_at, 'infinity'), enqueued_at) > statement_timestamp() - interval '30 seconds')

-- name: skips
skip locked

-- name: waits
-- In place of "skips", along with "may_wait_too".

-- name: may_join
-- In a transaction that stays open this is "not_due".
true

-- name: may_change
:may_join

-- name: may_wait_too
-- In place of "may_change", along with "waits".
:may_wait and :may_join

-- name: gives_up
-- For those who keep the job: in a transaction of its own a put joins whatever has the token.
false

-- name: gives_up_in_transaction
:must_wait and not (:may_wait and :not_due)

-- name: gives_up_change
-- For those who change the job: not one that has begun.
dequeued_at is not null or not (:may_wait and :may_join)

-- name: wanted
case %(time)s::text
  when 'new' then both_of.given_schedule
  when 'later' then greatest(both_of.its_schedule, both_of.given_schedule)
  when 'earlier' then case
    when both_of.its_schedule is not null and both_of.given_schedule is not null
    then least(both_of.its_schedule, both_of.given_schedule)
  end
end

-- name: fits
true

-- name: merged
%(data)s::json

-- name: fits_merge
-- Whether the data can be merged with the new; of a task's job, its named arguments. Not with an escape in it for which
-- the server has no text: a pair of them is one character.
(json_typeof(data) = %(kind)s::text
  and regexp_replace(data::text, E'\\\\u[dD][89abAB]..\\\\u[dD][c-fC-F]..', '', 'g') !~* E'\\\\u(0000|d[89a-f])'
  and case when %(part)s::text[] = '{}' then true else
    json_typeof(data -> 'kwargs') = 'object' and json_typeof(data -> 'args') = 'array'
    and data ->> 'args' = '[]' and data ->> 'function' = %(data)s::json ->> 'function'
  end) is true

-- name: do_merge
-- json and not jsonb, which would change numbers, and the order of names.
case
  when %(kind)s::text = 'array' then (
    select coalesce(json_agg(item.value order by item.number), '[]')
    from (:both_arrays) as item
  )
  when %(part)s::text[] = '{}' then :both_objects
  else (
    select json_object_agg(item.key, case item.key when 'kwargs' then :both_objects else item.value end order by item.number)
    from json_each(%(data)s::json) with ordinality as item (key, value, number)
  )
end

-- name: both_arrays
select its.value, its.number from json_array_elements(both_of.its_data) with ordinality as its (value, number)
union all
select given.value, 1000000000 + given.number
from json_array_elements(both_of.given_data) with ordinality as given (value, number)

-- name: both_objects
-- In Python: {**its, **given}, but arrays that both have under one name are appended.
(
  select coalesce(json_object_agg(
    coalesce(its.key, given.key),
    case
      when given.key is null then its.value
      when json_typeof(its.value) = 'array' and json_typeof(given.value) = 'array' then (
        select coalesce(json_agg(item.value order by item.number), '[]') from (
          select part.value, part.number from json_array_elements(its.value) with ordinality as part (value, number)
          union all
          select part.value, 1000000000 + part.number
          from json_array_elements(given.value) with ordinality as part (value, number)
        ) as item
      )
      else given.value
    end
    order by its.number, given.number
  ), '{}')
  from json_each(both_of.its_data) with ordinality as its (key, value, number)
  full join json_each(both_of.given_data) with ordinality as given (key, value, number) on given.key = its.key
)
