"""Artifacts: a figure is drawn from what a run stored, or not at all."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jlebm.errors import UserError
from reproduce.results import read_artifact, write_artifact

RUN = {
    "protocol": "cifar10/1",
    "dataset": "cifar10",
    "preset": "tiny",
    "learning": "joint-mle",
    "seed": 1,
    "config_digest": "c" * 64,
    "commit": "d" * 40,
}
ARRAYS = {"energy": np.arange(6.0).reshape(3, 2, 1)}


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    path = tmp_path / "a.npz"
    write_artifact(path, ARRAYS, RUN)
    return path


def test_round_trip(stored: Path, row: Any) -> None:
    """Would break if arrays or provenance came back changed, or fitting rows were refused."""
    arrays, run = read_artifact(stored, ("energy",), [row(), row(seed=2, config_digest="e" * 64)])
    np.testing.assert_array_equal(arrays["energy"], ARRAYS["energy"])
    assert {name: run[name] for name in RUN} == RUN


def test_another_configuration_is_refused(stored: Path, row: Any) -> None:
    """Would break if a figure could be drawn from another run than the stored numbers."""
    with pytest.raises(UserError, match=r"configuration cccccccccccc.*eeeeeeeeeeee"):
        read_artifact(stored, ("energy",), [row(config_digest="e" * 64)])


def test_damage_is_refused(stored: Path, tmp_path: Path) -> None:
    """Would break if a cut, swapped, incomplete or pickled artifact were drawn from."""
    with pytest.raises(UserError, match="no array 'images'"):
        read_artifact(stored, ("images",), [])
    with zipfile.ZipFile(stored) as archive:
        provenance = np.load(archive.open("provenance.npy"))
    other = tmp_path / "b.npz"
    np.savez(other, energy=ARRAYS["energy"] + 1, provenance=provenance)
    with pytest.raises(UserError, match="not those that its provenance"):
        read_artifact(other, ("energy",), [])
    np.savez(other, energy=ARRAYS["energy"])
    with pytest.raises(UserError, match="not a whole artifact"):
        read_artifact(other, ("energy",), [])
    np.savez(other, energy=np.array([{}], dtype=object), provenance=provenance)
    with pytest.raises(UserError, match="not a whole artifact"):
        read_artifact(other, ("energy",), [])
    np.savez(other, energy=ARRAYS["energy"], provenance=np.array("{}"))
    with pytest.raises(UserError, match="does not name the run"):
        read_artifact(other, ("energy",), [])
    whole = stored.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 5):
        stored.write_bytes(whole[:size])
        with pytest.raises(UserError, match="not a whole artifact"):
            read_artifact(stored, ("energy",), [])


def test_a_run_without_its_name_is_refused(tmp_path: Path) -> None:
    """Would break if an artifact could be stored that does not say what made it."""
    with pytest.raises(UserError, match="'seed'"):
        write_artifact(tmp_path / "a.npz", ARRAYS, {name: RUN[name] for name in RUN if name != "seed"})
