"""What the tests of the recipes and commands share."""

from tests.rows import row

__all__ = ["row"]
