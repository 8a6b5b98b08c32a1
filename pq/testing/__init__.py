"""For the tests of programs that use pq: jobs are performed inside of the test's own transaction, which is rolled back.

See :doc:`/howto/testing`. Nothing here needs a test framework; ``pq.testing.fixtures`` has fixtures for pytest.
"""

from .drain import Performed, advance, drain
from .inline import inline
from .puts import assert_not_put, assert_put

__all__ = ["Performed", "advance", "assert_not_put", "assert_put", "drain", "inline"]
