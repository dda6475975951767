"""A network that gives NaN: no image of it is stored, and no row."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from jlebm import sampling
from jlebm.distributions import Bernoulli, DiscretisedLogisticMixture, Normal
from jlebm.images import NotFinite, clipped, levels, to_uint8, unless_lost
from jlebm.latents import map_latents
from jlebm.model import JointModel
from reproduce.results import read_all
from reproduce.systems import built
from tests.reliability import commands
from tests.systems.small import built as build
from tests.systems.small import tiny

LOST = (float("nan"), float("inf"), -float("inf"))


@pytest.mark.parametrize("value", LOST)
def test_one_number_without_a_colour_is_refused(value: float) -> None:
    """Breaks if NaN becomes black or an infinite number white."""
    images = torch.zeros(4, 3, 2, 2)
    assert to_uint8(images).unique().tolist() == [128]
    images[2, 1, 0, 1] = value
    with pytest.raises(NotFinite, match=r"not finite \(1 of 4\); nothing of them is stored"):
        to_uint8(images)
    assert levels(images).shape == images.shape


@pytest.mark.parametrize("value", LOST)
def test_what_is_clipped_or_chosen_stays_lost(value: float) -> None:
    """Breaks if clipping makes a colour of infinity, or a choice among NaNs one of them."""
    x = torch.tensor([0.5, 3.0, -3.0, value])
    torch.testing.assert_close(clipped(x), torch.tensor([0.5, 1.0, -1.0, value]), equal_nan=True)
    assert unless_lost(torch.ones(2), torch.tensor([True, False])).isnan().tolist() == [False, True]

    def noise(like: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return tuple(torch.zeros_like(each) for each in like)

    mixture = DiscretisedLogisticMixture(torch.full((1, 10, 2, 2), value), 1, 8)
    normal = Normal.constant_sigma(torch.full((1, 3, 2, 2), value), 0.1)
    for lost in (mixture, normal):
        assert not torch.isfinite(lost.sample_image(noise)).any()
        assert not torch.isfinite(lost.mean).any()
    assert Bernoulli(torch.full((1, 1, 2, 2), float("nan"))).sample_image(noise).isnan().all()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "pixelcnn" else name for name in built()]
)
def test_every_system_is_refused(name: str) -> None:
    """Breaks if a system's own way from numbers to levels (a floor, a choice, a clipping) hides a NaN."""
    system = build(tiny(name))
    with torch.no_grad():
        for parameter in system.parameters():
            parameter.fill_(float("nan"))
    with pytest.raises(NotFinite):
        system.sample(range(2))


@pytest.mark.slow
def test_no_row_where_one_source_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Breaks if rows of the posterior's finite images are stored before the prior's are seen to be NaN.

    The training ends first, without a NaN: it would stop for one, and no sample would be drawn.
    """
    assert commands.joint(tmp_path) == 0
    for path in (*tmp_path.glob("runs/*/samples/*"), *tmp_path.glob("results/measured/*")):
        path.unlink()
    draw = JointModel.sample_prior

    def lost(self: JointModel, *arguments, **named):
        return map_latents(lambda z: z * float("nan"), draw(self, *arguments, **named))

    monkeypatch.setattr(JointModel, "sample_prior", lost)
    capsys.readouterr()
    assert commands.joint(tmp_path) == 3
    said = capsys.readouterr().err
    assert "resumed at step 20 of 20" in said
    assert "diverged" not in said
    assert "not finite" in said.splitlines()[-1]
    assert read_all(tmp_path / "results/measured") == []
    assert sorted(path.name for path in tmp_path.glob("runs/*/samples/ebm-prior*")) == []
    monkeypatch.undo()
    assert commands.joint(tmp_path) == 0
    assert len(read_all(tmp_path / "results/measured")) == 3


def test_latents_that_are_lost_are_refused(tmp_path: Path) -> None:
    """Breaks if latents are stored, and told apart, that are infinite behind a finite image."""
    batch = sampling.Samples(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), (torch.full((2, 3), float("inf")),))
    with pytest.raises(NotFinite, match="latents that are not finite"):
        sampling.write(tmp_path / "prior.npy", iter([batch]), 2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["anomaly", "ood"])
def test_no_row_where_a_score_is_lost(tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if the rows of the first score are stored before a later one is seen to be NaN."""
    from reproduce.measuring import anomaly_scores
    from reproduce.pipelines import run_ood

    def lost(*arguments, **named):
        return dataclasses.replace(terms(*arguments, **named), energy=np.full(120, np.nan))

    terms = anomaly_scores.posterior_terms
    if command == "anomaly":
        monkeypatch.setattr(anomaly_scores, "posterior_terms", lost)
    module, name = run_ood, "likelihood_ratio"
    score = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *arguments, **named: score(*arguments, **named) * float("nan"))
    assert commands.COMMANDS[command](tmp_path) == 3
    assert read_all(tmp_path / "results/measured") == []


@pytest.mark.parametrize("learning", ["joint-mle", "variational"])
@pytest.mark.parametrize("rate", ["generator_lr=1e15", "energy_lr=1e12", "generator_lr=100", "energy_lr=1e4"])
def test_finite_weights_whose_samples_are_not(
    learning: str, rate: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A training too short for the guard to look again: breaks if black images of NaN are stored, with a row.

    A rate that leaves everything finite may end well: then there are rows, of finite numbers.
    """
    said = ["--learning", learning, "--set", "training.steps=1", f"optimizer.{rate}"]
    code = commands.recipe(commands.test_recipe.RECIPE, tmp_path, *said)
    rows = read_all(tmp_path / "results/measured")
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    if code == 0:
        assert len(rows) == 3
        return
    assert code == 3, errors
    assert rows == []
    assert "not finite" in errors.splitlines()[-1]
