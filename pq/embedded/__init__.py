"""A PostgreSQL of one's own in a folder.

    server      start it, join it, close it
    cluster     its data, and the folder of its socket
    keeper      the process beside it that stops it after its last user
    account     whom it runs as: PostgreSQL refuses root
    binaries    where its programs are
"""

from .binaries import find_binaries
from .server import Embedded

__all__ = ["Embedded", "find_binaries"]
