"""Jobs, and the ways in which they end.

    job          a job as `get` returns it
    lease        a job under a lease
    holder       who has it
    delivery     when a job was ready and taken, and how often: for instruments
    outcome      which settlement follows from the end of an attempt
    settlement   ending many of these in one statement
    track        how far a loop is
    steps        what parts of a job have returned
    key_state    what jobs of a key hand on
    failure      why an attempt failed
    dead         a dead job
    info         a job, or a queue, as it was when it was looked at
    tried        a job of which nothing reaches the row
    row          the order of the columns in which statements return a job
"""
