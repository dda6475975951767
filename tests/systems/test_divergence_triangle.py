"""The divergence triangle: the gradients of its three networks where everything is linear and Gaussian."""

import pytest
import torch
from scipy.linalg import hadamard
from torch import Tensor, nn

from jlebm.distributions import SIGMA_FLOOR
from jlebm.errors import UserError
from reproduce.systems.divergence_triangle import DivergenceTriangle, DivergenceTriangleConfig

PIXELS, LATENTS = 4, 3
# 16 points with mean 0 and covariance I over 15 dimensions: means of quadratics over them are exact expectations.
DESIGN = torch.from_numpy(hadamard(16)[:, 1:]).double()
PARTS = ("energy", "encoder", "generator")


class Quadratic(nn.Module):
    """E(x) = x' C x / 2 + c . x."""

    def __init__(self, generator: torch.Generator):
        super().__init__()
        self.curvature, self.slope = parameter(generator, PIXELS, PIXELS), parameter(generator, PIXELS)

    def forward(self, x: Tensor) -> Tensor:
        """Return energies of shape (batch, 1)."""
        x = x.flatten(1)
        return (0.5 * torch.einsum("ni,ij,nj->n", x, self.curvature, x) + x @ self.slope)[:, None]

    def expected(self, mean: Tensor, covariance: Tensor) -> Tensor:
        """Return E's expectation over images of this mean and covariance."""
        second = covariance + torch.outer(mean, mean)
        return 0.5 * (self.curvature * second).sum() + self.slope @ mean


class Encoder(nn.Module):
    """q(z|x) = N(A x + a, diag s^2)."""

    def __init__(self, generator: torch.Generator):
        super().__init__()
        self.weight, self.bias = parameter(generator, LATENTS, PIXELS), parameter(generator, LATENTS)
        self.log_sigma = parameter(generator, LATENTS)

    def forward(self, x: Tensor) -> Tensor:
        """Return mean and log sigma side by side."""
        mean = x.flatten(1) @ self.weight.T + self.bias
        return torch.cat((mean, self.log_sigma.expand_as(mean)), dim=1)

    @property
    def sigma(self) -> Tensor:
        """Return s."""
        return self.log_sigma.exp() + SIGMA_FLOOR


class Generator(nn.Module):
    """g(z) = W z + b as an image of one row."""

    def __init__(self, generator: torch.Generator):
        super().__init__()
        self.weight, self.bias = parameter(generator, PIXELS, LATENTS), parameter(generator, PIXELS)

    def forward(self, z: Tensor) -> Tensor:
        """Return images."""
        return (z @ self.weight.T + self.bias)[:, None, None, :]


def parameter(generator: torch.Generator, *shape: int) -> nn.Parameter:
    return nn.Parameter(0.5 * torch.randn(*shape, generator=generator, dtype=torch.float64))


def linear_triangle(config: DivergenceTriangleConfig) -> DivergenceTriangle:
    system, generator = DivergenceTriangle(config), torch.Generator().manual_seed(5)
    system.energy, system.encoder, system.generator = Quadratic(generator), Encoder(generator), Generator(generator)
    return system


def triangle(system: DivergenceTriangle, mean: Tensor, covariance: Tensor) -> Tensor:
    """KL(Q|P) + KL(P|Pi) - KL(Q|Pi) in matrices, with the config's weights, but for constants."""
    config, eye = system.config, torch.eye
    energy, encoder, generator = system.energy, system.encoder, system.generator
    there, back, sigma = encoder.weight, generator.weight, encoder.sigma
    # KL(Q|P): the residual of a reconstruction is (I - W A) x - W a - b - W s eps.
    left = eye(PIXELS, dtype=torch.float64) - back @ there
    offset = left @ mean - back @ encoder.bias - generator.bias
    spread = left @ covariance @ left.T + back @ torch.diag(sigma**2) @ back.T
    reconstruction = (spread.trace() + offset @ offset) / (2 * config.likelihood_sigma**2)
    inferred = there @ mean + encoder.bias
    second = (there @ covariance @ there.T).trace() + inferred @ inferred
    kl = 0.5 * (second + (sigma**2 - 2 * sigma.log()).sum())
    # -E_P log q(z|x): z less the encoder's mean of W z + b is (I - A W) z - A b - a.
    missed = eye(LATENTS, dtype=torch.float64) - there @ back
    shift = there @ generator.bias + encoder.bias
    latent = (sigma.log() + 0.5 * ((missed @ missed.T).diagonal() + shift**2) / sigma**2).sum()
    samples = energy.expected(generator.bias, back @ back.T)
    data = energy.expected(mean, covariance)
    return reconstruction + config.kl_weight * kl + config.latent_weight * latent + samples - data


@pytest.mark.parametrize(("kl_weight", "latent_weight"), [(1.0, 1.0), (0.01, 0.1)])
def test_three_gradients_are_those_of_the_triangle(kl_weight: float, latent_weight: float) -> None:
    """A term of a wrong sign, at a wrong network, with a wrong weight, or missing, changes one of the gradients."""
    config = DivergenceTriangleConfig(
        (1, 8, 8),
        LATENTS,
        (4, 4),
        (4, 4),
        (4, 4),
        likelihood_sigma=0.6,
        kl_weight=kl_weight,
        latent_weight=latent_weight,
    )
    system = linear_triangle(config)
    draws = torch.Generator().manual_seed(6)
    mean, root = torch.randn(PIXELS, generator=draws).double(), torch.randn(PIXELS, PIXELS, generator=draws).double()
    x = (mean + DESIGN[:, :PIXELS] @ root.T)[:, None, None, :]
    z, eps = DESIGN[:, PIXELS : PIXELS + LATENTS], DESIGN[:, PIXELS + LATENTS : PIXELS + 2 * LATENTS]

    turns = list(system.turns(x, None, lambda like: (z, eps), 0))
    assert tuple(turn.part for turn in turns) == PARTS
    exact = triangle(system, mean, root @ root.T)
    for turn, sign in zip(turns, (-1, 1, 1), strict=True):
        weights = list(getattr(system, turn.part).parameters())
        found = torch.autograd.grad(turn.loss, weights, retain_graph=True)
        expected = torch.autograd.grad(sign * exact, weights, retain_graph=True)
        for ours, theirs in zip(found, expected, strict=True):
            assert theirs.abs().max() > 1e-3
            torch.testing.assert_close(ours, theirs)


def test_energies_have_no_gradient_where_samples_are_the_data() -> None:
    """A Z that does not fall out, or data and samples of unequal weight, would move an energy that is right."""
    system = linear_triangle(DivergenceTriangleConfig((1, 8, 8), LATENTS, (4, 4), (4, 4), (4, 4)))
    z = DESIGN[:, :LATENTS]
    turn = next(system.turns(system.generator(z).detach(), None, lambda like: (z.flip(0), z), 0))
    for gradient in torch.autograd.grad(turn.loss, list(system.energy.parameters())):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-12)


def test_each_turn_sees_the_moves_before_it() -> None:
    """A generator that learns by the energy of before its move would play against a network that is gone."""
    system = linear_triangle(DivergenceTriangleConfig((1, 8, 8), LATENTS, (4, 4), (4, 4), (4, 4)))
    x, z = DESIGN[:, None, None, :PIXELS], DESIGN[:, :LATENTS]
    still = [float(turn.loss.detach()) for turn in system.turns(x, None, lambda like: (z, z), 0)]
    moving = []
    for turn in system.turns(x, None, lambda like: (z, z), 0):
        moving.append(float(turn.loss.detach()))
        if turn.part == "energy":
            with torch.no_grad():
                system.energy.slope.add_(1.0)
    assert moving[:2] == still[:2]
    assert moving[2] - still[2] == pytest.approx(float(system.generator.bias.sum().detach()))


def test_sizes_that_do_not_fit_are_refused() -> None:
    """Bad input is one sentence before anything is built."""
    with pytest.raises(UserError, match="divisible"):
        DivergenceTriangleConfig((3, 20, 20))
    with pytest.raises(UserError, match="likelihood_sigma"):
        DivergenceTriangleConfig(likelihood_sigma=0.0)
    with pytest.raises(UserError, match="energy_l2"):
        DivergenceTriangleConfig(energy_l2=-1.0)
