"""Layers kept and layers drawn anew: exact laws on the linear-Gaussian hierarchy, and what must not move."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from jlebm import hierarchy, sampling
from jlebm.backbones.protocol import PosteriorSample
from jlebm.densities import Posterior, PriorInLatents, PriorInNoise
from jlebm.distributions import Normal
from jlebm.energies import no_energy
from jlebm.errors import UserError
from jlebm.hierarchy import PartialPosterior
from jlebm.images import to_float
from jlebm.langevin import Chain
from jlebm.latents import Latents
from jlebm.model import JointModel
from jlebm.randomness import Noise, PerImageNoise
from tests.linear import LinearBackbone, Quadratic, linear_model, split
from tests.small import IMAGES, ladder_experiment

MALA = Chain(30, 0.3, start="ancestral", space="noise", metropolis=True)  # samples the density itself
SHORT = Chain.from_two_stage_paper(4, 0.05)
COUNT = 2_000  # draws of a statistical test
BEYOND = 5.0  # standard errors that a law may be missed by; the seeds are fixed
ROW = np.array([[[[40, 200, 90, 160]]]], dtype=np.uint8)  # an image of the linear model
SAME = np.repeat(ROW, COUNT, axis=0)


class Encoded(LinearBackbone):
    """The linear backbone with a q(z|x) of independent layers, which is not its posterior."""

    sigmas = (0.6, 0.4)

    def posterior(self, x: Tensor, noise: Noise) -> PosteriorSample:
        """Draw both layers around numbers that depend on the image."""
        middle = x.double().mean((1, 2, 3))[:, None]
        means = (0.3 + middle.expand(-1, 2), -0.5 + middle.expand(-1, 3))
        q = [Normal.constant_sigma(mean, sigma) for mean, sigma in zip(means, self.sigmas, strict=True)]
        z = tuple(one.sample(eps) for one, eps in zip(q, noise(means), strict=True))
        return PosteriorSample(z, q[0].log_prob(z[0]) + q[1].log_prob(z[1]))


def encoded(curvatures: tuple[float, float] = (0.7, 0.4)) -> JointModel:
    model = linear_model(curvatures)
    backbone = Encoded(torch.Generator())
    backbone.load_state_dict(model.backbone.state_dict())
    return JointModel(backbone, model.energy)


def without_energy() -> JointModel:
    model = encoded((0.0, 0.0))
    for network in model.energy.networks:
        nn.init.zeros_(network.shift)
    return model


@pytest.fixture(scope="module")
def ladder() -> JointModel:
    """Return three layers with energies that matter, in float64."""
    torch.manual_seed(1)
    model = ladder_experiment().build().double()
    with torch.no_grad():
        for parameter in model.energy.parameters():
            parameter.mul_(3.0)
    return model


def gather(batches) -> Latents:
    return tuple(torch.cat(layers) for layers in zip(*(batch.latents for batch in batches), strict=True))


def assert_law(draws: Tensor, mean: Tensor, covariance: Tensor) -> None:
    """Compare the first two moments of independent rows with a Gaussian's, in standard errors."""
    n, variance = len(draws), covariance.diagonal()
    assert ((draws.mean(0) - mean).abs() <= BEYOND * (variance / n).sqrt() + 1e-12).all()
    error = ((torch.outer(variance, variance) + covariance.square()) / n).sqrt()
    centred = draws - mean
    assert ((centred.T @ centred / n - covariance).abs() <= BEYOND * error + 1e-12).all()


def quadratic(density) -> tuple[Tensor, Tensor]:
    """Return precision and linear part of a log-density of both layers side by side."""
    exact = Quadratic(lambda flat: density(split(flat))[0])
    return exact.precision.detach(), exact.linear.detach()


# ---- laws


@pytest.mark.parametrize("chain", [None, MALA], ids=["no chain", "chain"])
def test_with_no_energy_they_are_conditional_draws_of_p0(chain: Chain | None) -> None:
    """Top drawn: z2 ~ N(0, I) and z1 follows it; bottom drawn: z1 ~ p(z1|z2); a chain leaves both laws alone."""
    model = without_energy()
    backbone = model.backbone
    eps = (torch.tensor([[0.8, -1.1]]).double(), torch.tensor([[0.4, 1.3, -0.7]]).double())
    sigma = backbone.log_sigma.exp().detach()
    weight, bias = backbone.weight.detach(), backbone.bias.detach()

    top = model.pushed(hierarchy.resampled(model, eps, [0], range(COUNT), chain))
    assert_law(top[0], torch.zeros(2).double(), torch.eye(2).double())
    assert_law(top[1], bias + sigma * eps[1][0], weight @ weight.T)
    bottom = model.pushed(hierarchy.resampled(model, eps, [1], range(COUNT), chain))
    assert torch.equal(bottom[0], eps[0].expand(COUNT, -1))
    assert_law(bottom[1], weight @ eps[0][0] + bias, torch.diag(sigma**2))


@pytest.mark.parametrize("layers", [(0,), (1,), (0, 1)], ids=str)
def test_with_energies_they_are_the_ebm_prior_given_the_rest(layers: tuple[int, ...]) -> None:
    """In noise the conditional of a Gaussian: a chain that ignores an energy, its own or one below it, breaks it."""
    model = encoded()
    eps = (torch.tensor([[0.8, -1.1]]).double(), torch.tensor([[0.4, 1.3, -0.7]]).double())
    precision, linear = quadratic(PriorInNoise(model.backbone, model.energy))
    moves = torch.cat([torch.full((size,), index in layers) for index, size in enumerate((2, 3))])
    held = torch.cat(eps, 1)[0][~moves]
    covariance = torch.linalg.inv(precision[moves][:, moves])
    mean = covariance @ (linear[moves] - precision[moves][:, ~moves] @ held)
    drawn = torch.cat(hierarchy.resampled(model, eps, layers, range(COUNT), MALA), 1)
    assert_law(drawn[:, moves], mean, covariance)
    assert torch.equal(drawn[:, ~moves], held.expand(COUNT, -1))


@pytest.mark.parametrize("energy", [False, True], ids=["no energy", "energies"])
def test_lower_layers_are_drawn_given_the_upper_ones(energy: bool) -> None:
    """z1 given a z2 of q is a regression on it: exact slope, intercept and covariance, with both priors."""
    model, chain = (encoded(), MALA) if energy else (without_energy(), None)
    precision, linear = quadratic(PriorInLatents(model.backbone, model.energy))
    covariance = torch.linalg.inv(precision[2:, 2:])
    z2, z1 = gather(hierarchy.reconstruct_from(model, SAME, range(COUNT), PartialPosterior(1, chain), batch_size=COUNT))
    expected = (linear[2:] - z2 @ precision[:2, 2:]) @ covariance
    upper = z2 - 0.3 - to_float(torch.tensor(ROW)).double().mean()
    # Together: noise of z1 that repeats that of z2 would leave each law as it is.
    law = torch.block_diag(covariance, 0.36 * torch.eye(2).double())
    assert_law(torch.cat([z1 - expected, upper], 1), torch.zeros(5).double(), law)


def joint_law(model: JointModel, k: int) -> tuple[Tensor, Tensor]:
    """Return mean and covariance of z with z_{>k} of q and z_{<=k} of the EBM prior given them, in closed form."""
    precision, linear = quadratic(PriorInLatents(model.backbone, model.energy))
    if k == 2:
        return torch.linalg.solve(precision, linear), torch.linalg.inv(precision)
    middle = to_float(torch.tensor(ROW)).double().mean()
    mean = torch.cat([(0.3 + middle).expand(2), (-0.5 + middle).expand(3)])
    covariance = torch.diag(torch.tensor([0.36, 0.36, 0.16, 0.16, 0.16]).double())
    if k == 1:
        own = torch.linalg.inv(precision[2:, 2:])
        slope = -own @ precision[2:, :2]
        mean[2:] = own @ linear[2:] + slope @ mean[:2]
        covariance[2:, :2] = slope @ covariance[:2, :2]
        covariance[:2, 2:] = covariance[2:, :2].T
        covariance[2:, 2:] = own + slope @ covariance[:2, :2] @ slope.T
    return mean, covariance


@pytest.mark.parametrize("k", [0, 1, 2])
def test_scores_are_the_expectations_of_equation_20(k: int) -> None:
    """A quadratic under a Gaussian: exact. A left out p0, energy or likelihood, or an entropy term, breaks it."""
    model = encoded()
    mean, covariance = joint_law(model, k)
    root = torch.linalg.cholesky(covariance) * 5**0.5
    points = torch.cat([mean + root.T, mean - root.T])
    x = to_float(torch.tensor(ROW)).double().expand(10, -1, -1, -1)
    exact = float(Posterior(model.backbone, model.energy, x)((points[:, :2], points[:, 2:])).mean().detach())
    scores = hierarchy.scores_above(model, SAME, range(COUNT), PartialPosterior(k, MALA), batch_size=COUNT)
    assert scores.dtype == np.float64
    assert abs(scores.mean() - exact) < BEYOND * scores.std() / COUNT**0.5


def test_a_score_is_the_mean_of_its_draws() -> None:
    """More draws have the same mean and a smaller spread: draws that repeat each other keep theirs."""
    model = encoded()
    one, many = (
        hierarchy.scores_above(model, SAME[:400], range(400), PartialPosterior(1, None), draws=n) for n in (1, 16)
    )
    assert many.std() == pytest.approx(one.std() / 4, rel=0.3)
    assert abs(many.mean() - one.mean()) < BEYOND * one.std() / 400**0.5


# ---- what is kept, and what belongs to a seed


@pytest.mark.parametrize("chain", [None, SHORT], ids=["no chain", "chain"])
@pytest.mark.parametrize("layers", [(0,), (1,), (2, 1)], ids=str)
def test_kept_layers_are_kept_to_the_bit(ladder: JointModel, layers: tuple[int, ...], chain: Chain | None) -> None:
    """In noise every layer of the rest is that of the frozen draw; those above the group decode from the same z."""
    eps = hierarchy.frozen_noise(ladder, 3, SHORT)
    drawn = hierarchy.resampled(ladder, eps, layers, range(6), chain)
    for index, (new, old) in enumerate(zip(drawn, eps, strict=True)):
        if index in layers:
            assert len({row.numpy().tobytes() for row in new}) == 6
            assert not (new == old).any()
        else:
            assert torch.equal(new, old.expand_as(new))


def test_the_energies_of_the_layers_below_pull_too(ladder: JointModel) -> None:
    """Two chains from one start and one noise, in the EBM prior and in p0, end apart."""
    eps = hierarchy.frozen_noise(ladder, 3, SHORT)
    still = JointModel(ladder.backbone, ladder_experiment("gaussian").build().energy)
    ours, theirs = (hierarchy.resampled(model, eps, [1], range(6), SHORT) for model in (ladder, still))
    assert float((ours[1] - theirs[1]).abs().min()) > 1e-6


@pytest.mark.parametrize("chain", [None, SHORT], ids=["no chain", "chain"])
def test_a_draw_depends_on_its_seed_alone(ladder: JointModel, chain: Chain | None) -> None:
    """Any batch size, order or subset: the same latents and images, for seeds and for images."""
    eps = hierarchy.frozen_noise(ladder, 3, chain)
    whole = gather(hierarchy.resample(ladder, eps, [0, 1], range(8), chain))
    some = gather(hierarchy.resample(ladder, eps, [0, 1], [5, 2, 7], chain, batch_size=2))
    kept = gather(hierarchy.reconstruct_from(ladder, IMAGES, range(8), PartialPosterior(2, chain)))
    few = gather(hierarchy.reconstruct_from(ladder, IMAGES, [5, 2, 7], PartialPosterior(2, chain), batch_size=2))
    for all_of_them, part in ((whole, some), (kept, few)):
        for a, b in zip(all_of_them, part, strict=True):
            torch.testing.assert_close(a[[5, 2, 7]], b, rtol=1e-8, atol=1e-9)
    scores = hierarchy.scores_above(ladder, IMAGES, range(8), PartialPosterior(1, chain), draws=2)
    np.testing.assert_allclose(
        hierarchy.scores_above(ladder, IMAGES, [5, 2, 7], PartialPosterior(1, chain), draws=2, batch_size=2),
        scores[[5, 2, 7]],
    )


@pytest.mark.parametrize("chain", [None, SHORT], ids=["no chain", "chain"])
def test_the_frozen_draw_is_the_image_of_its_seed(ladder: JointModel, chain: Chain | None) -> None:
    """What the panels keep layers of stands on the sheet of samples too; their own draws share nothing with it."""
    eps = hierarchy.frozen_noise(ladder, 7, chain)
    prior = "gaussian-prior" if chain is None else "ebm-prior"
    sheet = gather(sampling.generate(ladder, prior, [6, 7], sampling.Sampler(chain or SHORT)))
    for ours, theirs in zip(ladder.pushed(eps), sheet, strict=True):
        torch.testing.assert_close(ours, theirs[1:], rtol=1e-9, atol=1e-10)
    again = hierarchy.resampled(ladder, eps, [0, 1, 2], [7], chain)
    assert not any((new == old).any() for new, old in zip(again, eps, strict=True))


def test_every_column_keeps_the_same_posterior_sample(ladder: JointModel) -> None:
    """Column 0 is the reconstruction; column k has its z_{>k} to the bit and z_{<=k} of its own."""
    plain = gather(sampling.reconstruct(ladder, IMAGES, range(5), None))
    for k in range(4):
        column = gather(hierarchy.reconstruct_from(ladder, IMAGES, range(5), PartialPosterior(k, SHORT)))
        for index, (ours, theirs) in enumerate(zip(column, plain, strict=True)):
            assert torch.equal(ours, theirs) == (index < 3 - k)


@pytest.mark.parametrize("chain", [None, SHORT], ids=["no chain", "chain"])
def test_a_score_is_the_density_at_its_column(ladder: JointModel, chain: Chain | None) -> None:
    """Breaks if a score's layers were drawn otherwise than a figure's, such as the lower ones by the upper ones' noise.

    That the two have noises of their own shows where z1 is drawn given z2, above.
    """
    x = to_float(torch.from_numpy(IMAGES[:5])).double()
    for k in range(4):
        latents = PartialPosterior(k, chain)
        column = gather(hierarchy.reconstruct_from(ladder, IMAGES, range(5), latents))
        expected = Posterior(ladder.backbone, ladder.energy, x)(column).detach()
        np.testing.assert_allclose(hierarchy.scores_above(ladder, IMAGES, range(5), latents), expected, rtol=1e-9)


def test_a_posterior_chain_takes_the_place_of_an_encoder() -> None:
    """A model without q(z|x) is scored at the ends of its posterior chains."""
    model, chain = linear_model(), Chain(5, 0.05)
    z = model.sample_posterior(to_float(torch.tensor(ROW)), chain, PerImageNoise("posterior", [0]))
    expected = Posterior(model.backbone, model.energy, to_float(torch.tensor(ROW)))(z)
    found = hierarchy.scores_above(model, ROW, [0], PartialPosterior(0, None, chain))
    np.testing.assert_allclose(found, expected.detach().numpy())


def test_energies_at_posterior_samples_are_a_part_of_the_score(ladder: JointModel) -> None:
    """L^{>0} + E is the score of the model without energies, image by image: other draws or another sign break it."""
    plain = JointModel(ladder.backbone, no_energy(3))
    terms = hierarchy.posterior_terms(ladder, IMAGES, range(8), draws=3, batch_size=5)
    energies = terms.energy
    ours, theirs = (
        hierarchy.scores_above(model, IMAGES, range(8), PartialPosterior(0, None), draws=3) for model in (ladder, plain)
    )
    np.testing.assert_allclose(ours + energies, theirs, rtol=1e-9)
    np.testing.assert_allclose(terms.log_likelihood + terms.log_prior, theirs, rtol=1e-9)
    assert np.ptp(energies) > 0.01
    assert np.ptp(terms.log_prior) > 0.01


def test_no_image_has_no_score(ladder: JointModel) -> None:
    """Breaks if a loop over parts of a dataset ended in numpy's error at a part without images."""
    assert hierarchy.scores_above(ladder, IMAGES, [], PartialPosterior(1, None)).shape == (0,)
    assert hierarchy.posterior_terms(ladder, IMAGES, []).energy.shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_literal_score_is_one_number(ladder: JointModel, dtype: torch.dtype) -> None:
    """Breaks if L^{>0} as a sum of its parts rounds otherwise than `scores_above`: stored rows are of that one."""
    model = copy.deepcopy(ladder).to(dtype)
    literal = hierarchy.posterior_terms(model, IMAGES, range(8), draws=3).log_joint
    whole = hierarchy.scores_above(model, IMAGES, range(8), PartialPosterior(0, None), draws=3)
    assert np.array_equal(literal, whole)


# ---- bad input


class Bare(nn.Module):
    """Five methods and no more: a backbone that cannot go on below given layers."""

    latent_shapes = ((2,), (3,))

    def __init__(self, inner: LinearBackbone):
        super().__init__()
        self.inner = inner
        self.prior_log_prob, self.push = inner.prior_log_prob, inner.push
        self.decode, self.posterior = inner.decode, inner.posterior


def test_what_cannot_be_kept_or_drawn_is_a_sentence(ladder: JointModel) -> None:
    """Layers that are none, chains in latents, and a backbone that lacks what keeping its layers needs."""
    eps = hierarchy.frozen_noise(ladder, 0, None)
    for layers in ([], [3], [-1]):
        with pytest.raises(UserError, match="the model's are 0, the top, to 2"):
            hierarchy.resampled(ladder, eps, layers, [0], None)
    in_latents = Chain.from_joint_paper(2, 0.1)
    for call in (
        lambda: hierarchy.frozen_noise(ladder, 0, in_latents),
        lambda: hierarchy.resampled(ladder, eps, [0], [0], in_latents),
        lambda: next(hierarchy.reconstruct_from(ladder, IMAGES, [0], PartialPosterior(1, in_latents))),
    ):
        with pytest.raises(UserError, match="set the chain's space to 'noise'"):
            call()
    for k in (-1, 4):
        with pytest.raises(UserError, match=f"0 to 3, not {k}"):
            hierarchy.scores_above(ladder, IMAGES, [0], PartialPosterior(k, None))
    with pytest.raises(UserError, match="at least one draw"):
        hierarchy.scores_above(ladder, IMAGES, [0], PartialPosterior(0, None), draws=0)
    with pytest.raises(UserError, match="at least one draw"):
        hierarchy.posterior_terms(ladder, IMAGES, [0], draws=0)
    inner = encoded()
    bare = JointModel(Bare(inner.backbone), inner.energy)
    assert len(gather(hierarchy.reconstruct_from(bare, ROW, [0], PartialPosterior(2, None)))) == 2
    with pytest.raises(UserError, match="Bare has no push_below"):
        next(hierarchy.reconstruct_from(bare, ROW, [0], PartialPosterior(1, None)))
