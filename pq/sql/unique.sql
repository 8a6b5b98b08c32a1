-- Puts with a token. One row of a queue has it at most: a unique index sees to that.

-- name: put
-- If another row has the token already, that one is returned, unless somebody has changed or locked it since: what this
-- statement sees of it may be older than what the insert has met.
with pq_put as (
  :insert_row
  on conflict (q_name, unique_key) where unique_key is not null do nothing
  returning id
), pq_found as (
  select id from :table
  where :has_token and not :is_over and xmax::text = '0' and not exists (select from pq_put)
)
select id, true from pq_put
union all
select id, false from pq_found

-- name: insert_row
insert into :table (q_name, data, schedule_at, expected_at, key, unique_key, unique_until)
select
  %(queue)s, %(data)s::json, :new_schedule, :new_expected, %(key)s::text, %(unique)s::text,
  coalesce(statement_timestamp() + %(window)s::interval, %(until)s::timestamptz)

-- name: has_token
q_name = %(queue)s and unique_key = %(unique)s

-- name: is_over
-- Its window has passed. -infinity: until it is taken.
(unique_until > '-infinity' and unique_until <= statement_timestamp())
