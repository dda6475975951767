"""Chains in whitened noise: where they move, what they return, the stationary laws of both drifts in closed form."""

import pytest
import torch
from torch import Tensor

from jlebm import langevin
from jlebm.choices import Drift
from jlebm.densities import PriorInLatents, PriorInNoise
from jlebm.energies import conv_energy
from jlebm.errors import UserError
from jlebm.langevin import Chain, StepInfo
from jlebm.latents import Latents
from jlebm.model import JointModel
from jlebm.randomness import PerImageNoise, SharedNoise
from tests.linear import Quadratic, WideningBackbone, linear_model, split, widening_model
from tests.small import backbone

CHAIN = Chain.from_two_stage_paper(4, 0.1)
COUNT = 10_000  # chains of a statistical test
BEYOND = 5.0  # standard errors that a law may be missed by; its seeds are fixed


def draws(seed: int = 0) -> SharedNoise:
    return SharedNoise(torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def model() -> JointModel:
    """Return a hierarchy of convolutions with energies that matter, in float64."""
    network = backbone().double()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        energy = conv_energy(network.latent_shapes, 4, 6).double()
    with torch.no_grad():
        for parameter in energy.parameters():
            parameter.mul_(3.0)
    return JointModel(network, energy)


# ---- what the model does with such a chain


@pytest.mark.parametrize("drift", ["exact", "released"])
def test_the_chain_moves_in_noise_and_returns_latents(model: JointModel, drift: Drift) -> None:
    """The start is N(0, I) of the same stream, the density that of the drift, the end pushed once."""
    chain = Chain.from_two_stage_paper(4, 0.1, drift)
    ours = model.sample_prior(3, chain, draws())
    noise = draws()
    start = model.noise(3, noise)
    end = langevin.run(start, PriorInNoise(model.backbone, model.energy, drift), chain, noise)
    for one, other in zip(ours, model.backbone.push(end), strict=True):
        assert torch.equal(one, other)
        assert not one.requires_grad
    gaussian = model.sample_gaussian(3, draws())
    assert all((one - other).abs().max() > 0.05 for one, other in zip(ours, gaussian, strict=True))


def test_the_two_drifts_give_different_chains(model: JointModel) -> None:
    """A drift that is not handed on breaks it."""
    exact, released = (
        model.sample_prior(3, Chain.from_two_stage_paper(4, 0.1, drift), draws()) for drift in ("exact", "released")
    )
    assert (exact[0] - released[0]).abs().max() > 1e-3


def test_the_observer_sees_latents(model: JointModel) -> None:
    """After every step, T of where the chain then is; watching changes nothing."""
    seen: list[Latents] = []
    infos: list[StepInfo] = []

    def watch(index: int, position: Latents, info: StepInfo) -> None:
        assert index == len(seen)
        seen.append(position)
        infos.append(info)

    watched = model.sample_prior(3, CHAIN, draws(), watch)
    assert len(seen) == CHAIN.steps
    for steps in (1, CHAIN.steps):
        part = model.sample_prior(3, Chain.from_two_stage_paper(steps, 0.1), draws())
        assert all(torch.equal(one, other) for one, other in zip(seen[steps - 1], part, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(seen[-1], watched, strict=True))
    density = PriorInNoise(model.backbone, model.energy)
    with torch.no_grad():
        torch.testing.assert_close(infos[0].log_density, density(model.noise(3, draws())))


def test_an_image_depends_on_its_seed_alone(model: JointModel) -> None:
    """Row i is the chain of seed i in any batch."""
    together = model.sample_prior(3, CHAIN, PerImageNoise("sample", [4, 7, 9]))
    alone = model.sample_prior(1, CHAIN, PerImageNoise("sample", [7]))
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one, other[1:2], rtol=1e-9, atol=1e-10)


def test_the_temperature_is_of_the_last_map_alone(model: JointModel) -> None:
    """The chain itself is the same at every one; at 0 all latents are the hierarchy's means, from whatever noise."""
    noise = draws()
    density = PriorInNoise(model.backbone, model.energy)
    end = langevin.run(model.noise(3, noise), density, CHAIN, noise)
    for temperature in (0.7, 0.0):
        ours = model.sample_prior(3, CHAIN, draws(), temperature=temperature)
        theirs = model.backbone.push(end, temperature)
        assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
    means = model.sample_gaussian(3, draws(5), 0.0)
    for one, other in zip(ours, means, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(one, one[:1].expand_as(one), rtol=1e-12, atol=1e-12)
    assert not means[0].any()
    assert means[1].any()


def test_what_has_no_meaning_is_refused(model: JointModel) -> None:
    """A temperature of the hierarchy for a chain in latents, a posterior chain in noise, a drift of no use."""
    with pytest.raises(UserError, match="no temperature of the hierarchy"):
        model.sample_prior(2, Chain(2, 0.1), draws(), temperature=0.9)
    with pytest.raises(UserError, match="posterior chains move in latents"):
        model.sample_posterior(torch.zeros(2, 3, 16, 16, dtype=torch.float64), CHAIN, draws())
    with pytest.raises(UserError, match="starts from an ancestral draw"):
        Chain(2, 0.1, space="noise")
    with pytest.raises(UserError, match="released drift needs a chain in whitened noise"):
        Chain(2, 0.1, drift="released")


# ---- stationary laws


def assert_gaussian(found: Tensor, mean: Tensor, covariance: Tensor) -> None:
    """See that first and second moments of independent draws are those of a Gaussian, within `BEYOND` errors."""
    count, variance = len(found), covariance.diagonal()
    assert ((found.mean(0) - mean).abs() < BEYOND * (variance / count).sqrt()).all()
    errors = ((variance[:, None] * variance[None] + covariance.square()) / count).sqrt()
    assert ((found.T.cov() - covariance).abs() < BEYOND * errors).all()


def whitened(model: JointModel, chain: Chain, seed: int) -> Tensor:
    assert isinstance(model.backbone, WideningBackbone)
    with torch.no_grad():
        return model.backbone.whitened(model.sample_prior(COUNT, chain, draws(seed)))


def test_zero_energy_leaves_the_standard_normal_as_it_is() -> None:
    """Under the exact drift N(0, I) becomes N(0, 1 / (1 - epsilon / 2)), the finite step's inflation and nothing else.

    Under the released one the mean of z2's noise goes to minus the sum of log sigma's slopes, which is (-1, -0.3).
    """
    model, zeros, eye = widening_model(0.0, (0.0, 0.0)), torch.zeros(5).double(), torch.eye(5).double()
    h = 0.4
    inflated = eye / (1 - h / 4)
    exact = whitened(model, Chain.from_two_stage_paper(60, h), 3)
    assert_gaussian(exact, zeros, inflated)
    released = whitened(model, Chain.from_two_stage_paper(60, h, "released"), 3)
    shift = torch.tensor([-1.0, -0.3, 0.0, 0.0, 0.0], dtype=torch.float64)
    assert_gaussian(released, shift, inflated)
    with pytest.raises(AssertionError):
        assert_gaussian(released, zeros, inflated)


@pytest.mark.parametrize("drift", ["exact", "released"])
def test_an_energy_tilts_the_noise_in_closed_form(drift: Drift) -> None:
    """E = c |z2|^2 / 2 - s . z2: N(s / (1 + c), 1 / (1 + c)) for z2, and N(0, 1) for the noise of z1 below it.

    The released drift's mean is (s - slopes) / (1 + c). Both with their finite steps' inflation.
    """
    c, s = 0.7, torch.tensor([0.4, -0.9], dtype=torch.float64)
    model, h = widening_model(c, (0.4, -0.9)), 0.3
    found = whitened(model, Chain.from_two_stage_paper(60, h, drift), 4)
    slopes = torch.tensor([1.0, 0.3], dtype=torch.float64) * (drift == "released")
    mean = torch.cat([(s - slopes) / (1 + c), torch.zeros(3).double()])
    precision = torch.tensor([1 + c, 1 + c, 1, 1, 1], dtype=torch.float64)
    assert_gaussian(found, mean, torch.diag(1 / (precision * (1 - h / 4 * precision))))


@pytest.mark.slow
def test_a_corrected_chain_has_the_tilted_gaussian_as_its_law() -> None:
    """Two layers of quadratic energies on a linear hierarchy: through T, the chain in noise samples p(z) itself.

    Moments of all latents at a step so long that the uncorrected chain misses them.
    """
    model = linear_model()
    density = PriorInLatents(model.backbone, model.energy)
    exact = Quadratic(lambda z: density(split(z))[0])
    covariance = torch.linalg.inv(exact.precision).detach()
    mean = (covariance @ exact.linear).detach()

    def moments(metropolis: bool) -> Tensor:
        chain = Chain(80, 0.2, start="ancestral", space="noise", metropolis=metropolis)
        return torch.cat(model.sample_prior(COUNT, chain, draws(5)), dim=1)

    assert_gaussian(moments(True), mean, covariance)
    with pytest.raises(AssertionError):
        assert_gaussian(moments(False), mean, covariance)
    # Nor is it the law of the hierarchy alone.
    gaussian = torch.cat(model.sample_gaussian(COUNT, draws(6)), dim=1)
    assert ((gaussian.mean(0) - mean).abs() > 10 * (covariance.diagonal() / COUNT).sqrt()).any()


@pytest.mark.slow
def test_a_corrected_chain_agrees_with_weighted_draws_of_the_hierarchy() -> None:
    """Where log sigma depends on z2 and energies are on both layers: E_p[g] is E_p0[g exp(-E)] / E_p0[exp(-E)].

    First and second moments of all latents within the standard errors of both sides; a Jacobian that is left out, or
    counted twice, breaks it.
    """
    model = widening_model(0.7, (0.4, -0.9))
    with torch.no_grad():
        bottom = model.energy.get_submodule("networks.1")
        bottom.get_parameter("curvature").fill_(0.3)
        bottom.get_parameter("shift").copy_(torch.tensor([0.5, -0.5, 0.2]))
    chain = Chain(100, 0.07, start="ancestral", space="noise", metropolis=True)
    end = torch.cat(model.sample_prior(COUNT, chain, draws(7)), dim=1)
    z = model.sample_gaussian(10 * COUNT, draws(8))
    weights = torch.softmax(-model.energies(z).sum(1), dim=0)[:, None]
    ours, theirs = (torch.cat([each, each.square()], dim=1) for each in (end, torch.cat(z, dim=1)))
    mean = (weights * theirs).sum(0)
    error = (ours.var(0) / COUNT + (weights * (theirs - mean)).square().sum(0)).sqrt()
    assert ((ours.mean(0) - mean).abs() < BEYOND * error).all()
    assert ((theirs.mean(0) - mean).abs() > 20 * error).any(), "weights that hardly matter would prove nothing"


def test_a_chain_of_no_steps_is_the_ancestral_draw(model: JointModel) -> None:
    """A start that is not N(0, I) in the noise, or one that is pushed twice, breaks it."""
    none = Chain.from_two_stage_paper(0, 0.1)
    for one, other in zip(model.sample_prior(2, none, draws()), model.sample_gaussian(2, draws()), strict=True):
        assert torch.equal(one, other)
