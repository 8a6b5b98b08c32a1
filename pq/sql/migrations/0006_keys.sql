-- What jobs with a key, a token or a place need; what finished rows tell; and the tables beside the one of the jobs. All
-- columns are null for jobs that use none of this.
--
-- key: the jobs of a queue with the same one run one after the other.
-- is_next: the end of the job before has made this one ready; it goes first.
-- unique_key: a token that one row of a queue has at most, until unique_until; -infinity: until it is taken; infinity:
-- until it has ended. A token is given by a put, and only ever taken away.
-- slot: the limit whose place the delivery takes.
-- follower: the job that waits for this one. waits_for: for how many jobs this one was to wait.
-- steps: what the steps of a job have returned.
-- finished_at, worker: when the last delivery ended, and who had it. headers: what goes with a job beside its data.
alter table :table
  add column key text,
  add column is_next boolean,
  add column unique_key text,
  add column unique_until timestamptz,
  add column slot text,
  add column follower bigint,
  add column waits_for integer,
  add column steps json,
  add column finished_at timestamptz,
  add column worker text,
  add column headers json;

-- A held row waits behind one of its key, or for the jobs that it follows: its due_at is infinity. These are the first
-- ones of each key. A row is in line if it is ready, runs, or has begun and waits for its retry.
create index :held_index on :table (q_name, key, expected_at, id)
  where due_at = 'infinity' and dequeued_at is null and key is not null;
create index :line_index on :table (q_name, key, id)
  where key is not null and ((dequeued_at is null) = (due_at is null) or (attempts > 0 and due_at < 'infinity'));
create index :stopped_index on :table (q_name, key, id)
  where key is not null and error is not null and dequeued_at is not null and due_at is null;
create unique index :unique_index on :table (q_name, unique_key) where unique_key is not null;
create index :follower_index on :table (follower)
  where follower is not null and (dequeued_at is null or due_at is not null or error is not null);

-- Keys and followers that have to be looked at again: whoever held a row, or passed over one, could not know whether
-- another transaction was about to end what it waits for. job: the follower; else the key.
create table :checks_table (q_name text not null, key text, job bigint, check_at timestamptz not null);
create index :checks_index on :checks_table (check_at);

-- What was set by pq.limits. queues: those that share it; null: the queue of that name.
create table :limits_table (
  name text primary key,
  queues text[],
  running integer,
  rate integer,
  period interval,
  per_key integer,
  on_retry text,
  on_dead text
);

-- One row for each place (running) or token (rate) of a limit. A place is free if its job does not run in that delivery;
-- a token is free at free_at.
create table :slots_table (
  name text not null,
  kind text not null,
  n integer not null,
  job bigint,
  taken_at timestamptz,
  free_at timestamptz,
  primary key (name, kind, n)
) with (fillfactor = 50);

-- The state that jobs of a key hand on.
create table :states_table (
  q_name text not null,
  key text not null,
  state json not null,
  changed_at timestamptz not null default statement_timestamp(),
  job bigint,
  primary key (q_name, key)
);

create table :schedules_table (
  name text primary key,
  q_name text not null,
  data json not null,
  rule text not null,
  zone text,
  missed text not null,
  jitter interval,
  key text,
  unique_key text,
  paused boolean not null default false,
  declared boolean not null default false,
  anchor timestamptz not null,
  next_at timestamptz,
  last_at timestamptz,
  last_job bigint,
  error text
);
create index :schedules_index on :schedules_table (next_at) where not paused;

comment on column :table.due_at is 'When the row becomes ready by itself. (pq schema 6)';
