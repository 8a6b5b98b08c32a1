"""The benchmark: ``python -m benchmarks``, from a checkout.

    server      a PostgreSQL of its own
    install     the peers, from PyPI and npm, in a folder that is thrown away
    peers       what runs in the processes that are measured: one module for each library
    child       such a process, as we see it
    sites       a peer in a database of its own, and the jobs that it begins with
    figures     what is measured
    limits      what the figures are to reach
    stats       medians and percentiles
    report      the table, for people and for the documentation
    plot        the same as a picture
    run         all of it, in rounds
    pairs       a command of its own: this checkout against an older one
"""
