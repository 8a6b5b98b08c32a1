"""The embedded server: a PostgreSQL in a folder.

    server      start the server, join a running one, close it
    cluster     its data, and the folder of its socket
    keeper      the process that stops the server after its last user
    account     the user that the server runs as, because PostgreSQL refuses root
    binaries    where PostgreSQL's programs are
"""

from .binaries import find_binaries
from .server import Embedded

__all__ = ["Embedded", "find_binaries"]
