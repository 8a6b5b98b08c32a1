-- What a job that ran under a lease leaves behind: when it first failed; its result or, while it runs, its progress.
alter table :table add column if not exists failed_at timestamptz;
alter table :table add column if not exists result json;

-- A job that failed under a lease and is then taken without one, by any version of pq, is not dead.
create or replace function :taken_function() returns trigger language plpgsql as $pq$
begin
  new.error := null;
  new.failed_at := null;
  return new;
end
$pq$;

drop trigger if exists :taken_trigger on :table;
create trigger :taken_trigger before update of dequeued_at on :table for each row
  when (
    old.dequeued_at is null and new.dequeued_at is not null and new.error is not null
    and (new.due_at is null or new.due_at <= new.dequeued_at)
  )
  execute function :taken_function();

-- The dead jobs of a queue, by the time of their death.
create index if not exists :dead_index on :table (q_name, dequeued_at, id)
  where error is not null and dequeued_at is not null and due_at is null;

comment on column :table.due_at is 'When the row becomes ready by itself. (pq schema 3)';
