"""Energies by noise contrast: the logistic loss, its optimum, and what it trains."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from jlebm.backbones.conv import ConvConfig
from jlebm.backbones.ladder import LadderConfig
from jlebm.energies import JointEnergy, VectorEnergy
from jlebm.errors import UserError
from jlebm.experiment import Experiment, OptimizerConfig
from jlebm.langevin import Chain
from jlebm.learning.noise_contrast import NoiseContrast, logistic_loss
from jlebm.learning.trainable import TrainingConfig
from jlebm.learning.two_stage import EnergyOptimizer, TwoStageExperiment
from jlebm.model import JointModel
from jlebm.randomness import SharedNoise
from jlebm.run import open_run
from jlebm.training import LoopControl, fit
from tests.small import IMAGES, experiment, fit_one, ladder_experiment
from tests.test_hierarchy import encoded

CHAIN = Chain(3, 0.1, start="ancestral", space="noise")


def energies(model: ConvConfig | LadderConfig, **changes) -> TwoStageExperiment:
    whole = {
        "optimizer": EnergyOptimizer(1e-3, beta1=0.9, weight_decay=0.0, ema_decay=0.9, schedule="cosine"),
        "training": TrainingConfig(12, 5),
        "energy": VectorEnergy(((6,),) * len(model.latent_dims)),
        "estimator": "noise-contrast",
    } | changes
    return TwoStageExperiment("test/1", "tiny", "noise", model=model, backbone="", prior_chain=CHAIN, **whole)


def test_the_loss_is_the_cross_entropy_of_its_logit() -> None:
    """Breaks if the logit is not -E, or the classes are weighed otherwise."""
    positive, negative = torch.randn(50).double(), torch.randn(50).double()
    labels = torch.cat([torch.ones(50), torch.zeros(50)]).double()
    logits = -torch.cat([positive, negative])
    whole = 2 * torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
    torch.testing.assert_close(logistic_loss(positive, negative), whole)
    assert float(logistic_loss(0 * positive, 0 * negative)) == pytest.approx(2 * math.log(2))


def test_the_optimum_is_the_log_ratio() -> None:
    """Two Gaussians of one variance: E = log p0 - log q is linear and known, and Z is 1.

    Breaks if the gradient leads elsewhere: the slope and the intercept of the fitted energy are those of the ratio.
    """
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(20_000, 1, generator=generator, dtype=torch.float64)
    weight = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight], max_iter=100)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = logistic_loss(*(weight[0] + weight[1] * (z[:, 0] + shift) for shift in (0.8, 0.0)))
        loss.backward()
        return loss

    optimizer.step(closure)
    # log p0(z) - log q(z) = (0.8^2 - 1.6 z) / 2
    assert weight.tolist() == pytest.approx([0.32, -0.8], abs=0.03)


def test_only_the_energies_learn() -> None:
    """Breaks if noise contrast moves the backbone, or draws its negatives elsewhere than from p0."""
    model = encoded()
    x = torch.tensor(np.random.default_rng(0).uniform(-1, 1, (6, 1, 1, 4)))
    update = NoiseContrast().update(model, x, SharedNoise(torch.Generator().manual_seed(3)))
    update.loss().backward()
    assert all(parameter.grad is None for parameter in model.backbone.parameters())
    assert all(parameter.grad is not None for parameter in model.energy.parameters())
    noise = SharedNoise(torch.Generator().manual_seed(3))
    with torch.no_grad():
        z = model.backbone.posterior(x, noise).latents
        base = model.sample_gaussian(6, noise)
    torch.testing.assert_close(update.positive, model.energy(z))
    torch.testing.assert_close(update.negative, model.energy(base))
    figures = update.figures()
    right = torch.cat([update.positive.sum(1) < 0, update.negative.sum(1) > 0])  # low energies are the posterior's
    assert float(figures["accuracy"]) == pytest.approx(float(right.double().mean()))
    assert 0 < float(figures["accuracy"]) < 1
    assert float(figures["accuracy"]) != 0.5, "then the law says nothing"
    assert set(figures) == {
        "loss",
        "accuracy",
        *(f"energy_{k}/{n}" for k in ("posterior", "prior") for n in ("z1", "z2")),
    }
    heavier = NoiseContrast(energy_l2=0.5).update(model, x, SharedNoise(torch.Generator().manual_seed(3)))
    squares = update.positive.square().sum(1).mean() + update.negative.square().sum(1).mean()
    torch.testing.assert_close(heavier.loss(), update.loss() + 0.5 * squares)
    both = NoiseContrast(energy_l2=0.5, weight=3.0).update(model, x, SharedNoise(torch.Generator().manual_seed(3)))
    torch.testing.assert_close(both.loss(), 3 * update.loss() + 0.5 * squares)


def gaussian(kind: str) -> Experiment:
    return ladder_experiment("gaussian") if kind == "ladder" else experiment("gaussian")


@pytest.mark.parametrize("kind", ["ladder", "conv"])
@pytest.mark.parametrize("estimator", ["chains", "noise-contrast"])
def test_energies_on_a_trained_hierarchy_of_vectors(tmp_path, kind: str, estimator: str) -> None:
    """Breaks if a backbone of vectors cannot carry energies: trained, resumed to the bit, stored and built again."""
    _, first = fit_one(tmp_path, gaussian(kind), IMAGES)
    backbone = first.evaluated_model().backbone.eval().requires_grad_(False)
    one = energies(gaussian(kind).model, estimator=estimator)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    with open_run(tmp_path / "whole", one, 1) as run:
        whole = fit(run, IMAGES, torch.device("cpu"), backbone=backbone)
    for until in (5, 12):
        with open_run(tmp_path / "parts", one, 1) as run:
            control = LoopControl(stop=lambda step, until=until: step >= until)
            parts = fit(run, IMAGES, torch.device("cpu"), control, backbone)
    for name, value in whole.learned.state_dict().items():
        assert torch.equal(value, parts.learned.state_dict()[name])
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    model = whole.evaluated_model()
    assert isinstance(model, JointModel)
    again = one.restored(model.state_dict())
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert not any(parameter.requires_grad for parameter in again.backbone.parameters())
    assert isinstance(again.energy, JointEnergy)


def test_what_does_not_fit_is_a_sentence() -> None:
    """Breaks if an unknown estimator, or energies for other layers, are found after the backbone has been trained."""
    for assignment in ("estimator=nce", "optimizer.schedule=linear"):
        with pytest.raises(UserError, match=assignment.partition("=")[0]):
            energies(gaussian("conv").model).override([assignment])
    with pytest.raises(UserError, match=r"set model\.inference_network to true"):
        energies(dataclasses.replace(gaussian("conv").model, inference_network=False))
    with pytest.raises(UserError, match="are not 1 layers of vectors"):
        energies(gaussian("conv").model, energy=VectorEnergy(((6,),)))
    for assignment in ("largest_gradient=0", "schedule=linear", "lr_warmup=-1"):
        with pytest.raises(UserError, match=assignment.partition("=")[0]):
            Experiment("a/1", "tiny", "noise").override([f"optimizer.{assignment}"])


def test_rates_rise_and_fall() -> None:
    """Breaks if the warm-up or the cosine of a joint training is another than its configuration says."""
    optimizer = OptimizerConfig(1e-3, 2e-3, lr_warmup=4, schedule="cosine")
    one = experiment("gaussian", optimizer=optimizer, training=TrainingConfig(100, 5))
    optimisation = one.optimisation(one.build())
    assert optimisation.schedule is not None
    rates = []
    for _ in range(100):
        rates.append([group["lr"] for group in optimisation.optimizer.param_groups])
        optimisation.optimizer.step()
        optimisation.schedule.step()
    first = np.array(rates)[:, 0]
    assert first[0] == pytest.approx(1e-3 / 5)
    assert first[50] == pytest.approx(1e-3 * (0.01 + 0.99 / 2))
    assert first[-1] == pytest.approx(1e-5, rel=0.1)
    np.testing.assert_allclose(np.array(rates)[:, 1], 2 * first)
