"""Distributions over images and latents: each has a `log_prob`; a likelihood also has a `mean` and `sample_image`."""

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from jlebm.images import clipped, unless_lost
from jlebm.randomness import Noise

CLAMP = 5.0  # NVAE's soft clamp: 5 tanh(. / 5)
SIGMA_FLOOR = 0.01  # sigma = exp(log sigma) + 0.01 in every Gaussian of the paper (docs/facts, "Gaussian scales")
LEAST_LOG_SCALE = -7.0  # least log scale of a logistic in the discretised mixture
LEAST_MASS = 1e-5  # bins with less probability than this are computed as density times width, not as a difference


@runtime_checkable
class Likelihood(Protocol):
    """A decoder's distribution over images in [-1, 1]."""

    @property
    def mean(self) -> Float[Tensor, "batch channels height width"]:
        """The expected image."""
        ...

    def log_prob(self, value: Float[Tensor, "batch channels height width"]) -> Float[Tensor, " batch"]:
        """Return the log-density, or log-probability, of each image."""
        ...

    def sample_image(self, noise: Noise, temperature: float = 1.0) -> Float[Tensor, "batch channels height width"]:
        """Draw each image from one call of `noise`, clipped to [-1, 1]; temperature 0 gives the most likely image."""
        ...


class Normal(NamedTuple):
    """A diagonal Gaussian; `sigma` broadcasts against `mean`."""

    mean: Float[Tensor, "batch ..."]
    sigma: Float[Tensor, "..."]

    @classmethod
    def from_log_sigma(
        cls, mean: Float[Tensor, "batch ..."], log_sigma: Float[Tensor, "batch ..."], floor: float
    ) -> "Normal":
        """Build from a network's output: sigma = exp(log sigma) + floor (docs/facts, "Gaussian scales")."""
        return cls(mean, log_sigma.exp() + floor)

    def log_prob(self, value: Float[Tensor, "batch ..."]) -> Float[Tensor, " batch"]:
        """Return the log-density of each element of the batch, summed over its dimensions."""
        return self.log_prob_terms(value).flatten(1).sum(1)

    def log_prob_terms(self, value: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """Return the log-density of each dimension."""
        standardised = (value - self.mean) / self.sigma
        return -0.5 * standardised.square() - self.sigma.log() - 0.5 * math.log(2 * math.pi)

    def kl(self, other: "Normal") -> Float[Tensor, " batch"]:
        """Return KL(self | other) of each element of the batch, summed over its dimensions."""
        ratio, shift = self.sigma / other.sigma, (self.mean - other.mean) / other.sigma
        return (0.5 * (ratio.square() + shift.square() - 1) - ratio.log()).flatten(1).sum(1)

    def product(self, other: "Normal") -> "Normal":
        """Return the Gaussian proportional to the product of both densities: precisions add."""
        precision, its_precision = self.sigma.square().reciprocal(), other.sigma.square().reciprocal()
        total = precision + its_precision
        return Normal((precision * self.mean + its_precision * other.mean) / total, total.rsqrt())

    def sample(self, noise: Float[Tensor, "batch ..."], temperature: float = 1.0) -> Float[Tensor, "batch ..."]:
        """Return mean + temperature * sigma * noise, `noise` being standard normal."""
        return self.mean + temperature * self.sigma * noise

    def sample_image(self, noise: Noise, temperature: float = 1.0) -> Float[Tensor, "batch channels height width"]:
        """Draw each image, clipped to [-1, 1]; sigma is multiplied by `temperature`."""
        (eps,) = noise((self.mean,))
        return clipped(self.sample(eps, temperature))

    @classmethod
    def constant_sigma(cls, mean: Float[Tensor, "batch ..."], sigma: float) -> "Normal":
        """Build a Gaussian with one sigma for all dimensions."""
        return cls(mean, mean.new_full((), sigma))


def soft_clamped(mean: Float[Tensor, "batch ..."], log_sigma: Float[Tensor, "batch ..."]) -> Normal:
    """Build a Gaussian as NVAE does: mean and log sigma through 5 tanh(. / 5), a floor under sigma."""
    bounded = [CLAMP * torch.tanh(value / CLAMP) for value in (mean, log_sigma)]
    return Normal.from_log_sigma(bounded[0], bounded[1], SIGMA_FLOOR)


class Bernoulli(NamedTuple):
    """Bernoulli pixels; an image value above 0 is a one."""

    logits: Float[Tensor, "batch channels height width"]

    @property
    def mean(self) -> Float[Tensor, "batch channels height width"]:
        """The expected image, in [-1, 1]."""
        return 2 * torch.sigmoid(self.logits) - 1

    def log_prob(self, value: Float[Tensor, "batch channels height width"]) -> Float[Tensor, " batch"]:
        """Return the log-probability of each image in [-1, 1]; grey values weight both outcomes."""
        return self.log_prob_terms(value).flatten(1).sum(1)

    def log_prob_terms(self, value: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """Return the log-probability of each pixel."""
        return (value + 1) / 2 * self.logits - F.softplus(self.logits)

    def sample_image(self, noise: Noise, temperature: float = 1.0) -> Float[Tensor, "batch channels height width"]:
        """Draw each image of -1 and 1; logits are divided by `temperature`."""
        (eps,) = noise((self.logits,))
        image = torch.where(self.logits + temperature * _logistic(eps) > 0, 1.0, -1.0).to(self.logits)
        return unless_lost(image, ~self.logits.isnan())


class DiscretisedLogisticMixture(NamedTuple):
    """A mixture of discretised logistics over quantised pixels, green given red and blue given both.

    As in the public code, everything above 0.99 counts as the highest level. With 8 bits that includes the second
    highest level, whose probability then contains the highest one's; with 7 bits or fewer all levels sum to one.
    """

    parameters: Float[Tensor, "batch outputs height width"]
    """For each position: the mixture's logits, then means, log scales and coefficients of each colour."""
    mixtures: int
    bits: int

    @property
    def mean(self) -> Float[Tensor, "batch 3 height width"]:
        """The mean image: mean red, mean green given it, and mean blue given both; in [-1, 1]."""
        logits, means, _, coefficients = self._parts()
        weights = torch.softmax(logits, dim=1)[:, None]
        means, coefficients = (means * weights).sum(2), (coefficients * weights).sum(2)
        return _in_turn(means, coefficients, clipped)

    def sample_image(self, noise: Noise, temperature: float = 1.0) -> Float[Tensor, "batch 3 height width"]:
        """Draw each image at 2^bits levels per colour, with the probabilities of `log_prob`.

        As in NVAE, `temperature` divides the mixture's logits and multiplies the logistics' scales. The public code
        leaves colours between the levels, and shifts green and blue by that unrounded red.
        """
        logits, means, log_scales, coefficients = self._parts()
        which, where = noise((logits, means[:, :, 0]))
        gumbel = -torch.log(-torch.special.log_ndtr(which))
        chosen = (logits + temperature * gumbel).argmax(1)[:, None, None].expand(-1, 3, 1, -1, -1)
        means, scales, coefficients = (
            part.gather(2, chosen)[:, :, 0] for part in (means, log_scales.exp(), coefficients)
        )
        largest = 2**self.bits - 1

        def to_level(colour: Tensor) -> Tensor:
            return clipped(((colour + 1) * largest / 2).round(), 0.0, float(largest)) * 2 / largest - 1

        drawn = _in_turn(means + temperature * scales * _logistic(where), coefficients, to_level)
        return unless_lost(drawn, torch.isfinite(logits).all(1, keepdim=True))

    def log_prob(self, value: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, " batch"]:
        """Return the log-probability of each image."""
        return self.log_prob_terms(value).flatten(1).sum(1)

    def log_prob_terms(self, value: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch height width"]:
        """Return the log-probability of each pixel, its three colours together."""
        logits, means, log_scales, coefficients = self._parts()
        red, green = value[:, 0, None], value[:, 1, None]
        shift = torch.stack(
            [
                torch.zeros_like(coefficients[:, 0]),
                coefficients[:, 0] * red,
                coefficients[:, 1] * red + coefficients[:, 2] * green,
            ],
            dim=1,
        )
        largest = 2**self.bits - 1
        centred, precision = value[:, :, None] - means - shift, torch.exp(-log_scales)
        above, below = precision * (centred + 1 / largest), precision * (centred - 1 / largest)
        mass = torch.sigmoid(above) - torch.sigmoid(below)
        middle = precision * centred
        density = middle - log_scales - 2 * F.softplus(middle) - math.log(largest / 2)
        inside = torch.where(mass > LEAST_MASS, mass.clamp(min=1e-10).log(), density)
        whole = value[:, :, None]
        lowest, highest = above - F.softplus(above), -F.softplus(below)
        terms = torch.where(whole < -0.999, lowest, torch.where(whole > 0.99, highest, inside))
        return torch.logsumexp(terms.sum(1) + torch.log_softmax(logits, dim=1), dim=1)

    def _parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        m = self.mixtures
        logits, rest = self.parameters[:, :m], self.parameters[:, m:].unflatten(1, (3, 3 * m))
        means, log_scales, coefficients = rest.split(m, dim=2)
        return logits, means, log_scales.clamp(min=LEAST_LOG_SCALE), torch.tanh(coefficients)


def _in_turn(
    colours: Float[Tensor, "batch 3 height width"],
    coefficients: Float[Tensor, "batch 3 height width"],
    settle: Callable[[Tensor], Tensor],
) -> Float[Tensor, "batch 3 height width"]:
    """Shift green by the drawn red, and blue by both."""
    red = settle(colours[:, 0])
    green = settle(colours[:, 1] + coefficients[:, 0] * red)
    blue = settle(colours[:, 2] + coefficients[:, 1] * red + coefficients[:, 2] * green)
    return torch.stack([red, green, blue], dim=1)


def _logistic(normal: Tensor) -> Tensor:
    """Map standard normal draws to standard logistic ones by quantile; finite in both tails."""
    return torch.special.log_ndtr(normal) - torch.special.log_ndtr(-normal)
