"""The queue table.

    table       its name, database, statements, and waiting threads
    rows        the rows of one queue, and how data is encoded there
    tokens      rows with tokens
    after       rows that follow others
    lines       many rows, whatever they are: in parts for INSERT, as a file for COPY
    puts        one more row
    instruments what is told of puts and calls; headers of rows
    bulk        many new jobs: as arrays, as lines
    migrations  the steps that make the table, as SQL
    schema      creating, upgrading and dropping the table, by these steps
    retention   how long rows are kept; pruning
    look        statements that look at the table, within a time limit
"""

from .table import Table

__all__ = ["Table"]
