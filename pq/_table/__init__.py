"""The queue table.

    table       its name, database, statements, and waiting threads
    rows        the rows of one queue, and how data is encoded there
    tokens      rows with tokens
    after       rows that follow others
    bulk        many new rows in one statement: arrays for INSERT, lines for COPY
    schema      creating, upgrading and dropping the table
    retention   how long rows are kept; pruning
"""

from .table import Table

__all__ = ["Table"]
