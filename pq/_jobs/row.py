"""A job as the fragment ``columns`` of ``sql/common.sql`` returns it: nothing else knows the order of these columns.

They are positions and not the fields of a named tuple, since a claim pays for each job. Times are naive and in UTC;
``row[ATTEMPTS]`` counts deliveries under a lease, and ``row[EXPIRIES]`` those leases in a row that have expired;
``row[KEY]`` is the key of the job, or None.
"""

ID, TEXT, ENQUEUED_AT, SCHEDULE_AT, EXPECTED_AT, DEQUEUED_AT, ATTEMPTS, EXPIRIES, KEY = range(9)

#: Where the statement's own columns begin. With the fragment ``failure`` these are the error and the time of the first.
OWN = KEY + 1
