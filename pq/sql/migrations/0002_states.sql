-- States beyond "taken or not": due_at is when a row becomes ready by itself, attempts counts deliveries under a
-- lease, error says why the last one failed.
alter table :table add column if not exists due_at timestamptz;
alter table :table add column if not exists attempts integer not null default 0;
alter table :table add column if not exists error text;

-- pq 1.9.1 notified at every put: NOTIFY takes an instance-wide lock at commit, and names over 63 bytes failed.
drop trigger if exists pq_insert on :table;

-- Plain SQL and pq 1.9.1 know nothing of due_at when they put a job, move it to another time, or take it.
create or replace function :due_function() returns trigger language plpgsql as $pq$
begin
  new.due_at := case when new.dequeued_at is null then new.schedule_at end;
  return new;
end
$pq$;

drop trigger if exists :due_insert_trigger on :table;
create trigger :due_insert_trigger before insert on :table for each row
  when (new.schedule_at is not null and new.due_at is null and new.dequeued_at is null)
  execute function :due_function();

drop trigger if exists :due_update_trigger on :table;
create trigger :due_update_trigger before update of dequeued_at, schedule_at on :table for each row
  when (
    old.dequeued_at is null and new.due_at is not distinct from old.due_at and case
      when new.dequeued_at is null then new.schedule_at is distinct from old.schedule_at
      else new.due_at <= new.dequeued_at
    end
  )
  execute function :due_function();

-- The indexes come before the update: built after it in one transaction, they could not be used until the last
-- transaction has ended that writes now.
create index if not exists :ready_index on :table (q_name, expected_at, id)
  where dequeued_at is null and due_at is null;
create index if not exists :due_index on :table (q_name, due_at) where due_at is not null;

update :table set due_at = schedule_at
where dequeued_at is null and due_at is null and schedule_at is not null;

-- Wake whoever waits for these queues; a queue that nobody waits for costs no NOTIFY. Waiters hold the queue's
-- advisory lock shared; it can be had exclusively, for a moment, only if there are none. The two calls stand in one
-- expression, within which no cancellation is served: the lock cannot stay behind.
create or replace function :notify_function() returns trigger language plpgsql as $pq$
declare
  key bigint;
begin
  for key in
    select distinct pg_catalog.hashtextextended(
      pg_catalog.format('%I.%I %s', tg_table_schema, tg_table_name, q_name), 0
    ) from new_rows
  loop
    if (case when pg_catalog.pg_try_advisory_lock(key) then not pg_catalog.pg_advisory_unlock(key) else true end) then
      perform pg_catalog.pg_notify('pq_' || pg_catalog.to_hex(key), '');
    end if;
  end loop;
  return null;
end
$pq$;

drop trigger if exists :notify_trigger on :table;
create trigger :notify_trigger after insert on :table referencing new table as new_rows for each statement
  execute function :notify_function();

comment on column :table.due_at is 'When the row becomes ready by itself. (pq schema 2)';
