-- The statements that take jobs. They must be planned well whatever the planner believes of the table.
--
-- A queue that has grown since the last ANALYZE is believed to be nearly empty, and then a sort of all its rows seems
-- cheap. So each "order by" repeats the whole key of an index, and each inner limit is a subquery: the planner then
-- expects to need a tenth of the rows, whatever their number, and reads the index in order. "limit (select null)" is no
-- limit but for that.
--
-- A queue that is very long is expected to cost as much as a tenth of its rows, and what seems so dear is compiled (JIT),
-- which takes longer than the claim. So each list of candidates stands inside of a constant limit, of which the planner
-- can tell what it costs. It also would tell the inner query to expect so few rows: the join with pq_open, which is one
-- row, prevents that.
--
-- Rows are joined by "= any (array(…))" and by "exists (… for update)", which leave no choice but the primary key, or to
-- read a small table as a whole: ten rows are expected of such an array. Where statements are prepared, that is ruled out.

-- name: taken
:updated

-- name: updated
-- The time is that of the clock: a statement that was held up can take what became ready after it had come in. It is read
-- once, not for each row: all jobs that are taken together have one time. The error is cleared, which an attempt under a
-- lease may have left: with it the row would look dead.
update :table set dequeued_at = (select clock_timestamp()), due_at = null, error = null, failed_at = null :holds :slot

-- name: leased
-- In place of "taken": count the delivery, set when the row is due again, and say who has it.
update :table set dequeued_at = (select clock_timestamp()),
  due_at = clock_timestamp() + make_interval(secs => %(lease)s), attempts = attempts + 1, expiries = :expiries,
  worker = %(worker)s :holds :slot

-- name: holds
-- Jobs with a key are taken one after the other; the trigger that guards them may hold a row back by this statement,
-- instead of taking it. Such rows are returned, too, without the time of a delivery.
, schedule_at = case when key is null then schedule_at else 'infinity' end

-- name: passes_over
-- In place of "holds", in a transaction that stays open: what may not be taken is not touched.

-- name: may_take
-- Which candidates a transaction that stays open passes over.
(key is null or :free_function(q_name, key, id, expected_at, attempts, is_alone))

-- name: removed
-- In place of "taken", where finished jobs are not kept. But a row with a key has to be updated, for the trigger; and one
-- with a token that outlives the delivery is still needed.
delete from :table

-- name: removes
-- Whether "taken" deletes the row.
false

-- name: does_remove
key is null and follower is null and steps is null and not (:in_window)

-- name: takes
-- Which of the best rows "taken" is for.
true

-- name: returned
-- What "columns" reads: less than all columns, most of which only few jobs use.
id, data, enqueued_at, schedule_at, expected_at, dequeued_at, attempts, expiries, key

-- name: returned_with_others
-- In place of "returned", where "removes" reads more, and rows may have to be put back.
id, data, enqueued_at, schedule_at, expected_at, dequeued_at, attempts, expiries, key, unique_key, unique_until, follower, steps,
headers

-- name: no_others
-- In place of "others", where "taken" is for all.

-- name: others
, pq_others as (
  :updated
  where id = any (array(select best.id from pq_best as best)) and not (:does_remove)
  returning :returned
)

-- name: all_taken
pq_taken

-- name: all_with_others
(select * from pq_taken union all select * from pq_others) as pq_taken

-- name: expiries
-- A row that is due and taken is one whose lease has expired.
expiries + case when dequeued_at is null then 0 else 1 end

-- name: open
-- Whether the queue is neither paused nor limited, as 1 or 0, to multiply limits by. The marker would stand alone at the
-- end of the queue's part of an index, so this costs one descent there. If there is one, a row of nulls says so.
pq_open as materialized (
  select case when exists (select from :table where q_name = %(queue)s and :marker) then 0 else 1 end as open
)

-- name: most
%(limit)s::bigint * state.open

-- name: best
%(limit)s::bigint

-- name: returned_with_headers
-- In place of "returned", under a lease.
id, data, enqueued_at, schedule_at, expected_at, dequeued_at, attempts, expiries, key, headers

-- name: headers

-- name: headers_read
, headers::text

-- name: told
-- What a claim of a limited queue tells beside the jobs.

-- name: slot

-- name: rest

-- name: rest_told
-- In place of "rest", for a thread that has waited: how many jobs were ready, one more than it takes at most, and the seconds
-- until a row becomes due. Locked rows count, and nothing is passed over. So it need not be asked by a further statement
-- whether there is anything for others.
, (
  select count(*) from (
    select from :table where :ready
    order by q_name, expected_at, id
    limit (select %(limit)s::bigint + 1)
  ) as ready
), (
  select extract(epoch from due_at - clock_timestamp())::float8 from :table
  where q_name = %(queue)s and due_at < '200000-01-01 00:00:00+00'
  order by q_name, due_at
  limit 1
)

-- name: noted

-- name: since
-- See the class Marks. As long as an exact look is cheap, nothing is passed over.
true

-- name: urgent_since
true

-- name: since_mark
-- In place of "since".
due_at >= %(due_mark)s::timestamp at time zone 'utc'

-- name: urgent_since_mark
-- In place of "urgent_since".
expected_at >= %(urgent_mark)s::timestamp at time zone 'utc'

-- name: urgent
-- Ready jobs with a priority.
:ready and expected_at is not null and :urgent_since

-- name: other
-- Ready jobs without a priority. The cast is for a column "id" that was made an integer: a prepared statement would have a
-- parameter of that type, which can't hold the lowest mark.
:ready and expected_at is null and id >= (%(mark)s)::bigint

-- name: claim_ready
-- Take the best jobs of a queue in which no job is due, and which is neither paused nor limited; of another one, none. This
-- does two thirds of the work of "claim", and locks no more rows than it takes.
with pq_open as materialized (
  select where :is_quiet
)
:taken
where id = any (array(:best_ready)) and :takes
returning :short

-- name: claim_first
-- In place of "claim_ready", for one job. Of the parts of one expression the server executes no more than it needs, and one
-- after the other, without what nodes of a plan take: a quarter of the whole.
:taken
where id = case when :is_quiet then coalesce((
  select id from :table
  where :urgent and :may_begin
  order by q_name, expected_at, id
  limit 1
  for update skip locked
), (
  select id from :table
  where :other and :may_begin
  order by q_name, expected_at, id
  limit 1
  for update skip locked
)) end and :takes
returning :short

-- name: done_and_next
-- A delivery ends as done, as in lease.sql, and "claim_first" takes the next job under a lease, by one commit. In this order,
-- which the join sees to: who waits for the row of the one must not have locked the other, which no one else could have
-- meanwhile, and which a transaction of the application's may want that has locked the first.
with pq_ended as (
  :ends
) :and_next

-- name: removed_and_next
with pq_ended as (
  :removes_ended
) :and_next

-- name: and_next
, pq_next as (
  :claim_first
)
select ended.is_one, pq_next.* from (select count(*) > 0 as is_one from pq_ended) as ended left join pq_next on true

-- name: short
-- Each column takes a driver as long as two calls of a function, so there are no more than the job needs.
:job_columns

-- name: short_leased
:columns:headers

-- name: short_removed
:columns, :removes, null::bigint:headers

-- name: short_told
-- In place of each of these, if it tells of the rest.
:columns, :removes, null::bigint:rest:headers

-- name: is_quiet
-- The first due job is looked for in order: any of them might seem to be found sooner by reading the table.
(select id from :table where :due and :since order by q_name, due_at limit 1) is null
  and not exists (select from :table where q_name = %(queue)s and :marker)

-- name: best_ready
select ready.id from (
  (
    select urgent.id from pq_open, (
      select id from :table
      where :urgent and :may_begin
      order by q_name, expected_at, id
      limit (select %(limit)s::bigint)
      for update skip locked
    ) as urgent
    limit 1000
  )
  union all
  (
    select other.id from pq_open, (
      select id from :table
      where :other and :may_begin
      order by q_name, expected_at, id
      limit (select %(limit)s::bigint)
      for update skip locked
    ) as other
    limit 1000
  )
) as ready
limit (select %(limit)s::bigint)

-- name: may_begin
-- In place of it, "may_take" in a transaction that stays open.
true

-- name: claim
-- Take the best jobs, and make the other due rows ready. This is for a short transaction of pq's own, since it locks all
-- of these rows. It looks at one due row more than it takes jobs at most: so where none was made ready, none is left.
with :open, pq_due as materialized (
  select due.id, due.expected_at from pq_open, (
    select id, expected_at from :table
    where :due and :since
    order by q_name, due_at
    limit (select 1001 * least(state.open, 1) from pq_open as state)
    for update skip locked
  ) as due
  limit 1001
), pq_urgent as materialized (
  select urgent.id, urgent.expected_at from pq_open, (
    select id, expected_at from :table
    where :urgent
    order by q_name, expected_at, id
    limit (select :most from pq_open as state)
    for update skip locked
  ) as urgent
  limit 1000
), pq_other as materialized (
  select other.id, other.expected_at from pq_open, (
    select id, expected_at from :table
    where :other
    order by q_name, expected_at, id
    limit (select :most - (select count(*) from pq_urgent) from pq_open as state)
    for update skip locked
  ) as other
  limit 1000
), pq_best as materialized (
  select candidate.id from (
    select * from pq_due union all select * from pq_urgent union all select * from pq_other
  ) as candidate
  order by candidate.expected_at, candidate.id
  limit (select :best)
), pq_promoted as (
  update :table set due_at = null, dequeued_at = null, expiries = :expiries
  where id = any (array(select due.id from pq_due as due except select best.id from pq_best as best))
  returning id
), pq_taken as (
  :taken
  where id = any (array(select best.id from pq_best as best)) and :takes
  returning :returned
) :no_others :noted
select :columns, :removes, (select min(promoted.id) from pq_promoted as promoted) :told:rest:headers
from pq_open as state left join :all_taken on true
where id is not null or state.open = 0
order by expected_at, id

-- name: claim_in_transaction
-- Take the best jobs in a transaction that stays open. The statement locks the rows that it takes and no others: otherwise
-- it would hide jobs that it did not take. It reads the candidates in order, until enough of them are not locked. If all
-- of them are locked, it takes due rows behind the first 100.
with :open, pq_first as materialized (
  select first.id from pq_open, (
    select candidate.id from (
      (
        select id, expected_at from :table
        where :urgent
        order by q_name, expected_at, id
        limit (select null::bigint)
      )
      union all
      (
        select id, expected_at from :table
        where :other
        order by q_name, expected_at, id
        limit (select null::bigint)
      )
      union all
      select due.id, due.expected_at from (
        select due.id, due.expected_at from pq_open, (
          select id, expected_at from :table
          where :due and :since
          order by q_name, due_at
          limit (select 100)
        ) as due
        limit 100
      ) as due
      order by expected_at, id
      limit (select null::bigint)
    ) as candidate
    where exists (
      select from :table as job
      where job.id = candidate.id and job.q_name = %(queue)s and (:is_due or (:is_ready)) and :may_take
      for update skip locked
    )
    limit (select :most from pq_open as state)
  ) as first
  limit 1000
), pq_rest as materialized (
  select rest.id from pq_open, (
    select id from :table
    where :due and :since and not exists (select from pq_first) and :may_take
    order by q_name, due_at
    limit (select :most from pq_open as state)
    for update skip locked
  ) as rest
  limit 1000
), pq_best as materialized (
  select first.id from pq_first as first union all select rest.id from pq_rest as rest
), pq_taken as (
  :taken
  where id = any (array(select best.id from pq_best as best)) and :takes
  returning :returned
) :no_others :noted
select :columns, :removes, null::bigint :told:headers
from pq_open as state left join :all_taken on true
where id is not null or state.open = 0
order by expected_at, id

-- name: open_limited
-- In place of "open": how many jobs may be taken. For each of the queue's limits as many free places, or tokens, are locked
-- as there are jobs wanted. Its markers are looked up once, and what is told of the limits is found in one go: each part of
-- a statement takes the server time, and of a full limit many claims find nothing.
pq_state as materialized (
  select coalesce(bool_or(:limit_marker), false) as is_limited, coalesce(bool_or(:pause_marker), false) as is_paused
  from :table where q_name = %(queue)s and :marker
), pq_limit as materialized (
  select limits.name, limits.tableoid, kind.kind, limits.period,
    exists (
      select from :slots_table as slot where slot.name = limits.name and slot.kind = kind.kind and slot.n > kind.most
    ) as is_over
  from pq_state as state, :limits_table as limits,
    lateral (values ('running', limits.running), ('rate', limits.rate)) as kind (kind, most)
  where kind.most is not null and :is_limit_of and not state.is_paused
), pq_place as materialized (
  select place.*, row_number() over (partition by place.name, place.kind) as number
  from pq_limit as limits, lateral (
    select slot.name, slot.kind, slot.n from (
      :free_slots
    ) as slot
    where not limits.is_over and (limits.kind = 'running' or %(tokens)s) and :is_seen
    limit (select %(limit)s::bigint)
  ) as place
), pq_open as materialized (
  select case when state.is_limited and not state.is_paused then coalesce(told.most, %(limit)s::bigint) else 0 end as open,
    state.is_limited, told.slot, told.has_places, told.has_tokens, told.limits_table, told.is_over
  from pq_state as state, (
    select
      min((
        select count(*) from pq_place as place where place.name = limits.name and place.kind = limits.kind
      )) filter (where limits.kind = 'running' or %(tokens)s) as most,
      min(limits.name) filter (where limits.kind = 'running') as slot,
      bool_or(limits.kind = 'running') as has_places,
      bool_or(limits.kind = 'rate') as has_tokens,
      min(limits.tableoid::bigint) as limits_table,
      bool_or(limits.is_over) as is_over
    from pq_limit as limits
  ) as told
)

-- name: most_limited
state.open

-- name: best_limited
state.open from pq_open as state

-- name: told_limited
-- How many jobs there were places for; whether the queue is limited, by places, by tokens, of which table, and whether
-- there are more places than the limit now allows.
, state.open, state.is_limited, state.has_places, state.has_tokens, state.limits_table, state.is_over :keeps

-- name: keeps

-- name: keeps_places
-- In a transaction that stays open, a job that is taken without a lease seems to have ended, though it has its place until
-- the transaction ends. Others see that the place is locked, and this transaction notes which ones it has; a savepoint that
-- is rolled back takes the note back, too.
, (
  select set_config('pq.places', (
    coalesce(nullif(current_setting('pq.places', true), ''), '{}')::text[]
    || array_agg(place.n || ' ' || place.name)
  )::text, true)
  from pq_place as place
  where place.kind = 'running' and place.number <= (select count(*) from :all_taken)
)

-- name: is_kept_here
-- In place of "is_kept".
(slot.n || ' ' || slot.name = any (coalesce(nullif(current_setting('pq.places', true), ''), '{}')::text[]))

-- name: slot_limited
, slot = (select state.slot from pq_open as state)

-- name: noted_limited
-- What each of the jobs has taken. Rows that were held back have taken nothing.
, pq_noted as (
  update :slots_table as slot set job = taken.id, taken_at = taken.at
  from pq_place as place, (
    select id, case when :removes then clock_timestamp() else dequeued_at end as at, row_number() over () as number
    from :all_taken
    where :removes or dequeued_at is not null
  ) as taken
  where slot.name = place.name and slot.kind = place.kind and slot.n = place.n and taken.number = place.number
)
