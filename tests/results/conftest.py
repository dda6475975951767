"""What the tests of results share."""

from tests.rows import row

__all__ = ["row"]
