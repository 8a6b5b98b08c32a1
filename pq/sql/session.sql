-- What pq asks of a server session when it has opened a connection, or before it first limits the time of a statement there.

-- name: limit
-- The process behind the connection, how many milliseconds a statement may take there (0: no limit), and whether that
-- limit was just replaced by a shorter one, for the rest of the session: not if there is a shorter one already, and not
-- behind a transaction pooler, where the session is not ours alone.
select pid, own_limit,
  case
    when pid = %(pid)s and %(limit)s > 0 and (own_limit = 0 or own_limit > %(limit)s)
    then set_config('statement_timeout', %(limit)s::text, false) is not null
    else false
  end
from (
  select pg_backend_pid() as pid,
    (extract(epoch from current_setting('statement_timeout')::interval) * 1000)::bigint as own_limit
) as session

-- name: working
-- Whether the server is executing a statement of this process, and not waiting for the client to send more of it.
select coalesce(state, 'disabled') not like 'idle%%' and wait_event_type is distinct from 'Client' as working
from pg_stat_activity where pid = %(pid)s

-- name: target
-- What makes two sessions see the same table with the same rights, unless the last column is true: there is no table, or
-- what a session sees of it may depend on its settings.
select
  extract(epoch from pg_postmaster_start_time())::text,
  current_database()::text,
  current_user::text,
  to_regclass(%(table)s)::oid::bigint,
  coalesce(row_security_active(to_regclass(%(table)s)::oid), true)
