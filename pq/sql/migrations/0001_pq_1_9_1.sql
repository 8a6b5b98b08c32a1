-- The table of pq 1.9.1, without its indexes and its trigger.
create table if not exists :table (
  id bigserial primary key,
  enqueued_at timestamptz not null default current_timestamp,
  dequeued_at timestamptz,
  expected_at timestamptz,
  schedule_at timestamptz,
  q_name text not null check (length(q_name) > 0),
  data json not null
);
