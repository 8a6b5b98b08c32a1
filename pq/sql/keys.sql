-- What is done for keys beside the triggers of migration 6, which say how this works.

-- name: heal
-- Make the checks that are due, and return how many there were. A check that another session makes is passed over.
with pq_checks as (
  delete from :checks_table where ctid = any (array(
    select ctid from :checks_table where check_at <= clock_timestamp()
    order by check_at
    limit (select %(limit)s::bigint)
    for update skip locked
  ))
  returning q_name, key
), pq_keys as materialized (
  select distinct checks.q_name, checks.key from pq_checks as checks where checks.key is not null
)
select count(:heal_function(keys.q_name, keys.key)) from pq_keys as keys

-- name: promote
-- Make a check of one key now, at the end of a transaction that has taken a job of it.
select :heal_function(%(queue)s, %(key)s)
