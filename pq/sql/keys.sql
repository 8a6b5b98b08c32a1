-- What is done for keys beside the triggers of migration 6, which say how this works.

-- name: heal
-- Make the checks that are due, and return how many there were. A check that another session makes is passed over.
select :heal_all_function(%(limit)s)

-- name: has_checks
select 1 from :checks_table where check_at <= clock_timestamp()
order by check_at
limit 1

-- name: heal_key
-- Make a check of one key now, at the end of a transaction that has taken a job of it.
select :heal_function(%(queue)s, %(key)s)
