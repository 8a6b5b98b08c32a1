-- What a trial of a job would write, in the transaction that is rolled back in the end.

-- name: begin
-- The transaction, by a setting that ends with it; the last id; and the server's time.
select set_config('pq.trial', 'begun', true), coalesce((select max(id) from :table), 0), statement_timestamp()

-- name: writes
-- Of all transactions of this session that the server has not counted yet: so the difference to the beginning is what
-- counts. The jobs that are put are shown by themselves.
select relid::regclass::text, case when relid = to_regclass(%(table)s) then 0 else n_tup_ins end, n_tup_upd, n_tup_del
from pg_stat_xact_user_tables

-- name: goes_on
select current_setting('pq.trial', true) is not distinct from 'begun'

-- name: mark
savepoint pq_trial

-- name: undo
-- After a statement that failed, when the transaction takes no other one.
rollback to savepoint pq_trial

-- name: check
set constraints all immediate

-- name: puts
-- Rows that this transaction has inserted: others see only what is committed, so a row whose transaction is in progress is
-- of this one, or of a savepoint in it. xmin has the lower half of the number of a transaction.
select id, q_name, data::text, key,
  case when due_at is not null then
    least(greatest(due_at, :first_time), :last_time) at time zone 'utc'
  end
from (
  select :row, q_name, (xmin::text::bigint - pg_snapshot_xmax(pg_current_snapshot())::text::bigint) %% 4294967296 as ahead,
    pg_snapshot_xmax(pg_current_snapshot())::text::bigint as next
  from :table
  where id > %(last)s and (:marker) is not true
) as job
where pg_xact_status(
  greatest(next + (ahead + 4294967296 + 2147483648) %% 4294967296 - 2147483648, 3)::text::xid8
) = 'in progress'
order by id
limit %(limit)s

-- name: steps
select steps::text from :table where id = %(id)s

-- name: key_state
select (select states.state::text from :states_table as states where states.q_name = job.q_name and states.key = job.key), false
from :table as job where job.id = %(id)s
