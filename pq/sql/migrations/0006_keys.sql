-- What jobs with a key, a token or a place need; what finished rows tell; and the tables beside the one of the jobs. All
-- columns are null for jobs that use none of this. What is here already is ours only if its comment says so, as this step
-- leaves it: a column or a table of the user's is never adopted.
set local pq.target = :table_text;
set local pq.beside = :beside_text;
do $pq$
declare
  target regclass := current_setting('pq.target')::regclass;
  name text;
begin
  select attname into name from pg_attribute
  where attrelid = target and attnum > 0 and not attisdropped
    and attname in (
      'key', 'is_alone', 'unique_key', 'unique_until', 'slot', 'follower', 'waits_for', 'on_failed', 'steps', 'finished_at',
      'worker', 'headers'
    )
    and coalesce(col_description(attrelid, attnum), '') not like '%(pq)'
  limit 1;
  if name is not null then
    raise exception using errcode = 'duplicate_column', message = format(
      'table %s has a column %I that is not of pq: rename it, pq needs the name', current_setting('pq.target'), name
    );
  end if;
  foreach name in array current_setting('pq.beside')::text[] loop
    if coalesce(obj_description(to_regclass(name), 'pg_class') not like '%(pq)', to_regclass(name) is not null) then
      raise exception using errcode = 'duplicate_table', message = format(
        'there is a table %s that is not of pq: rename it, pq needs the name beside %s', name, current_setting('pq.target')
      );
    end if;
  end loop;
end
$pq$;

alter table :table
  add column if not exists key text,
  add column if not exists is_alone boolean,
  add column if not exists unique_key text,
  add column if not exists unique_until timestamptz,
  add column if not exists slot text,
  add column if not exists follower bigint,
  add column if not exists waits_for bigint[],
  add column if not exists on_failed text,
  add column if not exists steps json,
  add column if not exists finished_at timestamptz,
  add column if not exists worker text,
  add column if not exists headers json;

comment on column :table.key is 'Jobs with the same one run one at a time, in order. (pq)';
comment on column :table.is_alone is 'Nobody else of its key is in line; false: in line, though its time has not come. (pq)';
comment on column :table.unique_key is 'A token that one row has at most; given by a put, and only taken away. (pq)';
comment on column :table.unique_until is 'The end of the token; -infinity: when it is taken; infinity: when it has ended. (pq)';
comment on column :table.slot is 'The limit whose place the delivery takes. (pq)';
comment on column :table.follower is 'The job that waits for this one. (pq)';
comment on column :table.waits_for is 'The jobs that this one was put to wait for, while it waits. (pq)';
comment on column :table.on_failed is 'What a waiting job does if one that it waits for has failed; null: hold. (pq)';
comment on column :table.steps is 'What the steps of the job have returned. (pq)';
comment on column :table.finished_at is 'When the job ended: done under a lease, dead or cancelled. Else dequeued_at tells it. (pq)';
comment on column :table.worker is 'Who has or had the last lease: host and process. (pq)';
comment on column :table.headers is 'What goes with the job beside its data. (pq)';

-- The rows of each key: those in line, which are ready, run, or have begun and wait for their retry (0); those that are
-- held behind them, whose due_at is infinity (1); the dead ones (2); those whose time has not come, or that wait for
-- the jobs that they follow (3); and at the end the finished ones (null), since a condition that leaves them out would cost
-- each put of a plain job more than all else here.
create index if not exists :key_index on :table (q_name, key, :stand, expected_at, id) where key is not null;
create unique index if not exists :unique_index on :table (q_name, unique_key) where unique_key is not null;

-- With the ids, so that a page of those that have one time, as all held ones do, can be read from the middle.
drop index if exists :due_index_there;
create index :due_index on :table (q_name, due_at, id) where due_at is not null;

-- The jobs of each queue that run, or whose lease has expired: who looks at these would else go past all that are scheduled.
-- It is not put into, and left, by jobs that are taken without a lease. The markers of queues are no jobs.
create index if not exists :running_index on :table (q_name, dequeued_at, id)
  where dequeued_at is not null and due_at < '200000-01-01 00:00:00+00';

-- Keys and followers that have to be looked at again: whoever held a row, or passed over one, could not know whether
-- another transaction was about to end what it waits for. job: the follower, and as the key, whether one that it follows
-- has failed; else the key. late: the row that was held, which may have come too late for its place.
create table if not exists :checks_table (
  q_name text not null, key text, job bigint, late bigint, check_at timestamptz not null
);
comment on table :checks_table is 'Keys and followers of jobs that are to be looked at again. (pq)';
-- it has no key, and with a publication of all tables the server would refuse deletes
alter table :checks_table replica identity full;
create index if not exists :checks_index on :checks_table (check_at);

-- What was set by pq.limits. queues: those that share it; null: the queue of that name.
create table if not exists :limits_table (
  name text primary key,
  queues text[],
  running integer,
  rate integer,
  period interval,
  per_key integer,
  on_retry text,
  on_dead text
);
comment on table :limits_table is 'What was set by pq.limits. (pq)';

-- One row for each place (running) or token (rate) of a limit. A place is free if its job does not run in that delivery;
-- a token is free a period after it was taken.
create table if not exists :slots_table (
  name text not null,
  kind text not null,
  n integer not null,
  job bigint,
  taken_at timestamptz,
  primary key (name, kind, n)
) with (fillfactor = 50);
comment on table :slots_table is 'The places and tokens of limits. (pq)';

-- The state that jobs of a key hand on.
create table if not exists :states_table (
  q_name text not null,
  key text not null,
  state json not null,
  changed_at timestamptz not null default statement_timestamp(),
  job bigint,
  primary key (q_name, key)
);
comment on table :states_table is 'The state that jobs of a key hand on. (pq)';

-- What is put by the clock. jitter: seconds. declared: a task has it; false: one had it. anchor: where intervals count
-- from.
create table if not exists :schedules_table (
  name text primary key,
  q_name text not null,
  data json not null,
  rule text not null,
  zone text,
  missed text not null check (missed in ('once', 'skip', 'all')),
  jitter double precision check (jitter between 0 and 4e8),
  key text,
  unique_key text,
  unique_until timestamptz,
  paused boolean not null default false,
  declared boolean,
  anchor timestamptz not null check (anchor between '0001-01-02 00:00+00' and '9999-12-30 00:00+00'),
  next_at timestamptz check (next_at between '0001-01-02 00:00+00' and '9999-12-30 00:00+00'),
  last_at timestamptz check (last_at between '0001-01-02 00:00+00' and '9999-12-30 00:00+00'),
  last_job bigint,
  error text
);
comment on table :schedules_table is 'What was set by pq.schedules. (pq)';
create index if not exists :schedules_index on :schedules_table (next_at) where not paused;

-- Keys. Whoever puts, ends or changes a row of a key can't know what other transactions are about to do, and must not
-- wait for them: so each does what is right as far as it can see, and notes a check of the key where something may be left
-- to do. Checks are only ever inserted here. Whoever consumes makes those that are due, within a second or so; see
-- keys.sql. Only the guard, which decides whether a row may be taken, is exact.
--
-- The functions of triggers, and those that statements call, run as the owner of the table: who may put or end jobs needs
-- no right to the tables beside. In each statement "order by" repeats the key of the index, as in claim.sql: these plans
-- are kept for a session, in which the table may grow from nothing to millions of rows. Where the newest rows are looked
-- at first: in front of them the index may be full of those that are gone. What these functions repeat stands in
-- line.sql.

-- They find things where this step does, and nobody's temporary tables before those.
do $pq$ begin
  perform set_config('pq.search_path', current_setting('search_path'), true), set_config(
    'search_path',
    (select concat_ws(', ', string_agg(quote_ident(name), ', '), 'pg_temp') from unnest(current_schemas(false)) as name),
    true
  );
end $pq$;

create or replace function :check_function(its_queue text, its_key text, its_job bigint, its_late bigint default null)
returns void
language sql as $pq$
  insert into :checks_table (q_name, key, job, late, check_at)
  values (its_queue, its_key, its_job, its_late, pg_catalog.clock_timestamp() + interval '500 ms')
$pq$;

-- Notify whoever waits for the queue, as the notify trigger does, which says why it looks like this.
-- its_table: schema and name as format('%I.%I') writes them; null: look them up.
create or replace function :wake_function(its_table text, its_queue text) returns void
language plpgsql set quote_all_identifiers = off as $pq$
declare
  gate bigint;
begin
  if its_table is null then
    select pg_catalog.format('%I.%I', nspname, relname) into its_table
    from pg_catalog.pg_class join pg_catalog.pg_namespace on pg_namespace.oid = relnamespace
    where pg_class.oid = :table_text::pg_catalog.regclass;
  end if;
  gate := pg_catalog.hashtextextended((its_table || ' ' || its_queue) collate "C", 0);
  if (case when pg_catalog.pg_try_advisory_lock(gate) then not pg_catalog.pg_advisory_unlock(gate) else true end) then
    perform pg_catalog.pg_notify('pq_' || pg_catalog.to_hex(gate), '');
  end if;
end
$pq$;

-- Whether a row that becomes ready has to stand behind others of its key, as far as can be seen. The rows of a key are
-- looked at from behind: dead, held, in line.
create or replace function :behind_function(its_queue text, its_key text, its_id bigint) returns boolean
language plpgsql as $pq$
declare
  last integer := (
    select :stand from :table
    where :of_key and :stand <= 2 and id <> its_id
    :newest_first
    limit 1
  );
  most integer;
  passes boolean;
  stops boolean;
begin
  if last is null then
    return false;
  elsif last = 1 then
    return true;
  end if;
  :read_rules its_queue;
  return (last = 2 and stops is true) or (last = 2 and (
    select id from :table
    where :of_key and :stand = 1 and id <> its_id
    :newest_first
    limit 1
  ) is not null) or (
    select count(*) >= coalesce(most, 1) from (
      select id from :table
      where :of_key and :is_in_line and id <> its_id
      :newest_first
      limit coalesce(most, 1)
    ) as line
  );
end
$pq$;

-- The guard: whether a row of a key may be taken now. A row that is alone may: the end of the one before it, which was
-- alone, has made it ready, and nobody else may begin before it does. For others one has to look twice, the second time
-- with the key locked until the transaction ends: each statement of this function has a snapshot of its own, and so sees
-- what was committed before it had the lock. Returned is "begins"; "behind", if others are in front of it; or "busy": another
-- transaction looks at that moment, or has taken one. A transaction locks only so many keys, since the server's table of
-- locks is small: null says that it has. notes: a row that is refused stays as it is, and is not one of those that ends make ready: so
-- it is checked later, lest a line that is never empty passes it over for ever. So many rows a transaction: others follow.
create or replace function :guard_function(
  its_queue text, its_key text, its_id bigint, its_expected timestamptz, its_attempts integer, its_alone boolean,
  most integer, passes boolean, stops boolean, most_locks integer, notes boolean
) returns text
language plpgsql as $pq$
declare
  locks integer;
  noted integer;
  found_out text := 'begins';
begin
  if its_alone then
    return found_out;
  end if;
  for step in 1..2 loop
    if step = 2 then
      locks := coalesce(nullif(pg_catalog.current_setting('pq.key_locks', true), ''), '0')::integer;
      if locks >= most_locks then
        return null;
      end if;
      if not pg_catalog.pg_try_advisory_xact_lock(pg_catalog.hashtextextended(
        pg_catalog.format('%s key %s %s', :table_text::pg_catalog.regclass::oid, its_queue, its_key) collate "C", 0
      )) then
        found_out := 'busy';
        exit;
      end if;
      perform pg_catalog.set_config('pq.key_locks', (locks + 1)::text, true);
    end if;
    if (
      select count(*) >= most from (
        select id from :table
        where :of_key and :stand = 0 and id <> its_id and case
          when dequeued_at is not null or is_alone then true
          when due_at is not null and attempts > 0 then passes is not true
          else (attempts = 0, coalesce(expected_at, 'infinity'), id)
            < (its_attempts = 0, coalesce(its_expected, 'infinity'), its_id)
        end
        :newest_first
        limit most
      ) as line
    ) or (stops and (
      select id from :table
      where :of_key and :stand = 2 and id <> its_id
      :oldest_first
      limit 1
    ) is not null) then
      found_out := 'behind';
      exit;
    end if;
  end loop;
  if notes and found_out <> 'begins' and its_attempts = 0 then
    noted := coalesce(nullif(pg_catalog.current_setting('pq.refused', true), ''), '0')::integer;
    if noted < 60 then
      perform :check_function(its_queue, its_key, null, its_id);
      perform pg_catalog.set_config('pq.refused', (noted + 1)::text, true);
    end if;
  end if;
  return found_out;
end
$pq$;

-- For transactions that stay open, which have to pass over what they may not take. The trigger asks, and counts, once more.
create or replace function :free_function(
  its_queue text, its_key text, its_id bigint, its_expected timestamptz, its_attempts integer, its_alone boolean
) returns boolean
language sql security definer set search_path from current as $pq$
  select :guard_function(
    its_queue, its_key, its_id, its_expected, its_attempts, its_alone, coalesce(given.per_key, 1),
    given.on_retry = 'pass', given.on_dead = 'stop', 60, true
  ) is not distinct from 'begins'
  from (select) as one left join :limits_table as given on given.name = its_queue and given.queues is null
$pq$;

-- A put of a row with a key, or with a time, for plain SQL and pq 1.9.1, which know nothing of due_at. One trigger for both:
-- the server reads the text of each condition for each statement.
create or replace function :arrive_function() returns trigger
language plpgsql security definer set search_path from current as $pq$
begin
  if new.due_at is not null or new.dequeued_at is not null then
    null;
  elsif new.schedule_at is not null then
    new.due_at := new.schedule_at;
  elsif :behind_function(new.q_name, new.key, new.id) then
    new.due_at := 'infinity';
    new.schedule_at := 'infinity';  -- for pq 1.9.1
    insert into :checks_table (q_name, key, late, check_at)
    values (new.q_name, new.key, new.id, pg_catalog.clock_timestamp() + interval '500 ms');
  end if;
  return new;
end
$pq$;

drop trigger if exists :arrive_trigger on :table;
create trigger :arrive_trigger before insert on :table for each row when (new.key is not null or new.schedule_at is not null)
  execute function :arrive_function();
drop trigger if exists :due_insert_trigger on :table;

-- A change of a row with a key or a token. A claim that may hold the row back, instead of taking it, says so by an
-- infinite schedule_at; for all others, pq 1.9.1 included, a row that may not be taken stays as it is.
--
-- A row that leaves the line, or its place in a limit, is noted; what follows from that is done at the end of the
-- statement, which may end several rows of a key. Conditions of triggers for each row after the statement would cost plain
-- jobs more than this.
create or replace function :line_function() returns trigger
language plpgsql security definer set search_path from current as $pq$
declare
  may_hold boolean;
  found_out text;
  most integer;
  passes boolean;
  stops boolean;
  was_in_line boolean := (old.dequeued_at is null) = (old.due_at is null)
    or ((old.attempts > 0 or old.is_alone is false) and old.due_at < 'infinity');
  was_dead boolean := old.error is not null and old.dequeued_at is not null and old.due_at is null;
  leaves boolean := false;
  stays boolean := false;
  noted text;
begin
  if old.slot is not null and old.dequeued_at is not null and old.due_at is not null
    and (tg_op = 'DELETE' or new.dequeued_at is distinct from old.dequeued_at or new.due_at is null)
  then
    perform pg_catalog.set_config(
      'pq.left', coalesce(pg_catalog.current_setting('pq.left', true), '') || pg_catalog.json_build_array(old.q_name) || ',',
      true
    );
  end if;
  if tg_op = 'UPDATE' and old.waits_for is not null and new.due_at is distinct from old.due_at then
    new.waits_for := null;  -- it has been made ready, or given another time; it may stand behind others of its key now
  end if;
  if was_dead then
    was_in_line := coalesce(
      (select on_dead = 'stop' from :limits_table where name = old.q_name and queues is null), false
    );
  end if;
  if tg_op = 'DELETE' then
    leaves := was_in_line and old.key is not null;
  elsif new.key is null then
    leaves := was_in_line and old.key is not null;
    if old.key is not null and new.due_at = 'infinity' and new.dequeued_at is null and new.waits_for is null then
      new.due_at := null;  -- nobody is in front of it any more
      new.schedule_at := null;
    end if;
  elsif old.dequeued_at is null and new.dequeued_at is not null and (new.failed_at is null or new.error is not null) then
    may_hold := new.schedule_at = 'infinity' and old.schedule_at is distinct from new.schedule_at;
    new.schedule_at := nullif(case when may_hold then old.schedule_at else new.schedule_at end, 'infinity');
    if pg_catalog.current_setting('transaction_isolation') <> 'read committed' then
      raise feature_not_supported using message = 'jobs with keys can be taken at READ COMMITTED only',
        hint = 'Let "set transaction isolation level read committed" be the first statement of the transaction.';
    end if;
    :read_rules new.q_name;
    most := coalesce(most, 1);
    found_out := :guard_function(
      old.q_name, old.key, old.id, old.expected_at, old.attempts, old.is_alone, most, passes, stops, 120, not may_hold
    );
    if found_out = 'begins' then
      new.is_alone := case when most = 1 then true end;
      if new.due_at = 'infinity' then  -- plain SQL has taken a held row
        new.due_at := null;
      end if;
      leaves := new.due_at is null and was_in_line;
    elsif not may_hold then
      return null;
    else
      new := old;
      -- One that was in line is not held, unless others are in front of it: a later one that is in line, too, would pass it.
      -- Nor is one that has begun, which would lose its place among those held.
      if (found_out = 'busy' and was_in_line and old.attempts = 0)
        or (found_out is not null and old.attempts > 0 and passes is not true)
      then
        new.due_at := pg_catalog.clock_timestamp() + interval '200 ms';
        new.schedule_at := new.due_at;
        new.is_alone := case when old.attempts = 0 then false end;
      elsif found_out is not null then
        new.due_at := 'infinity';
        new.schedule_at := 'infinity';
        new.is_alone := null;
        perform :check_function(new.q_name, new.key, null, new.id);
      end if;
    end if;
  else
    if (new.q_name, new.key) is distinct from (old.q_name, old.key) then
      leaves := was_in_line;
      if new.due_at = 'infinity' and new.waits_for is null then
        new.due_at := null;
        new.schedule_at := null;
      end if;
    end if;
    if new.dequeued_at is not null then
      leaves := leaves or (new.due_at is null and was_in_line and not (was_dead and new.error is not null));
      if leaves and new.error is not null and old.due_at is not null then
        select on_dead = 'stop' into stops from :limits_table where name = new.q_name and queues is null;
        leaves := stops is not true;
      end if;
    else
      if new.due_at is null and (
        leaves or (new.q_name, new.key) is distinct from (old.q_name, old.key)
        or (old.due_at < 'infinity' and old.dequeued_at is null and not was_in_line) or old.waits_for is not null
        or (old.due_at is null and old.dequeued_at is not null)
      ) and :behind_function(new.q_name, new.key, new.id) then
        new.due_at := 'infinity';
        new.schedule_at := 'infinity';
        perform :check_function(new.q_name, new.key, null, new.id);
      end if;
      if was_in_line and new.due_at < 'infinity' then
        select on_retry = 'pass' into passes from :limits_table where name = new.q_name and queues is null;
        stays := new.attempts > 0 or (old.dequeued_at is not null and old.due_at is not null);  -- it was given back
        leaves := leaves or passes is true or not stays;
      elsif was_in_line and old.dequeued_at is not null and old.due_at is null then
        leaves := true;  -- it was dead
      end if;
    end if;
  end if;

  if old.follower is not null then
    perform :end_function(old.q_name, old.follower, old.id, case
      when tg_op = 'DELETE' then
        case when old.dequeued_at is null or old.due_at is not null or old.error is not null then 'failed' end
      when (old.dequeued_at is null or old.due_at is not null) and new.dequeued_at is not null and new.due_at is null then
        case when new.error is null and new.failed_at is not null then 'failed' else 'over' end
    end);
  end if;
  if leaves then
    noted := coalesce(pg_catalog.current_setting('pq.left', true), '');
    if length(noted) > 60000 or pg_catalog.current_setting('transaction_isolation') <> 'read committed' then
      perform :check_function(old.q_name, old.key, null);  -- in an older snapshot one may not see who waits
    else
      perform pg_catalog.set_config('pq.left', noted || pg_catalog.json_build_array(
        old.q_name, old.key, old.id,
        case when old.expected_at is null and old.schedule_at is null and not was_dead then old.id - 1000 else 0 end,
        tg_op = 'DELETE' and old.is_alone is true and not was_dead
          or tg_op = 'UPDATE' and new.dequeued_at is not null and (new.is_alone is true or (old.is_alone is true and not was_dead))
      ) || ',', true);
    end if;
  end if;
  if tg_op = 'DELETE' then
    return old;
  end if;
  if new.dequeued_at is null and (old.dequeued_at is not null or leaves) then
    new.is_alone := case when stays and not leaves and new.attempts = 0 then false end;
  end if;
  if old.due_at = 'infinity' and new.due_at is distinct from old.due_at then
    new.expected_at := nullif(new.expected_at, 'infinity');  -- it came late
  end if;

  if new.unique_key is not null and (new.q_name <> old.q_name or (
    new.dequeued_at is not null
    and (new.unique_until = '-infinity' or (new.unique_until = 'infinity' and new.due_at is null))
  )) then
    new.unique_key := null;
    new.unique_until := null;
  end if;
  return new;
end
$pq$;

drop trigger if exists :line_trigger on :table;
create trigger :line_trigger before update on :table for each row
  when (old.key is not null or old.unique_key is not null or old.follower is not null or old.slot is not null)
  execute function :line_function();
drop trigger if exists :gone_trigger on :table;
create trigger :gone_trigger before delete on :table for each row when (old.key is not null or old.follower is not null or old.slot is not null)
  execute function :line_function();

-- Make the next row of a key ready, after a row that has left the line, and return whether there was one. If another
-- transaction has that row locked, the key is checked later: to make the one after it ready would break the order.
--
-- Rows without a priority are looked at from about the one on that has left: in front of it the index may be full of rows that
-- are gone. Those that came late may be there, too, if the line is never empty: a check gives them the last of all
-- priorities. since: where to begin; 0 after a row that has a priority, or was scheduled: others may be in front of it.
--
-- A row that is in line all the same was noted, and then another trigger has dropped or changed the change.
create or replace function :next_function(
  its_queue text, its_key text, after_id bigint, since bigint, passes_alone boolean
) returns boolean
language plpgsql as $pq$
declare
  next_id bigint;
begin
  if (
    select id from :table
    where :of_key and :stand = 1
    :newest_first
    limit 1
  ) is null then
    return false;
  end if;
  if (
    select (dequeued_at is null) = (due_at is null) from :table where id = after_id and :of_key
  ) is true then
    return false;
  end if;
  -- One that nobody had seen in time may be in line already, and may be earlier. If it is about to leave, the check finds it.
  -- The row itself is in line while it waits for a retry that lets the others pass. This look is before the other one: a claim
  -- may hold it back meanwhile, and then it is found there.
  if passes_alone and coalesce(
    (
      select id from :table
      where :of_key and :stand = 0 and id <> after_id and expected_at is null and id > since
      :newest_first
      limit 1
    ),
    (
      select id from :table
      where :of_key and :stand = 0 and id <> after_id and expected_at is not null
      :oldest_first
      limit 1
    ),
    -- where several might run at once for a while, one that was taken alone may be so no longer
    case when exists (select from :limits_table where name = its_queue and queues is null) then (
      select id from :table
      where :of_key and :stand = 0 and id <> after_id
      :newest_first
      limit 1
    ) end
  ) is not null then
    perform :check_function(its_queue, its_key, null);
    return true;
  end if;
  next_id := coalesce(
    (
      select id from :table
      where :of_key and :stand = 1 and expected_at is not null
      :oldest_first
      limit 1
    ),
    (
      select id from :table
      where :of_key and :stand = 1 and expected_at is null and id > since
      :oldest_first
      limit 1
    ),
    (
      select id from :table
      where :of_key and :stand = 1
      :oldest_first
      limit 1
    )
  );
  update :table set due_at = null, schedule_at = null, is_alone = case when passes_alone then true end
  where id = (select id from :table where id = next_id and :stand = 1 for update skip locked);
  if found then
    return true;
  end if;
  perform :check_function(its_queue, its_key, null);
  return false;
end
$pq$;

-- Note the end of a job that another one follows: 'over', 'failed' if it was cancelled, or deleted before it had ended; or
-- null, no end.
create or replace function :end_function(its_queue text, its_follower bigint, its_id bigint, how text) returns void
language plpgsql as $pq$
declare
  noted text := coalesce(pg_catalog.current_setting('pq.left', true), '');
  line text := pg_catalog.json_build_array(
    null, null, its_follower, how = 'failed', case when how = 'failed' then its_id end
  ) || ',';
begin
  if how is null then
    null;
  elsif length(noted) > 60000 then
    perform :check_function(its_queue, case when how = 'failed' then how end, its_follower);
  elsif pg_catalog.strpos(noted, line) = 0 then
    perform pg_catalog.set_config('pq.left', noted || line, true);
  end if;
end
$pq$;

-- Look whether a job has to wait any longer for those that it follows. It waits for those that have not ended, and unless
-- it is to run then, for dead ones. Jobs that end at the same time don't see each other's end, and nobody is to wait for
-- another's transaction: so each locks the follower's key for as long as its own is open. Who has that lock sees all others
-- that end meanwhile, or these do not get it, and then leave a check behind.
create or replace function :follow_function(its_follower bigint, has_failed boolean) returns void
language plpgsql as $pq$
declare
  its_queue text;
  policy text;
  parents bigint[];
  step integer := 1;
  fails boolean;
  cancels boolean;
  waits boolean;
  is_sure boolean := false;
  locks integer := coalesce(nullif(pg_catalog.current_setting('pq.key_locks', true), ''), '0')::integer;
begin
  select q_name, coalesce(on_failed, 'hold'), waits_for into its_queue, policy, parents from :table
    where id = its_follower and due_at = 'infinity' and dequeued_at is null and waits_for is not null;
  if not found or policy = 'stopped' then
    return;
  end if;
  -- in a transaction with an older snapshot one may not see who has ended; and a chain may be long: the check is due with
  -- the commit
  if pg_catalog.current_setting('transaction_isolation') <> 'read committed' or pg_catalog.pg_trigger_depth() > 10 then
    insert into :checks_table (q_name, key, job, check_at)
    values (its_queue, case when has_failed then 'failed' end, its_follower, pg_catalog.clock_timestamp());
    return;
  end if;
  fails := (has_failed and policy <> 'run') or policy = 'cancel' and (
    :some_parent and job.dequeued_at is not null and job.due_at is null and job.error is not null
    limit 1
  ) is not null;
  if not fails then
    if locks < 100 then
      is_sure := pg_catalog.pg_try_advisory_xact_lock(pg_catalog.hashtextextended(
        pg_catalog.format('%s follower %s', :table_text::pg_catalog.regclass::oid, its_follower) collate "C", 0
      ));
      perform pg_catalog.set_config('pq.key_locks', (locks + 1)::text, true);
    end if;
    -- some of them are looked at first: for each of many to look at all of them would take long
    step := greatest(pg_catalog.cardinality(parents) / 16, 1);
    loop
      waits := (
        :some_parent and (
          job.dequeued_at is null or job.due_at is not null or (job.error is not null and policy <> 'run')
        )
        limit 1
      ) is not null;
      exit when waits or step = 1;
      step := 1;
    end loop;
    if waits then
      if not is_sure then
        perform :check_function(its_queue, null, its_follower);
      end if;
      return;
    end if;
  end if;
  cancels := fails and policy = 'cancel';
  update :table set
    due_at = case when fails and not cancels then due_at end,
    schedule_at = case when fails and not cancels then schedule_at end,
    waits_for = case when fails and not cancels then waits_for end,
    on_failed = case when fails and not cancels then 'stopped' end,
    dequeued_at = case when cancels then pg_catalog.clock_timestamp() end,
    failed_at = case when cancels then pg_catalog.clock_timestamp() end,
    finished_at = case when cancels then pg_catalog.clock_timestamp() end
  where id = (
    select id from :table
    where id = its_follower and due_at = 'infinity' and dequeued_at is null and waits_for is not null
    for update skip locked
  );
  if not found then
    perform :check_function(its_queue, case when has_failed then 'failed' end, its_follower);
  elsif not fails then
    perform :wake_function(null, its_queue);
  end if;
end
$pq$;

-- What follows when rows have left the line: the next of their keys. Or their place in a limit: wake whoever waits for one,
-- also for the other queues of that limit.
create or replace function :leave_function() returns trigger
language plpgsql security definer set search_path from current set quote_all_identifiers = off as $pq$
declare
  noted jsonb := '[' || rtrim(pg_catalog.current_setting('pq.left', true), ',') || ']';
  row jsonb;
  woken text[] := '{}';
  freed text[] := '{}';
  followed boolean := false;
  its record;
begin
  perform pg_catalog.set_config('pq.left', '', true);
  for number in 0 .. jsonb_array_length(noted) - 1 loop
    row := noted->number;
    if row->>0 is null then
      followed := true;
    elsif row->>1 is null then
      if row->>0 <> all (freed) then
        freed := freed || (row->>0);
        perform :wake_function(pg_catalog.format('%I.%I', tg_table_schema, tg_table_name), name) from (
          select row->>0 as name
          union
          select pg_catalog.unnest(queues) from :limits_table where running is not null and row->>0 = any (queues)
        ) as sharers;
      end if;
    elsif :next_function(
      row->>0, row->>1, (row->>2)::bigint, (row->>3)::bigint, (row->>4)::boolean
    ) and row->>0 <> all (woken) then
      woken := woken || (row->>0);
      perform :wake_function(pg_catalog.format('%I.%I', tg_table_schema, tg_table_name), row->>0);
    end if;
  end loop;
  if followed then
    for its in
      select (entry->>2)::bigint as follower, pg_catalog.bool_or((entry->>3)::boolean and not exists (
        select from :table where id = (entry->>4)::bigint and (dequeued_at is null or due_at is not null or error is not null)
      )) as has_failed
      from pg_catalog.jsonb_array_elements(noted) as entry
      where entry->>0 is null
      group by 1
      order by 1
    loop
      perform :follow_function(its.follower, its.has_failed);
    end loop;
  end if;
  return null;
end
$pq$;

drop trigger if exists :left_trigger on :table;
create trigger :left_trigger after update or delete on :table for each statement
  when (current_setting('pq.left', true) <> '')
  execute function :leave_function();

-- Make a check of a key: if fewer than may be are in line, make the first of those that wait ready. If enough are there,
-- they must not be about to leave, or whoever has them locked may not have seen all that wait: then check again.
-- late: rows that may have come too late. Those for which next_function would not look are given their priority, and those
-- that are due, which may never find their key free, are held.
create or replace function :heal_function(its_queue text, its_key text, late bigint[] default null) returns void
language plpgsql security definer set search_path from current as $pq$
declare
  most integer;
  passes boolean;
  stops boolean;
  there integer;
  sure integer;
  passed bigint[];
  stopped bigint;
  newest bigint;
begin
  if (
    select id from :table
    where :of_key and :stand = 1
    :newest_first
    limit 1
  ) is null then
    return;
  end if;
  :read_rules its_queue;
  most := coalesce(most, 1);
  if stops then
    stopped := (
      select id from :table
      where :of_key and :stand = 2
      :oldest_first
      limit 1
    );
  end if;
  select count(*) into there from (
    select id from :table
    where :of_key and :is_in_line
    :newest_first
    limit most
  ) as line;
  if late is not null and (there >= most or stopped is not null) then
    newest := greatest(stopped, (
      select id from :table
      where :of_key and :stand = 0 and expected_at is null
      :newest_first
      limit 1
    ));
    passed := array(select id from :table where id = any (late) and :of_key and :is_late);
    if passed <> '{}' then
      update :table set due_at = 'infinity', schedule_at = 'infinity',
        expected_at = case when expected_at is null and id < newest - 1000 then 'infinity' else expected_at end
      where id = any (array(
        select id from :table where id = any (passed) and :of_key and :is_late
        for update skip locked
      ));
      -- those that are locked, and whatever ended meanwhile
      perform :check_function(its_queue, its_key, null, id) from :table where id = any (passed);
    end if;
  end if;
  if stopped is not null then
    return;
  end if;
  if there >= most then
    select count(*) into sure from (
      select id from :table
      where :of_key and :is_in_line
      :newest_first
      limit most
      for no key update skip locked
    ) as line;
    if sure < most then
      perform :check_function(its_queue, its_key, null);
    end if;
    return;
  end if;
  while there < most loop
    exit when :next_function(its_queue, its_key, 0, 0, false) is not true;
    there := there + 1;
    perform :wake_function(null, its_queue);
  end loop;
end
$pq$;

-- What two triggers did for plain SQL and pq 1.9.1, now in one, which claims pay less for: the server reads the text of
-- each condition for each statement. These clients know nothing of due_at when they move a job to another time, or take it;
-- and a job that failed under a lease and is then taken without one is not dead.
create or replace function :change_function() returns trigger language plpgsql as $pq$
begin
  if new.due_at is not distinct from old.due_at and (case
    when new.dequeued_at is null then new.schedule_at is distinct from old.schedule_at
    else new.due_at <= new.dequeued_at
  end) then
    new.due_at := case when new.dequeued_at is null then new.schedule_at end;
  end if;
  if new.dequeued_at is not null and new.error is not null and (new.due_at is null or new.due_at <= new.dequeued_at) then
    new.error := null;
    new.failed_at := null;
  end if;
  return new;
end
$pq$;

drop trigger if exists :change_trigger on :table;
create trigger :change_trigger before update on :table for each row
  when (old.dequeued_at is null and (old.due_at is not null or new.schedule_at is not null or new.error is not null))
  execute function :change_function();
drop trigger if exists :due_update_trigger on :table;
drop trigger if exists :taken_trigger on :table;
drop function if exists :taken_function();
drop function if exists :due_function();

-- What migration 5 has, and cheaper where all rows are of one queue, and without a SET clause, which costs each put more
-- than an index does: quote_all_identifiers is looked at, and off while the name is made. The names of queues are compared
-- by their bytes, whatever the collation of the column.
create or replace function :notify_function() returns trigger language plpgsql as $pq$
declare
  first text;
  last text;
  names text[];
  number integer := 1;
  key bigint;
begin
  select pg_catalog.min(q_name collate "C"), pg_catalog.max(q_name collate "C") into first, last from new_rows;
  while first is not null loop
    key := pg_catalog.hashtextextended(
      (case when pg_catalog.quote_ident('a') = 'a' then pg_catalog.format('%I.%I %s', tg_table_schema, tg_table_name, first)
      else pg_catalog.left(pg_catalog.set_config('quote_all_identifiers', 'off', true), 0)
        || pg_catalog.format('%I.%I %s', tg_table_schema, tg_table_name, first)
        || pg_catalog.left(pg_catalog.set_config('quote_all_identifiers', 'on', true), 0)
      end) collate "C", 0
    );
    -- in one expression, within which no cancellation is served: the lock cannot stay behind
    if (case when pg_catalog.pg_try_advisory_lock(key) then not pg_catalog.pg_advisory_unlock(key) else true end) then
      perform pg_catalog.pg_notify('pq_' || pg_catalog.to_hex(key), '');
    end if;
    exit when first = last;
    if number = 1 then
      select pg_catalog.array_agg(distinct q_name collate "C") into names from new_rows;
    end if;
    number := number + 1;
    first := names[number];
  end loop;
  return null;
end
$pq$;

-- Make the checks that are due, and return how many there were.
create or replace function :heal_all_function(most bigint) returns bigint
language sql security definer set search_path from current as $pq$
  with deleted as (
    delete from :checks_table where ctid = any (array(
      select ctid from :checks_table where check_at <= pg_catalog.clock_timestamp()
      order by check_at
      limit most
      for update skip locked
    ))
    returning q_name, key, job, late
  ), keys as materialized (
    select q_name, key, pg_catalog.array_agg(late) filter (where late is not null) as late
    from deleted where job is null group by q_name, key
  ), followers as materialized (
    select job, pg_catalog.bool_or(key is not null) as has_failed from deleted where job is not null group by job
  )
  select (select count(*) from deleted) + 0 * (
    (select count(:heal_function(q_name, key, late)) from keys)
    + (select count(:follow_function(job, has_failed)) from followers)
  )
$pq$;

do $pq$ begin
  perform set_config('search_path', current_setting('pq.search_path'), true);
end $pq$;

-- The tables beside, and the functions, which run as their owner, are of the owner of the jobs. Whoever may read or change
-- jobs may do so in the tables beside; functions that nobody calls himself are not for everybody. Whoever waits for jobs
-- looks when a check is due, and whether a limit lets a job begin: for that nobody is to need a right of his own.
grant select (check_at) on :checks_table to public;
grant select on :limits_table, :slots_table to public;
set local pq.target = :table_text;
set local pq.beside = :beside_text;
set local pq.functions = :functions_text;
set local pq.called = :called_text;
do $pq$
declare
  target regclass := current_setting('pq.target')::regclass;
  owner text := (select pg_get_userbyid(relowner) from pg_class where oid = target);
  beside text;
  function regprocedure;
  given record;
begin
  for function in
    select oid from pg_proc
    where proname = any (current_setting('pq.functions')::text[]) and prosecdef
      and pronamespace = (select relnamespace from pg_class where oid = target)
  loop
    if owner <> current_user then
      execute format('alter function %s owner to %I', function, owner);
    end if;
    if not exists (
      select from pg_proc where oid = function and proname = any (current_setting('pq.called')::text[])
    ) then
      execute format('revoke all on function %s from public', function);
    end if;
  end loop;
  foreach beside in array current_setting('pq.beside')::text[] loop
    if owner <> current_user then
      execute format('alter table %s owner to %I', beside, owner);
    end if;
    for given in
      select
        case when grantee = 0 then 'public' else quote_ident(pg_get_userbyid(grantee)) end as role,
        string_agg(privilege_type, ', ') as rights,
        case when is_grantable then 'with grant option' else '' end as option
      from pg_class, aclexplode(relacl)
      where oid = target and grantee <> relowner and privilege_type in ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
      group by grantee, is_grantable
    loop
      execute format('grant %s on %s to %s %s', given.rights, beside, given.role, given.option);
    end loop;
  end loop;
end
$pq$;

comment on column :table.due_at is 'When the row becomes ready by itself. (pq schema 6)';
