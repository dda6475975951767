"""Both stages in the loop: resume to the bit, what moves and what does not, what is stored and what is judged."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from jlebm import checkpoints
from jlebm.backbones.conv import ConvConfig
from jlebm.energies import ConvEnergy, VectorEnergy
from jlebm.errors import UserError
from jlebm.learning.two_stage import EnergyOptimizer, TwoStage
from jlebm.randomness import SharedNoise
from jlebm.training import initial_state
from tests.small import COLOURED, HIERARCHY, backbone, fit_one, train_stage, two_stage_experiment
from tests.test_training import CPU, ROOT, assert_same

VECTORS = ConvConfig((3, 8, 8), (2, 3), channels=(4, 4), conditional_hidden=(4,))


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Return copies of all weights and statistics."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["backbone", "two-stage"])
def test_half_and_half_is_the_whole_bitwise(tmp_path: Path, stage: str) -> None:
    """N steps equal N/2 steps, a new process and N/2 steps.

    A learning rate, a batch statistic, a vector of the power method, a moment or an average left out shows.
    """
    _, whole = train_stage(tmp_path / "whole", stage)
    command = (
        "import sys; from pathlib import Path; from tests.small import train_stage;"
        f"train_stage(Path(sys.argv[1]), {stage!r}, stop_after=5)"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    subprocess.run([sys.executable, "-c", command, str(tmp_path / "halves")], cwd=ROOT, env=environment, check=True)
    run, halves = train_stage(tmp_path / "halves", stage)
    assert_same(whole, halves)
    assert whole.step == 12
    assert [event["step"] for event in run.events()] == [1, 11]


def test_every_part_of_the_backbone_learns(tmp_path: Path) -> None:
    """Every parameter and running statistic moves, the rate follows its schedule, and the average is what is judged."""
    run, after = train_stage(tmp_path, "backbone")
    before = initial_state(run.experiment, 1, CPU).model.state_dict()
    for name, value in after.model.state_dict().items():
        assert not torch.equal(value, before[name]), name
    (group,) = after.optimisation.optimizer.param_groups
    assert group["lr"] == pytest.approx(1e-4, rel=1e-9)  # the least one, at the end
    assert after.ema is not None
    assert after.evaluated_model() is after.ema.module
    assert not torch.equal(after.ema.module.backbone.stem.weight, after.model.backbone.stem.weight)


def test_only_the_energies_move(tmp_path: Path) -> None:
    """The backbone's weights and batch statistics are the same to the bit, without gradients and in eval mode."""
    given = backbone()
    before = tensors_of(given)
    run, after = fit_one(tmp_path, two_stage_experiment(), COLOURED, backbone=given)
    assert after.model.backbone is given
    for name, value in given.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(parameter.grad is None for parameter in given.parameters())
    assert not any(module.training for module in given.modules())
    start = initial_state(run.experiment, 1, CPU, backbone()).model.energy.state_dict()
    for name, value in after.model.energy.state_dict().items():
        assert not torch.equal(value, start[name]), name


def test_a_checkpoint_of_stage_two_holds_energies_alone(tmp_path: Path) -> None:
    """A copy of the backbone would be most of the file, and would outlive another backbone of the same name."""
    run, state = train_stage(tmp_path, "two-stage")
    kept = checkpoints.load(run.checkpoint, run.experiment.digest(), 1)
    assert kept["model"].keys() == state.model.energy.state_dict().keys()
    assert {name.removeprefix("module.") for name in kept["ema"]} == {*kept["model"], "n_averaged"}
    assert kept["schedule"] is None
    assert len(kept["optimizer"]["param_groups"][0]["params"]) == len(kept["model"])


@pytest.mark.slow
def test_the_average_of_the_energies_is_judged(tmp_path: Path) -> None:
    """Upon the same backbone; without an average, the model as it is."""
    _, state = train_stage(tmp_path / "averaged", "two-stage")
    judged = state.evaluated_model()
    assert state.ema is not None
    assert judged.energy is state.ema.module
    assert judged.backbone is state.model.backbone
    z = judged.sample_gaussian(2, SharedNoise(torch.Generator().manual_seed(0)))
    assert not torch.equal(judged.energies(z), state.model.energies(z))
    plain = EnergyOptimizer(1e-3, ema_decay=None)
    _, state = train_stage(tmp_path / "plain", "two-stage", optimizer=plain)
    assert state.evaluated_model() is state.model


def test_an_update_compares_encoded_images_with_chains() -> None:
    """Positive samples are q(z|x)'s, negative ones where the prior's chains end; only the energies are in its graph."""
    one = two_stage_experiment()
    model = initial_state(one, 1, CPU, backbone()).model
    x = torch.rand(4, *HIERARCHY.image_shape) * 2 - 1
    update = TwoStage(one.prior_chain, 0.25).update(model, x, SharedNoise(torch.Generator().manual_seed(2)))
    noise = SharedNoise(torch.Generator().manual_seed(2))
    prior = model.sample_prior(4, one.prior_chain, noise)
    posterior = model.backbone.posterior(x, noise).latents
    for ours, theirs in ((update.prior, prior), (update.posterior, posterior)):
        assert all(torch.equal(a, b.detach()) for a, b in zip(ours, theirs, strict=True))
    gap = model.energies(update.posterior) - model.energies(update.prior)
    squares = model.energies(update.posterior).square() + model.energies(update.prior).square()
    torch.testing.assert_close(update.loss(), (gap + 0.25 * squares).sum(1).mean(), rtol=1e-5, atol=1e-6)
    update.loss().backward()
    assert all(parameter.grad is None for parameter in model.backbone.parameters())
    assert all(parameter.grad is not None for parameter in model.energy.parameters())


def test_stage_two_needs_a_backbone(tmp_path: Path) -> None:
    """A forgotten backbone is a sentence, and never an untrained one."""
    with pytest.raises(UserError, match="needs a trained backbone"):
        fit_one(tmp_path, two_stage_experiment(), COLOURED)


@pytest.mark.slow
def test_the_loss_of_stage_two_tells_samples_apart(tmp_path: Path) -> None:
    """After some updates the energies of encoded images are lower than those of the chains' ends: the sign is right."""
    fast = EnergyOptimizer(5e-3, beta1=0.9, weight_decay=0.0)
    training = dataclasses.replace(two_stage_experiment().training, steps=31)
    dark = np.minimum(COLOURED, 60)
    run, _ = fit_one(tmp_path, two_stage_experiment(optimizer=fast, training=training), dark, backbone=backbone())
    figures = run.events()[-1]
    gaps = [figures[f"energy_posterior/{name}"] - figures[f"energy_prior/{name}"] for name in ("z2", "z1")]
    assert sum(gaps) < -0.01


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: EnergyOptimizer(energy_lr=0.0), "learning rate"),
        (lambda: EnergyOptimizer(beta1=1.0), "beta1"),
        (lambda: EnergyOptimizer(weight_decay=-1.0), "weight_decay"),
        (lambda: EnergyOptimizer(energy_l2=-1.0), "energy_l2"),
        (lambda: EnergyOptimizer(ema_decay=0.0), "ema_decay"),
        (lambda: ConvEnergy(channels=0), "at least one channel"),
        (
            lambda: two_stage_experiment(model=dataclasses.replace(HIERARCHY, num_latent_scales=2)),
            "at the top of the model, latents of shape \\(2, 4, 4\\) cannot be halved down to 4x4",
        ),
        (
            lambda: two_stage_experiment(model=VECTORS, energy=VectorEnergy(((4,), (4,))), precision="tf32"),
            "another backbone computes in its own model.precision",
        ),
    ],
)
def test_settings_that_could_not_learn_are_sentences(make, sentence: str) -> None:
    """Said before the hours of stage one, not after them."""
    with pytest.raises(UserError, match=sentence):
        make()
