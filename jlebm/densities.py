"""Log-densities that chains sample, each up to a constant that does not depend on the position.

- `PriorInLatents` moves in z: -E(z) + log p0(z)
- `PriorInNoise` moves in eps, with z = T(eps): -E(T(eps)) - 1/2 sum eps^2
- `Posterior` moves in z: log p(x|z) - E(z) + log p0(z)
- `SomeLayers` moves in some layers of one of these, the other layers fixed
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from jlebm.backbones.protocol import Backbone, log_likelihood
from jlebm.choices import Drift
from jlebm.energies import JointEnergy
from jlebm.engines.precision import Precision, in_bf16
from jlebm.latents import Latents, standard_normal_log_prob

LogDensity: TypeAlias = Callable[[Latents], Float[Tensor, " batch"]]
"""Returns the log-density of a position, (batch,), up to a constant."""


@runtime_checkable
class HasStepSizes(Protocol):
    """The protocol of a density whose layers may each have a step size of their own."""

    def step_sizes(self) -> Float[Tensor, " layers"] | None:
        """Return the step size of each layer that moves; None if none was adapted."""
        ...


def step_sizes_of(density: LogDensity) -> Float[Tensor, " layers"] | None:
    """Return the adapted step sizes of a density's layers; None if it has none."""
    return density.step_sizes() if isinstance(density, HasStepSizes) else None


@dataclass(frozen=True)
class PriorInLatents:
    """log p(z) of the joint EBM prior, up to log Z (docs/facts, "Joint EBM prior")."""

    backbone: Backbone
    energy: JointEnergy

    def __call__(self, z: Latents) -> Float[Tensor, " batch"]:
        """Return -E(z) + log p0(z)."""
        return self.backbone.prior_log_prob(z) - self.energy.at(self.backbone, z).sum(1)


@dataclass(frozen=True)
class PriorInNoise:
    """The same prior in the whitened noise of the hierarchy, z = T(eps) (docs/facts, "Whitened noise").

    `exact` keeps N(0, I) invariant where the energy is zero: the Jacobian of T cancels the conditionals' log sigma.
    `released` is what the public two-stage code differentiates, log p0(T(eps)) without the log-Jacobian.
    """

    backbone: Backbone
    energy: JointEnergy
    drift: Drift = "exact"
    given: Latents = ()
    """Fixed latents of the upper layers: the density is that of the noise of the layers below, given them."""
    precision: Precision = "float32"
    """Arithmetic of all networks, those of T, E and p0; bf16 runs them under autocast (`Chain.precision`)."""

    def __call__(self, noise: Latents) -> Float[Tensor, " batch"]:
        """Return -E(T(eps)) plus the base term of the chosen drift."""
        with in_bf16(noise[0].device) if self.precision == "bf16" else nullcontext():
            z, energies = self.energy.at_noise(self.backbone, self.given, noise)
            released = None if self.drift == "exact" else self.backbone.prior_log_prob(z)
        base = standard_normal_log_prob(noise) if released is None else released.to(noise[0].dtype)
        return base - energies.to(base.dtype).sum(1)  # rounded layer by layer, summed in float32

    def step_sizes(self) -> Float[Tensor, " layers"] | None:
        """Return the adapted step sizes of the layers that move, top first; None if the energies have none."""
        sizes = self.energy.step_sizes
        return None if sizes is None else sizes[len(self.given) :]


@dataclass(frozen=True)
class SomeLayers:
    """A density of some layers given the others: a chain moves these layers alone."""

    density: LogDensity
    held: Latents
    """Latents of all layers; the fixed layers keep these values."""
    layers: tuple[int, ...]
    """Indices of the layers that move, counted from the top: z_L is 0."""

    def __call__(self, moving: Latents) -> Float[Tensor, " batch"]:
        """Return the density of all layers."""
        return self.density(self.whole(moving))

    def whole(self, moving: Latents) -> Latents:
        """Return all layers, with the moving ones inserted."""
        found = list(self.held)
        for index, layer in zip(self.layers, moving, strict=True):
            found[index] = layer
        return tuple(found)

    def step_sizes(self) -> Float[Tensor, " layers"] | None:
        """Return the adapted step sizes of the layers that move; None if the energies have none."""
        sizes = step_sizes_of(self.density)
        return None if sizes is None else sizes[list(self.layers)]


@dataclass(frozen=True)
class Posterior:
    """log p(z|x) up to log p(x), for a batch of images x in [-1, 1]; row i of z belongs to image i."""

    backbone: Backbone
    energy: JointEnergy
    x: Float[Tensor, "batch channels height width"]

    def __call__(self, z: Latents) -> Float[Tensor, " batch"]:
        """Return log p(x|z) - E(z) + log p0(z)."""
        return self.log_likelihood(z) + self.backbone.prior_log_prob(z) - self.energy.at(self.backbone, z).sum(1)

    def log_likelihood(self, z: Latents) -> Float[Tensor, " batch"]:
        """Return log p(x|z)."""
        return log_likelihood(self.backbone, z, self.x)
