"""The soak of pq: everything at once, for an hour, without faults. Is all done once, and is all as large as before?

    app        the application: queues, limits, tasks, schedules, a stream
    roles      three roles, with the grants of the documentation, and the tables of the ledger
    producers  processes that put jobs and publish events
    consumers  processes that take them in other ways than as tasks
    cast       starts these, workers, Django, the page, the metrics; and ends them
    visitors   who looks at the page and the metrics, dumps the database, asks the doctor
    samples    how large processes, tables and indexes are, and whether that grows
    audit      what was done, beside what was put
    logs       what servers and programs have complained of
    run        all of these together

``python -m tests.soak --minutes 65``, from the folder of the repository.
"""
