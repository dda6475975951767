"""NCSN: denoising score matching finds a Gaussian's score; annealed chains are followed through exactly."""

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from jlebm.errors import UserError
from jlebm.randomness import SharedNoise, generator
from reproduce.systems.ncsn import NCSN, NCSNConfig, sigmas
from tests.systems.small import built, tiny

MEAN, SIGMA = 0.3, 0.5  # of every pixel of the Gaussian data
SMALL = NCSNConfig(
    (1, 8, 8), (4,), 1, (), 2, levels=3, sigma_first=1.0, sigma_last=0.1, chain_steps=20, step_size=1e-3, flip=False
)


class Affine(nn.Module):
    """A slope and an offset for each level: the family that a Gaussian's score is in."""

    def __init__(self, levels: int):
        super().__init__()
        self.slope, self.offset = nn.Parameter(torch.zeros(levels)), nn.Parameter(torch.zeros(levels))

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """Return sigma times the score."""
        return self.slope[level, None, None, None] * x + self.offset[level, None, None, None]


def affine(**changes: object) -> NCSN:
    config = dataclasses.replace(SMALL, **changes)
    system = built(dataclasses.replace(tiny("ncsn"), model=config))
    system.network = Affine(config.levels)
    return system


def best(config: NCSNConfig) -> tuple[Tensor, Tensor]:
    """Slope and offset of sigma times the score -(x - m) / (s^2 + sigma^2), at each level."""
    sigma = sigmas(config)
    slope = -sigma / (SIGMA**2 + sigma**2)
    return slope, -slope * MEAN


def test_levels_are_geometric() -> None:
    """The paper's ten levels, in units of images in [-1, 1]."""
    found = sigmas(NCSNConfig())
    torch.testing.assert_close(found[1:] / found[:-1], torch.full((9,), 100 ** (-1 / 9), dtype=torch.float64))
    assert found[[0, -1]].tolist() == pytest.approx([2.0, 0.02])


def test_score_matching_finds_the_score_of_a_gaussian() -> None:
    """A loss with a wrong sign, weight or level has another optimum than the score of the data with noise."""
    system = affine()
    noise = SharedNoise(generator("training noise", 1))
    optimizer = torch.optim.Adam(system.parameters(), lr=0.05)
    for step in range(240):
        optimizer.param_groups[0]["lr"] = 0.05 if step < 120 else 0.05 * 0.96 ** (step - 120)
        x = MEAN + SIGMA * noise((torch.empty(128, 1, 8, 8),))[0]
        (turn,) = system.turns(x, None, noise, step)
        optimizer.zero_grad()
        turn.loss.backward()
        optimizer.step()
    slope, offset = best(system.config)
    torch.testing.assert_close(system.network.slope.detach().double(), slope, rtol=0.03, atol=0.01)
    torch.testing.assert_close(system.network.offset.detach().double(), offset, rtol=0.03, atol=0.01)


@pytest.mark.parametrize(
    "changes", [{}, {"chain_steps": 1, "denoise": True}, {"chain_steps": 300, "step_size": 1e-2}], ids=str
)
def test_annealed_chains_on_a_gaussian(changes: dict) -> None:
    """With the exact score all moves are linear: a wrong step at any level moves the images' mean or variance."""
    system = affine(**changes)
    config = system.config
    slope, offset = best(config)
    with torch.no_grad():
        system.network.slope.copy_(slope)
        system.network.offset.copy_(offset)
        images = system.draw(128, SharedNoise(generator("sample", 1))).double()
    mean, variance = 0.0, 1 / 3  # of U(-1, 1)
    levels = sigmas(config).tolist()
    for sigma in levels:
        alpha = config.step_size * sigma**2 / levels[-1] ** 2
        keep = 1 - alpha / 2 / (SIGMA**2 + sigma**2)
        for _ in range(config.chain_steps):
            mean, variance = MEAN + keep * (mean - MEAN), keep**2 * variance + alpha
    if config.denoise:
        keep = 1 - levels[-1] ** 2 / (SIGMA**2 + levels[-1] ** 2)
        mean, variance = MEAN + keep * (mean - MEAN), keep**2 * variance
    count = images.numel()
    assert images.mean() == pytest.approx(mean, abs=4 * (variance / count) ** 0.5)
    assert images.var() == pytest.approx(variance, rel=4 * (2 / count) ** 0.5)
    if config.chain_steps == 300:  # long chains forget where they started
        assert mean == pytest.approx(MEAN, abs=1e-3)
        assert variance == pytest.approx(SIGMA**2 + levels[-1] ** 2, rel=0.03)


def test_levels_that_do_not_fall_are_refused() -> None:
    """Bad input is one sentence before anything is built."""
    with pytest.raises(UserError, match="fall from"):
        NCSNConfig(sigma_last=3.0)
    with pytest.raises(UserError, match="chain_steps"):
        NCSNConfig(chain_steps=0)
