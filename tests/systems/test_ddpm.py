"""DDPM: its schedule by Bayes' rule, its samplers on a Gaussian that they can be followed through exactly, its EMA."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn

from jlebm.errors import UserError
from jlebm.randomness import SharedNoise, generator
from reproduce.systems.ddpm import DDPM, DDPMConfig, abars, steps
from tests.systems.small import built, tiny

MEAN, SIGMA = 0.1, 0.15  # of every pixel of the Gaussian data; the guess of x is then never clipped
SMALL = DDPMConfig((1, 8, 8), channels=(4,), layers=1, attention=(), norm_groups=2, flip=False)


class Exact(nn.Module):
    """The noise of an image of the Gaussian data, as the best network would tell it."""

    def __init__(self, config: DDPMConfig):
        super().__init__()
        self.abars = abars(config).float()

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """Return E[eps|x_t]."""
        abar = self.abars[level, None, None, None]
        return (1 - abar).sqrt() * (x - abar.sqrt() * MEAN) / (abar * SIGMA**2 + 1 - abar)


def exact(**changes: object) -> DDPM:
    config = dataclasses.replace(SMALL, **changes)
    system = built(dataclasses.replace(tiny("ddpm"), model=config))
    system.network = Exact(config)
    system.empty = torch.empty  # there is no parameter left to be like
    return system


@pytest.mark.parametrize("count", [1000, 37, 2])
def test_posterior_variance_is_bayes_rule(count: int) -> None:
    """Eq. 7 is that of q(x_s|x_t, x) ~ q(x_t|x_s) q(x_s|x), precisions added; at a stride too, and 0 at the image."""
    found = steps(DDPMConfig(sampler_steps=count))
    assert len(found) == count
    assert (found[0].level, found[-1].level) == (999, 0)
    assert [one.level for one in found] == sorted({one.level for one in found}, reverse=True)
    for one in found[:-1]:
        ratio = one.abar / one.before  # x_t = sqrt(ratio) x_s + noise of variance 1 - ratio
        precision = 1 / (1 - one.before) + ratio / (1 - ratio)
        assert one.posterior_variance == pytest.approx(1 / precision, rel=1e-9)
        assert one.marginal_variance == pytest.approx(1 - ratio, rel=1e-12)
    assert (found[-1].before, found[-1].posterior_variance) == (1.0, 0.0)
    assert math.prod(1 - one.marginal_variance for one in found) == pytest.approx(found[0].abar, rel=1e-9)


def test_the_full_schedule_has_the_papers_betas() -> None:
    """Without a stride a step's marginal variance is beta_t, which rises by equal parts from 1e-4 to 0.02."""
    betas = torch.tensor([one.marginal_variance for one in steps(DDPMConfig())][::-1], dtype=torch.float64)
    torch.testing.assert_close(betas, torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), rtol=1e-9, atol=0)


def followed(config: DDPMConfig) -> tuple[float, float]:
    """Mean and variance of the sampler's images with the exact network, both of which move linearly."""
    mean, variance = 0.0, 1.0
    for one in steps(config):
        total = one.abar * SIGMA**2 + 1 - one.abar  # the variance of x_t
        gain = one.abar**0.5 * SIGMA**2 / total  # of the guess E[x|x_t]
        drawn = config.eta**2 * one.posterior_variance
        along = ((1 - one.before - drawn) / (1 - one.abar)) ** 0.5
        slope = one.before**0.5 * gain + along * (1 - one.abar**0.5 * gain)
        centre = one.abar**0.5 * MEAN  # of x_t, where the guess is the data's mean
        mean = one.before**0.5 * MEAN + slope * (mean - centre)
        added = one.marginal_variance * config.eta**2 if config.variance == "large" and drawn > 0 else drawn
        variance = slope**2 * variance + added
    return mean, variance


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"variance": "small"},
        {"variance": "small", "sampler_steps": 50},
        {"sampler_steps": 20, "eta": 0.0},
        {"sampler_steps": 20, "eta": 0.5, "variance": "small"},
    ],
    ids=str,
)
def test_samplers_of_a_gaussian(changes: dict) -> None:
    """A wrong coefficient, or noise of a wrong size at any step, moves the images' mean or variance."""
    system = exact(**changes)
    with torch.no_grad():
        images = system.draw(64, SharedNoise(generator("sample", 1))).double()
    mean, variance = followed(system.config)
    count = images.numel()
    assert images.mean() == pytest.approx(mean, abs=4 * (variance / count) ** 0.5)
    assert images.var() == pytest.approx(variance, rel=4 * (2 / count) ** 0.5)
    if changes == {}:  # and the full sampler's is the data's distribution; small variances are those of one image
        assert mean == pytest.approx(MEAN, abs=1e-3)
        assert variance == pytest.approx(SIGMA**2, rel=0.02)
    elif "sampler_steps" not in changes:
        assert variance < SIGMA**2


def test_without_eta_nothing_is_drawn_after_the_start() -> None:
    """The deterministic sampler is a function of the first noise alone."""
    asked = []

    def noise(like: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        asked.append(like)
        return tuple(torch.zeros_like(each) for each in like)

    exact(sampler_steps=5, eta=0.0).draw(2, noise)
    assert len(asked) == 1
    exact(sampler_steps=5, variance="small").draw(2, noise)
    assert len(asked) == 1 + 5  # the start and every step but the last


def test_loss_of_the_best_network() -> None:
    """The noise that no network can tell is abar s^2 / (abar s^2 + 1 - abar) at each level, all equally frequent."""
    system = exact(timesteps=8, sampler_steps=8, beta_last=0.5)
    noise = SharedNoise(generator("training noise", 1))
    losses = []
    for step in range(120):
        (x,) = noise((torch.empty(512, 1, 8, 8),))
        (turn,) = system.turns(MEAN + SIGMA * x, None, noise, step)
        losses.append(float(turn.loss))
    abar = abars(system.config)
    best = (abar * SIGMA**2 / (abar * SIGMA**2 + 1 - abar)).mean()
    assert sum(losses) / len(losses) == pytest.approx(float(best), rel=0.03)


def test_sizes_that_do_not_fit_are_refused() -> None:
    """Bad input is one sentence before anything is built."""
    with pytest.raises(UserError, match="sampler_steps"):
        DDPMConfig(sampler_steps=1001)
    with pytest.raises(UserError, match="beta_first"):
        DDPMConfig(beta_first=0.1)
    with pytest.raises(UserError, match="halved"):
        DDPMConfig((3, 20, 20))
    with pytest.raises(UserError, match="norm_groups"):
        DDPMConfig(channels=(16, 33))
