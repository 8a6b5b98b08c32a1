-- From version 6 to 5. The steps up to 5 are to run again after this, to put back what step 6 has replaced.
-- Jobs are kept: held ones are ready, whether or not those are done that they waited for. Their keys, tokens, steps and
-- headers are gone, and so are limits, schedules and the states of keys.
lock table :table in access exclusive mode;

-- with their triggers
drop function if exists :functions cascade;

update :table set due_at = null, schedule_at = null
where due_at = 'infinity' and dequeued_at is null and (key is not null or waits_for is not null);

-- the markers of limits: version 5 would count them as jobs that run
delete from :table where due_at = '200000-01-02 00:00:00+00' and dequeued_at is not null;

drop index if exists :running_index_there, :due_index_there;

alter table :table
  drop column key, drop column is_alone, drop column unique_key, drop column unique_until, drop column slot,
  drop column follower, drop column waits_for, drop column on_failed, drop column steps, drop column finished_at,
  drop column worker, drop column headers;

drop table :checks_table, :limits_table, :slots_table, :states_table, :schedules_table;
