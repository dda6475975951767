"""The library of a CPU's matrix products: chosen by a measurement, kept by a training, named by its rows."""

import json
from pathlib import Path

import pytest
import torch

from jlebm import checkpoints
from jlebm.engines import products
from jlebm.engines.precision import arithmetic
from jlebm.engines.products import processor
from jlebm.errors import UserError
from jlebm.training import TrainState
from tests.small import train

exact = pytest.mark.skipif(not products.is_exact(), reason="oneDNN's products are not there or not exact here")


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_library", {"new": products.MKL, "used": products.MKL})


@pytest.fixture
def measuring(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A machine on which oneDNN is exact and faster; the list grows by each measurement."""
    monkeypatch.delenv(products.VARIABLE)
    monkeypatch.setattr(products, "is_exact", lambda: True)
    seen: list[str] = []
    monkeypatch.setattr(products, "measured", lambda: seen.append("measured") or products.ONEDNN)
    return seen


def through_onednn() -> bool:
    """Whether products go to oneDNN inside `arithmetic`, where trainings and chains run."""
    switch = torch.backends.mkldnn.matmul  # pyright: ignore[reportAttributeAccessIssue]
    with arithmetic(None):
        return switch.fp32_precision == "bf16"


def test_a_machine_is_measured_once(measuring: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By processor and build of torch; breaks if noise may change the choice from one start to the next."""
    products.decide(tmp_path / "cache")
    products.decide(tmp_path / "cache")
    assert (products.of_new_trainings(), measuring) == ("onednn", ["measured"])
    assert json.loads((tmp_path / "cache" / products.KEPT).read_text()) == {
        f"{processor()}, torch {torch.__version__}": "onednn"
    }
    monkeypatch.setattr(products, "processor", lambda: "another one")
    products.decide(tmp_path / "cache")
    assert measuring == ["measured"] * 2


def test_the_error_is_measured_at_every_start(
    measuring: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if a choice that was kept lets products be rounded to bf16."""
    products.decide(tmp_path)
    monkeypatch.setattr(products, "is_exact", lambda: False)
    products.decide(tmp_path)
    assert products.of_new_trainings() == "mkl"
    with pytest.raises(UserError, match="round to less than float32"):
        products.use("onednn")
    monkeypatch.setenv(products.VARIABLE, "onednn")
    with pytest.raises(UserError, match="unset it, or set it to mkl"):
        products.decide(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{", "\udcff"])
def test_a_damaged_or_unwritable_cache_costs_a_measurement(measuring: list[str], tmp_path: Path, content: str) -> None:
    """And no more: it is written anew, or a file in its place is left alone."""
    (tmp_path / products.KEPT).write_bytes(content.encode(errors="surrogateescape"))
    products.decide(tmp_path)
    (tmp_path / "file").write_text("")
    products.decide(tmp_path / "file")
    assert (products.of_new_trainings(), measuring) == ("onednn", ["measured"] * 2)


def test_the_environment_chooses_without_a_measurement(
    measuring: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A misspelt name is a sentence."""
    monkeypatch.setenv(products.VARIABLE, "mkl")
    products.decide(tmp_path)
    assert (products.of_new_trainings(), measuring, list(tmp_path.iterdir())) == ("mkl", [], [])
    monkeypatch.setenv(products.VARIABLE, "onedn")
    with pytest.raises(UserError, match="onednn"):
        products.decide(tmp_path)


@exact
def test_onednn_has_the_error_of_float32_and_is_switched_off_again() -> None:
    """Inside `arithmetic` alone, after `use`; breaks if a chain's products stay with MKL or a user's do not."""
    assert not through_onednn()
    products.use("onednn")
    switch = torch.backends.mkldnn.matmul  # pyright: ignore[reportAttributeAccessIssue]
    before = switch.fp32_precision
    assert through_onednn()
    assert switch.fp32_precision == before
    assert products.used() == {"products": "onednn"}
    assert products.measured() in ("mkl", "onednn")


@exact
def test_a_training_keeps_its_library(tmp_path: Path) -> None:
    """Stopped and resumed where new trainings take MKL, it has the bits of the one that was not stopped.

    Breaks if a resumed training takes the library that a later measurement chose; MKL's leaves no entry, so that older
    checkpoints are read as what they are.
    """

    def trained(name: str, library: products.Library, stop_after: int | None = None) -> TrainState:
        products._library["new"] = library
        run, state = train(tmp_path / name, stop_after=stop_after)
        stored = checkpoints.load(run.checkpoint, run.experiment.digest(), run.seed)
        assert stored.get("products", "mkl") == state.multiplied_by
        assert ("products" in stored) == (state.multiplied_by == "onednn")
        return state

    whole = trained("whole", "onednn")
    assert trained("stopped", "onednn", stop_after=11).step < whole.step
    again = trained("stopped", "mkl")
    assert (again.step, again.multiplied_by, products.used()) == (whole.step, "onednn", {"products": "onednn"})
    for key, value in whole.learned.state_dict().items():
        assert torch.equal(value, again.learned.state_dict()[key])
    assert trained("mkl", "mkl").multiplied_by == "mkl"
    assert products.used() == {}
