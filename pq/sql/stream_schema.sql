-- The statements that change the tables of a stream; the tables themselves are made in streams/.

-- name: slot_now
-- The slot of the moment. Each is written to for one period, and is empty when its turn comes again. Each event computes
-- it, so not with numeric, as of extract().
pg_catalog.mod(
  pg_catalog.floor(pg_catalog.date_part('epoch', pg_catalog.statement_timestamp()) / :period)::bigint, 3::bigint
)::smallint

-- name: set_slot
alter table :log alter slot set default :slot_now

-- name: set_comment
comment on table :log is :comment_text

-- name: lock
lock table :log, :positions in access exclusive mode

-- name: drop
drop table :log, :subscriptions, :positions, :batches, :origin;
drop sequence :event_id;
drop function :publish_function()
