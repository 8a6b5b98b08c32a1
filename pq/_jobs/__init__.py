"""Jobs, and the ways in which they end.

    job          a job as `get` returns it
    lease        a job under a lease
    settlement   ending many of them in one statement
    failure      why an attempt failed
    bulk         many new jobs in one statement
"""
