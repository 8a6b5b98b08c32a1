-- A stream: a log of events, which subscriptions read up to their positions. The docstring of pq/_streams has the protocol.

create sequence :event_id;

-- The number of the transaction comes before the id in the row, and so is evaluated before it: a transaction that begins
-- after a snapshot was taken has only ids above all those that this snapshot can see. The slot is told by the clock, and
-- read from nowhere: a clock that is wrong costs space, never an event.
create table :log (
  txid xid8 not null default pg_catalog.pg_current_xact_id(),
  id bigint not null default pg_catalog.nextval(:event_id_text),
  at timestamptz not null default pg_catalog.statement_timestamp(),
  slot smallint not null default :slot_now,
  type text not null default '',
  key text,
  data json not null,
  headers json
) partition by list (slot);

-- These are only appended to, and emptied by TRUNCATE.
create table :slot_a partition of :log for values in (0) with (autovacuum_enabled = off);
create table :slot_b partition of :log for values in (1) with (autovacuum_enabled = off);
create table :slot_c partition of :log for values in (2) with (autovacuum_enabled = off);
-- with a publication of all tables the server refuses updates without this, such as those of a rebase
alter table :slot_a replica identity full;
alter table :slot_b replica identity full;
alter table :slot_c replica identity full;
create index on :log (id);
create index on :log (txid);

create table :subscriptions (
  name text primary key,
  types text[],
  partitions smallint not null,
  shared boolean not null,
  -- how often an event that fails is tried again; and whether it is then set aside, or stops its partition
  max_retries integer not null default 3,
  ordered text not null default 'aside',
  created_at timestamptz not null default pg_catalog.statement_timestamp(),
  paused_at timestamptz,
  -- how many events retain_unread has taken from it, since a consumer was told
  lost bigint not null default 0
);

-- One row for each partition of a subscription. It has no primary key: each move makes a new version of the row, and while
-- an old snapshot is held none of them can be removed. Through this index the newest is found first.
create table :positions (
  subscription text not null,
  partition smallint not null,
  version bigint not null default 0,
  -- what this snapshot can see is behind us; what was running when it was taken is below top, if that is known
  seen pg_snapshot not null,
  top xid8,
  -- what began after that snapshot has ids above this one
  mark bigint not null,
  -- inside of a window: where it ends, and the id behind us
  upto pg_snapshot,
  upto_top xid8,
  after bigint not null default 0,
  -- no open batch begins below this id: so nobody reads the rows of those that are done, which an old snapshot keeps, too
  open_from bigint not null default 0,
  moved_at timestamptz not null default pg_catalog.statement_timestamp()
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
create index on :positions (subscription, partition, version desc);
-- with a publication of all tables the server refuses updates of a table without one
alter table :positions replica identity full;

-- What was delivered under a lease and is not done: events from first to last of a window. Those of one partition are
-- delivered one after the other, by their ids.
create table :batches (
  number bigint generated always as identity primary key,
  subscription text not null,
  partition smallint not null,
  seen pg_snapshot not null,
  top xid8,
  mark bigint not null,
  upto pg_snapshot not null,
  after bigint not null,
  first bigint not null,
  last bigint not null,
  -- how often it was delivered, which no other delivery shares, and how often as it is now
  delivery integer not null default 0,
  attempts integer not null default 0,
  error text,  -- of the last one
  due_at timestamptz not null
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
create index on :batches (subscription, partition, first);

-- By this row a restored dump is known: there another transaction, or another table, has it; but on a standby, and behind
-- pg_upgrade, they are the same.
create table :origin (name text not null, made_by xid not null, home oid not null);
alter table :origin replica identity full;  -- as above
insert into :origin values (:stream_text, '0', 0);
update :origin set made_by = xmin, home = tableoid;

-- Notify whoever waits for the stream, as the trigger of the jobs does, which says why it looks like this.
create function :publish_function() returns trigger language plpgsql as $pq$
declare
  gate bigint := pg_catalog.hashtextextended(
    (case when pg_catalog.quote_ident('a') = 'a' then pg_catalog.format('%I.%I ', tg_table_schema, :table_name_text)
    else pg_catalog.left(pg_catalog.set_config('quote_all_identifiers', 'off', true), 0)
      || pg_catalog.format('%I.%I ', tg_table_schema, :table_name_text)
      || pg_catalog.left(pg_catalog.set_config('quote_all_identifiers', 'on', true), 0)
    end || :gate_text) collate "C", 0
  );
begin
  if (case when pg_catalog.pg_try_advisory_lock(gate) then not pg_catalog.pg_advisory_unlock(gate) else true end) then
    perform pg_catalog.pg_notify('pq_' || pg_catalog.to_hex(gate), '');
  end if;
  return null;
end
$pq$;
create trigger :publish_trigger after insert on :log for each statement execute function :publish_function();
