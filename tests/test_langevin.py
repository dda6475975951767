"""The kernel's laws, exact: on a Gaussian the chain is linear in its start and its noise, so its law can be read."""

import math

import pytest
import torch
from torch import Tensor

from jlebm import langevin
from jlebm.densities import PriorInLatents
from jlebm.errors import UserError
from jlebm.gradients import Autograd
from jlebm.langevin import Chain, Trace
from jlebm.latents import Latents, standard_normal_log_prob
from tests.linear import Quadratic, linear_model, split


def coefficients(log_density, chain: Chain, offset: float = 0.0) -> tuple[float, float, Tensor]:
    """Run a one-dimensional linear chain on unit inputs; return its constant, and the weights of start and noises."""
    count = chain.steps + 2  # one run with all inputs zero, then one for each unit input
    inputs = torch.zeros(count, chain.steps + 1, dtype=torch.float64)
    inputs[1:] = torch.eye(chain.steps + 1, dtype=torch.float64)
    draws = iter(inputs.T[1:])
    ends = langevin.run((inputs[:, :1],), log_density, chain, lambda like: (next(draws)[:, None],))[0][:, 0]
    weights = ends[1:] - ends[0]
    return float(ends[0]), float(weights[0]), weights[1:]


@pytest.mark.parametrize("epsilon", [0.001, 0.08, 0.5, 1.3])
@pytest.mark.parametrize("steps", [1, 2, 60])
def test_finite_step_variance_on_a_standard_normal(epsilon: float, steps: int) -> None:
    """From variance v0 it is r^n v0 + (1 - r^n) / (1 - epsilon / 2), r = (1 - epsilon)^2.

    A wrong noise scale, sign or factor of two in the drift breaks it at every step size.
    """
    constant, start, noise = coefficients(standard_normal_log_prob, Chain(steps, epsilon))
    r = (1 - epsilon) ** 2
    for v0 in (0.0, 1.0, 9.0):
        law = r**steps * v0 + (1 - r**steps) / (1 - epsilon / 2)
        assert start**2 * v0 + float(noise.square().sum()) == pytest.approx(law, rel=1e-12)
    assert constant == 0


@pytest.mark.parametrize("temperature", [0.0, 0.6, 1.0])
def test_temperature_scales_the_noise_alone(temperature: float) -> None:
    """Temperature 0 is gradient ascent, and the drift is the same at every temperature."""
    _, start, noise = coefficients(standard_normal_log_prob, Chain(10, 0.1, temperature))
    _, same, full = coefficients(standard_normal_log_prob, Chain(10, 0.1))
    assert start == pytest.approx(same, rel=1e-14)
    torch.testing.assert_close(noise, temperature * full)


def test_quadratic_energy_gives_its_tilted_gaussian() -> None:
    """E(z) = a z^2 / 2 - c z on N(0, 1) is N(c / (1 + a), 1 / (1 + a)).

    A flipped sign of the energy moves the mean to the other side. The unadjusted chain's mean is exact, its variance
    is larger by the factor 1 / (1 - epsilon (1 + a) / 2).
    """
    a, c, epsilon = 0.5, 1.2, 0.05

    def log_density(z: Latents) -> Tensor:
        energy = 0.5 * a * z[0].square().sum(1) - c * z[0].sum(1)
        return standard_normal_log_prob(z) - energy

    mean, _, noise = coefficients(log_density, Chain(400, epsilon))
    assert mean == pytest.approx(c / (1 + a), rel=1e-9)
    assert float(noise.square().sum()) == pytest.approx(1 / (1 + a) / (1 - epsilon * (1 + a) / 2), rel=1e-9)


def test_tilted_hierarchy_in_closed_form() -> None:
    """On a linear-Gaussian hierarchy with quadratic energies a cold chain settles at the exact mean of the prior."""
    model = linear_model()
    density = PriorInLatents(model.backbone, model.energy)
    exact = Quadratic(lambda z: density(split(z))[0])
    mean = torch.linalg.solve(exact.precision, exact.linear).detach()
    chain = Chain(4000, 0.02, temperature=0.0)
    end = langevin.run(
        (torch.zeros(1, 2).double(), torch.zeros(1, 3).double()),
        density,
        chain,
        lambda like: tuple(torch.zeros_like(z) for z in like),
    )
    torch.testing.assert_close(torch.cat(end, 1)[0], mean, rtol=1e-9, atol=1e-9)


def test_gradient_against_finite_differences() -> None:
    """The drift is the gradient of the log-density that was asked for, in every layer."""
    model = linear_model()
    density = PriorInLatents(model.backbone, model.energy)
    generator = torch.Generator().manual_seed(1)
    z = tuple(torch.randn(4, *shape, generator=generator, dtype=torch.float64) for shape in ((2,), (3,)))
    _, gradient = Autograd(density).value_and_gradient(z)
    h = 1e-6
    for layer in range(2):
        for unit in range(z[layer].shape[1]):
            shift = torch.zeros_like(z[layer])
            shift[:, unit] = h
            up = density(tuple(v + shift if i == layer else v for i, v in enumerate(z)))
            down = density(tuple(v - shift if i == layer else v for i, v in enumerate(z)))
            torch.testing.assert_close(gradient[layer][:, unit], ((up - down) / (2 * h)).detach(), rtol=1e-7, atol=1e-8)


def test_the_papers_two_notations() -> None:
    """S is the noise's standard deviation, h its variance; the drifts are s^2/2 and h/2 (facts, 1.3 and 1.4)."""
    assert Chain.from_joint_paper(60, 0.4).epsilon == pytest.approx(0.08)
    assert Chain.from_two_stage_paper(20, 4e-5).epsilon == pytest.approx(2e-5)
    for s in (0.4, 0.1):
        assert math.sqrt(2 * Chain.from_joint_paper(1, s).epsilon) == pytest.approx(s)
    for h in (4e-5, 1e-5):
        assert math.sqrt(2 * Chain.from_two_stage_paper(1, h).epsilon) == pytest.approx(math.sqrt(h))


def test_observer_sees_every_step_and_changes_nothing() -> None:
    """A trace has one entry a step, of the position before the move; watching a chain does not move it."""
    chain, trace = Chain(5, 0.1), Trace()
    start = (torch.full((3, 2), 2.0, dtype=torch.float64),)

    def noise(like: Latents) -> Latents:
        return tuple(torch.ones_like(z) for z in like)

    watched = langevin.run(start, standard_normal_log_prob, chain, noise, trace)
    assert torch.equal(watched[0], langevin.run(start, standard_normal_log_prob, chain, noise)[0])
    assert trace.log_density().shape == (5, 3)
    torch.testing.assert_close(trace.log_density()[0], standard_normal_log_prob(start))
    torch.testing.assert_close(trace.gradient_norm()[0], start[0].norm(dim=1))


def test_no_steps_is_the_start() -> None:
    """Zero steps return the start itself, detached."""
    start = (torch.ones(2, 2, requires_grad=True),)
    end = langevin.run(start, standard_normal_log_prob, Chain(0, 0.1), lambda like: like)
    assert torch.equal(end[0], start[0])
    assert not end[0].requires_grad


@pytest.mark.parametrize(
    "make",
    [
        lambda: Chain(10, 0.0),
        lambda: Chain(10, -0.1),
        lambda: Chain(10, math.nan),
        lambda: Chain(10, math.inf),
        lambda: Chain(-1, 0.1),
        lambda: Chain(1, 0.1, temperature=-1.0),
        lambda: Chain.from_joint_paper(10, -0.4),
        lambda: Chain.from_joint_paper(10, 0.0),
    ],
)
def test_impossible_chains_are_refused(make) -> None:
    """A step size that is not positive, a negative length or temperature is bad input, said in a sentence."""
    with pytest.raises(UserError, match="must"):
        make()
