-- The retention of a new table; one that was there keeps everything until somebody says otherwise. And what the owner
-- has not set of its storage: by default a vacuum waits until a fifth of all rows are dead, and where finished rows are
-- kept that is late: the indexes grow by each job until then.
set local pq.target = :table_text;
do $pq$
declare
  target regclass := current_setting('pq.target')::regclass;
  setting text;
begin
  if current_setting('pq.table_is_new', true)::boolean then
    execute format('comment on column %s.result is %L', target, '(pq keeps finished 7d, dead 30d)');
  end if;
  foreach setting in array array['autovacuum_vacuum_scale_factor=0.01', 'autovacuum_vacuum_threshold=1000'] loop
    if not exists (
      select from pg_class, unnest(reloptions) as option
      where oid = target and split_part(option, '=', 1) = split_part(setting, '=', 1)
    ) then
      execute format('alter table %s set (%s)', target, setting);
    end if;
  end loop;
end
$pq$;

-- How often in a row the lease has expired: whoever ran the job has died or hung each time.
alter table :table add column if not exists expiries integer not null default 0;

comment on column :table.due_at is 'When the row becomes ready by itself. (pq schema 4)';
