"""Shared by all tests: shapes are enforced, randomness is explicit, the public fixtures are used where they exist."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from jaxtyping import install_import_hook

# Every jaxtyping annotation of the package is checked at run time, in the tests only.
install_import_hook("jlebm", "beartype.beartype")

# A machine that others use is slow now and then, which is no failure.
settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_configure() -> None:
    """Give each of several workers (`-n 2`) its share of the processors, where otherwise each takes all.

    Before the first fixture trains, the library of products is fixed, so that bits depend on no measurement.
    """
    os.environ["JLEBM_PRODUCTS"] = "mkl"
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers > 1:
        torch.set_num_threads(max(1, torch.get_num_threads() // workers))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let golden curves be written anew, by an explicit command only."""
    parser.addoption("--write-golden", action="store_true", help="write the golden curves of this device class anew")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference numbers and real data beside the checkout; a test that asks for it skips without it."""
    if not SHARED.is_dir():
        pytest.skip("the shared reference numbers are not beside this checkout")
    return SHARED


@pytest.fixture(autouse=True)
def _no_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test sees this machine's data root or cache."""
    monkeypatch.setenv("JLEBM_DATA", os.devnull + "/no-data-root")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
