"""Likelihoods are distributions: probabilities sum to one, samples follow them, means are theirs."""

import math

import pytest
import torch
from scipy.stats import chi2
from torch import Tensor

from jlebm.distributions import Bernoulli, DiscretisedLogisticMixture, Likelihood, Normal
from jlebm.latents import Latents
from jlebm.randomness import Noise, PerImageNoise, SharedNoise

CERTAIN = 50.0  # a mean so far above 1 that the highest level has probability 1


def noise(seed: int = 0) -> Noise:
    return SharedNoise(torch.Generator().manual_seed(seed))


def uniform(low: float, high: float, *shape: int, seed: int = 1) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * (high - low) + low


def mixture(
    logits: Tensor, means: Tensor, log_scales: Tensor, coefficients: Tensor, bits: int, pixels: tuple[int, int] = (1, 1)
) -> DiscretisedLogisticMixture:
    """Return one image of equal pixels; logits (M), the rest (3, M), coefficients as they are after tanh."""
    per_colour = torch.cat([means, log_scales, torch.atanh(coefficients)], dim=1).flatten()
    parameters = torch.cat([logits, per_colour])[None, :, None, None].expand(-1, -1, *pixels)
    return DiscretisedLogisticMixture(parameters, len(logits), bits)


def some_mixture(bits: int, pixels: tuple[int, int] = (1, 1), size: int = 3) -> DiscretisedLogisticMixture:
    """Return components with a wide red and a narrow green and blue, which tell what they are shifted by."""
    means, scales = uniform(-0.7, 0.7, 3, size), uniform(-2.6, -1.6, 3, size, seed=2)
    scales[1:] -= 2
    return mixture(uniform(-1, 1, size, seed=3), means, scales, uniform(-0.8, 0.8, 3, size, seed=4), bits, pixels)


def levels(bits: int) -> Tensor:
    return torch.linspace(-1, 1, 2**bits, dtype=torch.float64)


def one_colour(bits: int, colour: int, mean: float, log_scale: float) -> Tensor:
    """Return the probability of every level of one colour, given that the other two are certain to be 1."""
    means = torch.full((3, 2), CERTAIN, dtype=torch.float64)
    coefficients = torch.tensor([[0.3, -0.2], [0.1, -0.4], [0.2, 0.3]], dtype=torch.float64)
    shift = (torch.zeros(2), coefficients[0], coefficients[1] + coefficients[2])[colour]  # of what is at 1 before it
    means[colour] = torch.tensor([mean, mean + 0.1], dtype=torch.float64) - shift
    log_scales = torch.full((3, 2), log_scale, dtype=torch.float64)
    one = mixture(uniform(-1, 1, 2), means, log_scales, coefficients, bits, (1, 2**bits))
    image = torch.ones(1, 3, 1, 2**bits, dtype=torch.float64)
    image[0, colour, 0] = levels(bits)
    return one.log_prob_terms(image)[0, 0].exp()


# ---- probabilities


@pytest.mark.parametrize("bits", [5, 8])
@pytest.mark.parametrize("colour", [0, 1, 2])
@pytest.mark.parametrize("mean", [-1.2, 0.0])
def test_levels_of_a_colour_sum_to_one(bits: int, colour: int, mean: float) -> None:
    """A bin of another width, an extreme one without its tail, or a wrong shift of green or blue breaks it."""
    probabilities = one_colour(bits, colour, mean, -3.0)
    # Bins below 1e-5 take the density in their middle times their width, which is their mass to a few percent.
    torch.testing.assert_close(probabilities.sum().item(), 1.0, rtol=0, atol=1e-5)
    where = (probabilities * levels(bits)).sum().item()
    assert where == pytest.approx(-1.0 if mean < -1 else 0.05, abs=0.05)


def test_bright_levels_of_8_bits_count_the_highest_one_twice() -> None:
    """The public code's threshold of 0.99 is below level 254: its numbers are kept, and the excess is just that."""
    eight, five = one_colour(8, 0, 0.9, -3.0), one_colour(5, 0, 0.9, -3.0)
    assert eight[-1] > 0.05
    torch.testing.assert_close(eight.sum(), 1 + eight[-1], rtol=0, atol=1e-5)
    torch.testing.assert_close(five.sum().item(), 1.0, rtol=0, atol=1e-5)


def test_a_logistic_has_a_least_scale() -> None:
    """Breaks if a log scale below -7 counted, which it does not in the public code: levels beside it would be lost."""
    found = [one_colour(5, 0, 0.0, log_scale) for log_scale in (-20.0, -7.0)]
    torch.testing.assert_close(found[0].log(), found[1].log(), rtol=0, atol=0)
    assert found[0].log().min() < -100


def test_all_colours_together_sum_to_one() -> None:
    """Three components, 32^3 colours: a mixture that is chosen anew for each colour breaks it."""
    r, g, b = torch.meshgrid(levels(5), levels(5), levels(5), indexing="ij")
    every = torch.stack([r, g, b]).reshape(1, 3, 32, -1)
    total = some_mixture(5, (32, 32 * 32)).log_prob_terms(every).exp().sum()
    torch.testing.assert_close(total.item(), 1.0, rtol=0, atol=1e-5)


def test_both_values_of_a_pixel_sum_to_one() -> None:
    """Of every Bernoulli pixel, up to where torch's softplus is cut off."""
    one = Bernoulli(torch.linspace(-20, 20, 81, dtype=torch.float64).reshape(1, 1, 9, 9))
    ones = torch.ones_like(one.logits)
    total = torch.logaddexp(one.log_prob_terms(ones), one.log_prob_terms(-ones))
    torch.testing.assert_close(total, torch.zeros_like(total), rtol=0, atol=1e-13)


def test_gaussian_divergence_and_density_are_torchs() -> None:
    """KL(q|p) with sigma, not variance; a swapped direction breaks it."""
    parts = [uniform(low, high, 4, 3, 2, 2, seed=seed) for seed, (low, high) in enumerate([(-2, 2), (0.1, 3)] * 2)]
    q, p = Normal(*parts[:2]), Normal(*parts[2:])
    theirs = [torch.distributions.Normal(each.mean, each.sigma) for each in (q, p)]
    expected = torch.distributions.kl_divergence(*theirs).flatten(1).sum(1)
    torch.testing.assert_close(q.kl(p), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(q.kl(q), torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-13)
    torch.testing.assert_close(q.log_prob(p.mean), theirs[0].log_prob(p.mean).flatten(1).sum(1))


# ---- samples


def chi_square(counts: Tensor, expected: Tensor) -> float:
    """Return the p-value of counts; cells of fewer than 10 expected ones are put together."""
    large = expected >= 10
    observed = torch.cat([counts[large], counts[~large].sum()[None]])
    hoped = torch.cat([expected[large], expected[~large].sum()[None]])
    statistic = ((observed - hoped).square() / hoped).sum()
    return float(chi2.sf(statistic.item(), len(observed) - 1))


def test_levels_are_drawn_as_often_as_they_are_probable() -> None:
    """Red with green, and green with blue, of 400,000 pixels.

    Colours that are shifted by a red between the levels, or a component chosen for each colour apart, break it.
    """
    size = (400, 1000)
    drawn = some_mixture(5, size).sample_image(noise(1))
    index = ((drawn[0] + 1) * 31 / 2).round().long().flatten(1)
    torch.testing.assert_close(levels(5)[index], drawn[0].flatten(1), rtol=0, atol=1e-12)
    r, g, b = torch.meshgrid(levels(5), levels(5), levels(5), indexing="ij")
    every = torch.stack([r, g, b]).reshape(1, 3, 32, -1)
    joint = some_mixture(5, (32, 32 * 32)).log_prob_terms(every).exp().reshape(32, 32, 32)
    for first, second, summed in ((0, 1, 2), (1, 2, 0)):
        counts = torch.bincount(32 * index[first] + index[second], minlength=32 * 32).double()
        assert chi_square(counts, size[0] * size[1] * joint.sum(summed).flatten()) > 0.01


def standard_errors(samples: Tensor, mean: Tensor) -> Tensor:
    """Return how many standard errors the mean over the pixels of each colour is away from `mean`."""
    flat = samples[0].flatten(1)
    return (flat.mean(1) - mean[0].flatten(1)[:, 0]).abs() / (flat.std(1) / math.sqrt(flat.shape[1]))


def common_coefficients() -> DiscretisedLogisticMixture:
    means, scales = uniform(-0.1, 0.1, 3, 3), torch.full((3, 3), -4.0, dtype=torch.float64)
    shared = torch.tensor([[0.5], [-0.3], [0.4]], dtype=torch.float64).expand(3, 3)
    return mixture(uniform(-1, 1, 3), means, scales, shared, 8, (500, 500))


@pytest.mark.parametrize(
    "likelihood",
    [
        Normal.constant_sigma(torch.tensor(0.2, dtype=torch.float64).expand(1, 1, 500, 500), 0.1),
        Bernoulli(torch.tensor(0.7, dtype=torch.float64).expand(1, 1, 500, 500)),
        common_coefficients(),
    ],
    ids=["normal", "bernoulli", "mixture"],
)
def test_samples_have_the_mean(likelihood: Likelihood) -> None:
    """Where `mean` is the distribution's own: a draw that is off by half a level, or one-sided, breaks it.

    Nothing is clipped there, a logistic spans several levels, and all components shift by the same coefficients, since
    the mean of a product is not that of the factors.
    """
    samples = likelihood.sample_image(noise())
    assert samples.shape == likelihood.mean.shape
    assert standard_errors(samples, likelihood.mean).max() < 3.5


def test_temperature_is_a_narrower_distribution_of_the_same_kind() -> None:
    """The same noise at temperature t gives what t sigma, logits / t and t scales give.

    A decoder that ignores its temperature, as the public Gaussian one does, breaks it.
    """
    t = 0.6
    mean, log_sigma = uniform(-0.9, 0.9, 2, 3, 4, 4), uniform(-2, 0, 2, 3, 4, 4, seed=2)
    logits = uniform(-2, 2, 2, 1, 40, 40)
    m, p = 4, uniform(-1.5, 1.5, 2, 40, 16, 16)
    cooled = p.clone()
    cooled[:, :m] /= t
    colours = cooled[:, m:].unflatten(1, (3, 3 * m))
    colours[:, :, m : 2 * m] += math.log(t)
    pairs: list[tuple[Likelihood, Likelihood]] = [
        (Normal(mean, log_sigma.exp()), Normal(mean, t * log_sigma.exp())),
        (Bernoulli(logits), Bernoulli(logits / t)),
        (DiscretisedLogisticMixture(p, m, 5), DiscretisedLogisticMixture(cooled, m, 5)),
    ]
    for warm, cold in pairs:
        at_temperature = warm.sample_image(noise(), t)
        torch.testing.assert_close(at_temperature, cold.sample_image(noise()), rtol=0, atol=1e-12)
        assert not torch.allclose(at_temperature, warm.sample_image(noise()))


def test_at_temperature_zero_the_noise_does_not_matter() -> None:
    """The mean of a Gaussian, the likelier value of a bit, the likeliest component's levels; and nothing is NaN."""
    logits = uniform(-2, 2, 2, 1, 4, 4)
    mixed = some_mixture(8, (2, 2))
    assert torch.equal(Bernoulli(logits).sample_image(noise(), 0.0), logits.sign())
    mean = uniform(-2, 2, 2, 3, 4, 4)
    assert torch.equal(Normal.constant_sigma(mean, 0.5).sample_image(noise(), 0.0), mean.clamp(-1, 1))
    assert torch.equal(mixed.sample_image(noise(1), 0.0), mixed.sample_image(noise(2), 0.0))
    assert mixed.sample_image(noise(1), 0.0).isfinite().all()


def farthest(like: Latents) -> Latents:
    """Return the farthest normals that float32 draws make, and some beyond them."""
    values = torch.tensor([-12.0, 12.0, -6.0, 6.0, 0.0])
    return tuple(values.repeat(layer.numel())[: layer.numel()].reshape(layer.shape).to(layer) for layer in like)


def test_images_stay_in_range_in_the_tails_of_the_noise() -> None:
    """An infinity from a uniform number that rounds to 0 or 1, or a colour outside [-1, 1], breaks it."""
    wide = uniform(-6, 6, 2, 40, 5, 5).float()
    likelihoods: list[Likelihood] = [
        Normal(wide, wide.abs()),
        Bernoulli(wide),
        DiscretisedLogisticMixture(wide, 4, 5),
        DiscretisedLogisticMixture(wide, 4, 8),
    ]
    for likelihood in likelihoods:
        drawn = likelihood.sample_image(farthest)
        assert drawn.dtype == torch.float32
        assert drawn.isfinite().all()
        assert drawn.abs().max() <= 1
        assert isinstance(likelihood, Likelihood)


def test_an_image_depends_on_its_own_seed_alone() -> None:
    """A draw that is shared by a batch breaks it."""
    parameters = uniform(-1.5, 1.5, 3, 40, 4, 4).float()
    logits = parameters[:, :1]
    for build in (
        lambda rows: DiscretisedLogisticMixture(parameters[rows], 4, 8),
        lambda rows: Bernoulli(logits[rows]),
        lambda rows: Normal.constant_sigma(logits[rows], 0.3),
    ):
        together = build([0, 1, 2]).sample_image(PerImageNoise("sample", range(3)))
        alone = build([2]).sample_image(PerImageNoise("sample", [2]))
        assert torch.equal(together[2:], alone)


def test_a_product_of_gaussians_is_the_product_of_their_densities() -> None:
    """Up to a constant that does not depend on the value: precisions that do not add up break it."""
    first = Normal(uniform(-1, 1, 2, 3), uniform(0.2, 1, 2, 3, seed=2))
    second = Normal(uniform(-1, 1, 2, 3, seed=3), uniform(0.2, 1, 2, 3, seed=4))

    def excess(value: Tensor) -> Tensor:
        return first.log_prob(value) + second.log_prob(value) - first.product(second).log_prob(value)

    torch.testing.assert_close(excess(uniform(-2, 2, 2, 3, seed=5)), excess(uniform(-2, 2, 2, 3, seed=6)))
