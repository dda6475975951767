"""Distributions over images and latents, each with `log_prob` and `sample`. A likelihood also has a `mean`."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Normal(NamedTuple):
    """A diagonal Gaussian; `sigma` broadcasts against `mean`."""

    mean: Float[Tensor, "batch ..."]
    sigma: Float[Tensor, "..."]

    @classmethod
    def from_log_sigma(
        cls, mean: Float[Tensor, "batch ..."], log_sigma: Float[Tensor, "batch ..."], floor: float
    ) -> "Normal":
        """Build from a network's output with sigma = exp(log sigma) + floor (facts, section 1.7)."""
        return cls(mean, log_sigma.exp() + floor)

    def log_prob(self, value: Float[Tensor, "batch ..."]) -> Float[Tensor, " batch"]:
        """Return the log-density of each element of the batch, summed over its dimensions."""
        standardised = (value - self.mean) / self.sigma
        terms = -0.5 * standardised.square() - self.sigma.log() - 0.5 * math.log(2 * math.pi)
        return terms.flatten(1).sum(1)

    def sample(self, noise: Float[Tensor, "batch ..."], temperature: float = 1.0) -> Float[Tensor, "batch ..."]:
        """Return mean + temperature * sigma * noise, `noise` being standard normal."""
        return self.mean + temperature * self.sigma * noise

    @classmethod
    def constant_sigma(cls, mean: Float[Tensor, "batch ..."], sigma: float) -> "Normal":
        """Build with one sigma for all dimensions."""
        return cls(mean, torch.as_tensor(sigma, dtype=mean.dtype, device=mean.device))
