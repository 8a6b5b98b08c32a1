-- What the owner has not set, and the retention of a new table. A table that was there keeps all rows until somebody says
-- otherwise. (A DO block can't contain a name that may have dollar signs.)
select set_config('pq.table', :table_text, true);

do $pq$
declare
  queue regclass := current_setting('pq.table')::regclass;
  setting text;
begin
  -- TODO why
  foreach setting in array array[
    'autovacuum_vacuum_scale_factor = 0.01',
    'autovacuum_vacuum_threshold = 1000',
    'autovacuum_vacuum_insert_scale_factor = 0.1',
    'autovacuum_vacuum_cost_delay = 0',
    'autovacuum_analyze_scale_factor = 0.1'
  ] loop
    if not exists (
      select from pg_class, unnest(reloptions) as option
      where oid = queue and split_part(option, '=', 1) = split_part(setting, ' ', 1)
    ) then
      execute format('alter table %s set (%s)', queue, setting);
    end if;
  end loop;
  if current_setting('pq.new_table', true) = current_setting('pq.table') then
    execute format('comment on column %s.result is %L', queue, '(pq keeps finished 7d, dead 30d)');
  end if;
end
$pq$;

comment on column :table.due_at is 'When the row becomes ready by itself. (pq schema 4)';
