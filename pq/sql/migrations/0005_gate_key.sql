-- The key of a queue's gate is now the same in all sessions: with quote_all_identifiers on, format() puts more quotes around
-- the table's name; and where the column had a collation of its own, hashtextextended() failed, or hashed what that
-- collation makes of the name. In all other cases it is the key that it was, so that older waiters are woken, too.
create or replace function :notify_function() returns trigger language plpgsql set quote_all_identifiers = off as $pq$
declare
  key bigint;
begin
  for key in
    select distinct pg_catalog.hashtextextended(
      pg_catalog.format('%I.%I %s', tg_table_schema, tg_table_name, q_name) collate "C", 0
    ) from new_rows
  loop
    -- in one expression, within which no cancellation is served: the lock cannot stay behind
    if (case when pg_catalog.pg_try_advisory_lock(key) then not pg_catalog.pg_advisory_unlock(key) else true end) then
      perform pg_catalog.pg_notify('pq_' || pg_catalog.to_hex(key), '');
    end if;
  end loop;
  return null;
end
$pq$;

comment on column :table.due_at is 'When the row becomes ready by itself. (pq schema 5)';
