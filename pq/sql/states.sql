-- The states that the jobs of a key hand on.

-- name: read
select state::text from :states_table where q_name = %(queue)s and key = %(key)s

-- name: write
insert into :states_table (q_name, key, state) values (%(queue)s, %(key)s, %(state)s)
on conflict (q_name, key) do update set state = excluded.state, changed_at = statement_timestamp(), job = null

-- name: remove
delete from :states_table where q_name = %(queue)s and key = %(key)s
