"""A job as the fragment ``columns`` of ``sql/common.sql`` returns it: nothing else knows the order of these columns.

They are positions and not the fields of a named tuple, since a claim pays for each job. Times are naive and in UTC;
``row[ATTEMPTS]`` counts deliveries under a lease, and ``row[EXPIRIES]`` those leases in a row that have expired;
``row[KEY]`` is the key of the job, or None. A job that was taken without a lease may have no columns behind that.
"""

ID, TEXT, ENQUEUED_AT, SCHEDULE_AT, EXPECTED_AT, DEQUEUED_AT, KEY, ATTEMPTS, EXPIRIES = range(9)

#: Where the statement's own columns begin. With the fragment ``failure`` these are the error and the time of the first.
OWN = EXPIRIES + 1
