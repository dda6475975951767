"""The ladder: its density against its sampler, its posterior against its draws, its KLs against the draws' mean."""

import dataclasses
import math

import pytest
import torch

from jlebm.backbones.ladder import LadderBackbone, LadderConfig
from jlebm.backbones.protocol import Backbone, HasMLPHierarchy, HasPushBelow
from jlebm.densities import PriorInLatents
from jlebm.energies import mlp_energy
from jlebm.engines.gradients import Autograd, field_of
from jlebm.errors import UserError
from jlebm.latents import Latents, standard_normal_log_prob

SMALL = LadderConfig((1, 8, 8), latent_dims=(2, 3, 4), channels=(6, 5), conditional_hidden=(7,), features=9)


@pytest.fixture
def backbone() -> LadderBackbone:
    return built()


def built(**changes) -> LadderBackbone:
    torch.manual_seed(3)
    return LadderBackbone(dataclasses.replace(SMALL, **changes)).double()


def noise(batch: int, seed: int = 0) -> Latents:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(batch, d, generator=generator, dtype=torch.float64) for d in SMALL.latent_dims)


def images(batch: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(batch, 1, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


def joined(z: Latents) -> torch.Tensor:
    return torch.cat([layer[0] for layer in z])


def parts(flat: torch.Tensor) -> Latents:
    return tuple(part[None] for part in flat.split(SMALL.latent_dims))


def log_determinant(function, at: torch.Tensor) -> torch.Tensor:
    return torch.linalg.slogdet(torch.autograd.functional.jacobian(function, at))[1]


def test_push_and_prior_log_prob_agree_by_change_of_variables(backbone: LadderBackbone) -> None:
    """Log p0(T(eps)) = log N(eps) - log |det dT/deps|: a sigma that is read differently by the two breaks it."""
    for seed in range(3):
        eps = noise(1, seed)
        determinant = log_determinant(lambda flat: joined(backbone.push(parts(flat))), joined(eps))
        expected = standard_normal_log_prob(eps)[0] - determinant
        torch.testing.assert_close(backbone.prior_log_prob(backbone.push(eps))[0], expected, rtol=1e-12, atol=1e-12)


def test_posterior_log_prob_is_the_density_of_its_draws(backbone: LadderBackbone) -> None:
    """Log q(z|x) by change of variables: a layer drawn from another Gaussian than it is weighed by breaks it."""
    x, eps = images(1), noise(1)

    def draw(flat: torch.Tensor) -> torch.Tensor:
        return joined(backbone.posterior(x, lambda like: parts(flat)).latents)

    expected = standard_normal_log_prob(eps)[0] - log_determinant(draw, joined(eps))
    found = backbone.posterior(x, lambda like: eps).log_prob[0]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_the_kl_of_the_layers_is_the_mean_of_the_log_ratio(backbone: LadderBackbone) -> None:
    """E_q[log q - log p0] is the expectation of the KLs' sum: a layer held against another's prior breaks it."""
    x, count = images(1), 20_000
    sample = backbone.posterior(x.expand(count, -1, -1, -1), lambda like: noise(count))
    assert sample.kl is not None
    assert sample.kl.shape == (3, count)
    difference = sample.log_prob - backbone.prior_log_prob(sample.latents) - sample.kl.sum(0)
    assert abs(float(difference.mean())) < 4 * float(difference.std()) / count**0.5
    assert float(sample.kl.mean(1).min()) > 20 * float(difference.std()) / count**0.5, "KLs of zero would prove nothing"


def test_the_posterior_is_the_prior_times_the_proposal(backbone: LadderBackbone) -> None:
    """Sonderby et al. (2016): precisions add up, and means are weighed by them."""
    x, eps = images(2), noise(2)
    sample = backbone.posterior(x, lambda like: eps)
    for index, proposal in enumerate(backbone.bottom_up(x)):
        prior = backbone.conditional(sample.latents[:index], eps[index])
        precision = 1 / prior.sigma**2 + 1 / proposal.sigma**2
        mean = (prior.mean / prior.sigma**2 + proposal.mean / proposal.sigma**2) / precision
        torch.testing.assert_close(sample.latents[index], mean + eps[index] * precision**-0.5)


def test_a_layer_that_the_image_says_nothing_about_has_no_kl(backbone: LadderBackbone) -> None:
    """The widest proposal leaves the prior as it is, and a collapsed layer is seen: its KL is none, no other's."""
    with torch.no_grad():
        backbone.bottom_up.proposals[1].network[0].bias[3:] = 40.0  # log sigma of the middle layer
        sample = backbone.posterior(images(5), lambda like: noise(5))
    assert sample.kl is not None
    assert float(sample.kl[1].abs().max()) < 1e-6
    assert float(sample.kl[[0, 2]].min()) > 1e-2


@pytest.mark.parametrize("kept", [0, 1, 2, 3])
def test_push_below_keeps_what_it_is_given(backbone: LadderBackbone, kept: int) -> None:
    """Given the top layers of a draw and the noise of the others it is that draw, and what is given is not touched."""
    assert isinstance(backbone, HasPushBelow)
    eps = noise(4)
    whole = backbone.push(eps)
    again = backbone.push_below(whole[:kept], eps[kept:])
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))
    assert all(a is b for a, b in zip(whole[:kept], again[:kept], strict=True))


def test_the_image_sees_every_layer(backbone: LadderBackbone) -> None:
    """The top layer reaches the image directly, not only through the layers below it; so do the others."""
    z = tuple(layer.detach().requires_grad_() for layer in backbone.push(noise(2)))
    gradients = torch.autograd.grad(backbone.decode(z).mean.square().sum(), z)
    assert all(float(gradient.abs().min()) > 0 for gradient in gradients)


@torch.no_grad()
@pytest.mark.slow
def test_at_first_every_layer_is_seen_in_the_image() -> None:
    """Each layer alone moves an untrained image about as much as any other: one that shrinks on its way is given up.

    The least seen is the top layer, eighty times less than the bottom one, with weights as torch draws them.
    """
    torch.manual_seed(0)
    network = LadderBackbone(LadderConfig()).double()
    count = 200
    still = tuple(torch.zeros(count, dim, dtype=torch.float64) for dim in network.latent_dims)
    origin = network.decoder(still)
    spreads = []
    for index, layer in enumerate(still):
        eps = torch.randn(layer.shape, generator=torch.Generator().manual_seed(index), dtype=torch.float64)
        moved = tuple(eps if i == index else other for i, other in enumerate(still))
        spreads.append(float((network.decoder(moved) - origin).std()))
    assert max(spreads) < 3 * min(spreads)


@pytest.mark.parametrize(
    ("dims", "levels"),
    [((2, 3), (0, 1)), ((2,) * 3, (0, 1, 2)), ((2,) * 4, (0, 0, 1, 2)), ((2,) * 9, (0, 0, 0, 1, 1, 1, 2, 2, 2))],
)
def test_layers_enter_from_the_top_down(dims: tuple[int, ...], levels: tuple[int, ...]) -> None:
    """The top layer enters at the smallest feature maps, and no layer before one above it."""
    config = dataclasses.replace(SMALL, latent_dims=dims, channels=(6, 5, 4))
    assert config.entry_levels() == levels


@pytest.mark.parametrize(
    ("shape", "channels"), [((1, 28, 28), (6, 5, 4)), ((3, 32, 32), (6, 5, 4, 3)), ((3, 64, 64), (6, 5, 4, 3))]
)
def test_images_of_every_size_of_the_paper(shape: tuple[int, int, int], channels: tuple[int, ...]) -> None:
    """28x28 grey, 32x32 and 64x64 colour: the mean is an image in [-1, 1], and the encoder takes it back."""
    backbone = built(image_shape=shape, channels=channels)
    assert isinstance(backbone, Backbone)
    mean = backbone.decode(backbone.push(noise(2))).mean
    assert mean.shape == (2, *shape)
    assert mean.abs().max() < 1
    latents = backbone.posterior(mean, lambda like: noise(2)).latents
    assert [tuple(layer.shape[1:]) for layer in latents] == list(backbone.latent_shapes)


def test_binary_pixels_are_a_bernoulli() -> None:
    """The log-probabilities of a black and of a white pixel are those of the mean's probability."""
    backbone = built(likelihood="bernoulli")
    likelihood = backbone.decode(backbone.push(noise(3)))
    one = (likelihood.mean + 1) / 2
    torch.testing.assert_close(likelihood.log_prob(torch.ones_like(one)), one.log().sum((1, 2, 3)))
    torch.testing.assert_close(likelihood.log_prob(-torch.ones_like(one)), (1 - one).log().sum((1, 2, 3)))


def test_its_prior_is_not_taken_for_plain_perceptrons(backbone: LadderBackbone) -> None:
    """The soft clamp has a gradient of its own, which the one written out for perceptrons lacks."""
    assert not isinstance(backbone, HasMLPHierarchy)
    energy = mlp_energy(SMALL.latent_dims, ((5,),) * 3).double()
    assert isinstance(field_of(PriorInLatents(backbone, energy)), Autograd)


def test_no_network_makes_a_gaussian_that_is_none(backbone: LadderBackbone) -> None:
    """Outputs of any size leave means within 5 and log sigmas within 5: draws, KLs and gradients stay finite."""
    with torch.no_grad():
        for module in (*backbone.conditionals, *backbone.bottom_up.proposals):
            module.network[-1].weight.mul_(1e6)
    sample = backbone.posterior(images(6), lambda like: noise(6))
    z = backbone.push(noise(6))
    assert sample.kl is not None
    for index in range(1, 3):
        conditional = backbone.conditional(z[:index], z[index])
        assert conditional.mean.abs().max() <= 5
        assert conditional.sigma.max() <= math.exp(5) + 0.01
    total = sample.kl.sum() + sum(layer.sum() for layer in z)
    gradients = torch.autograd.grad(total, [*backbone.parameters()], allow_unused=True)
    assert torch.isfinite(total)
    assert all(torch.isfinite(gradient).all() for gradient in gradients if gradient is not None)


def test_each_image_has_a_posterior_of_its_own(backbone: LadderBackbone) -> None:
    """A reduction over the batch would couple the elements."""
    x, eps = images(4), noise(4)
    whole = backbone.posterior(x, lambda like: eps)
    for i in range(4):
        alone = backbone.posterior(x[i : i + 1], lambda like, i=i: tuple(layer[i : i + 1] for layer in eps))
        torch.testing.assert_close(alone.log_prob[0], whole.log_prob[i], rtol=1e-12, atol=1e-12)
        for a, b in zip(alone.latents, whole.latents, strict=True):
            torch.testing.assert_close(a[0], b[i], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"image_shape": (3, 32, 30)}, "does not fit"),
        ({"image_shape": (1, 28, 28), "channels": (4, 4, 4, 4)}, "divisible by 8"),
        ({"latent_dims": (4,)}, "at least two layers"),
        ({"likelihood_sigma": 0.0}, "likelihood_sigma must be positive"),
        ({"likelihood": "bernoulli", "image_shape": (3, 8, 8)}, "grey images, not for 3 channels"),
    ],
)
def test_impossible_sizes_are_refused(change: dict, sentence: str) -> None:
    """Sizes that make no ladder are bad input, said in a sentence."""
    with pytest.raises(UserError, match=sentence):
        dataclasses.replace(SMALL, **change)
