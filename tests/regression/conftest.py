"""The regression session's own option."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let golden curves be written anew, by an explicit command only."""
    parser.addoption("--write-golden", action="store_true", help="write the golden curves of this device class anew")
