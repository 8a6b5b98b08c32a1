-- The vacuum of a worker whose jobs are deleted when they are done.

-- name: may_vacuum
-- Set the limits of the session, and say whether its role may vacuum the table. There is no privilege MAINTAIN before version
-- 17, and the function fails if it is asked for it.
select
  case
    when current_setting('server_version_num')::integer >= 170000 then has_table_privilege(oid, 'MAINTAIN')
    else pg_has_role(relowner, 'USAGE')
  end
from pg_class,
  set_config('lock_timeout', %(lock)s, false) as pq_lock, set_config('statement_timeout', %(time)s, false) as pq_time
where oid = to_regclass(%(table)s)

-- name: vacuum
vacuum (skip_locked, truncate off, parallel 0) :table
