"""Energies of the latents: one small network per layer, E(z) = sum_i E_i(z_i), or E(z) = sum_i E_i(z_i, z_{>i}).

Sign convention of the whole library: lower energy is more likely, p(z) is proportional to exp(-E(z)) p0(z). The
paper's f_i is the network's output, E_i = -f_i (docs/facts, "Joint EBM prior").
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jlebm.backbones.protocol import Backbone, HasLatentShapes, path_of, push_below
from jlebm.config import Kinds
from jlebm.errors import UserError
from jlebm.latents import Latents, LatentShapes
from jlebm.networks import hooked


class JointEnergy(nn.Module):
    """The energy networks: one per layer, which maps z_i to f_i of shape (batch, 1)."""

    step_sizes: Tensor | None
    """Step size of each layer's chain in whitened noise, top first, if it is adapted while the energies learn: (L,)."""

    def __init__(self, networks: Sequence[nn.Module]):
        """Take the networks of f, top layer first."""
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.register_buffer("step_sizes", None)

    def adapt_from(self, size: float) -> "JointEnergy":
        """Give each layer a step size of its own, which travels with the weights; return these energies."""
        self.step_sizes = torch.full((len(self.networks),), size)
        return self

    def forward(self, z: Latents) -> Float[Tensor, "batch layers"]:
        """Return the energy E_i = -f_i of each layer, top first; their sum is the energy of z.

        Raises:
            UserError: a network returns another shape than (batch, 1).
        """
        negative = [network(layer) for network, layer in zip(self.networks, z, strict=True)]
        if odd := [tuple(one.shape) for one in negative if one.shape != (len(z[0]), 1)]:
            raise UserError(f"an energy network returns {odd[0]} for {len(z[0])} latents, not ({len(z[0])}, 1)")
        return -torch.cat(negative, dim=1)

    def at(self, backbone: Backbone, z: Latents) -> Float[Tensor, "batch layers"]:
        """Return the energy of each layer at latents; these energies need nothing else of the backbone."""
        return self(z)

    def at_noise(
        self, backbone: Backbone, given: Latents, noise: Latents
    ) -> tuple[Latents, Float[Tensor, "batch layers"]]:
        """Return all latents, z = T(eps) below those given, and the energy of each layer there."""
        z = push_below(backbone, given, noise)
        return z, self.at(backbone, z)

    def at_redrawn(
        self, backbone: Backbone, z: Latents, noise: Latents
    ) -> tuple[Float[Tensor, "batch layers"], Float[Tensor, "batch layers"]]:
        """Return the energy of each layer at latents z, and where that layer alone is drawn anew, z_i ~ p0(z_i|z_{>i}).

        Args:
            backbone: a top-down one, whose p0 a layer is drawn from.
            z: all layers.
            noise: whitened noise of the layers that are drawn anew.

        Raises:
            UserError: the backbone has no path.
        """
        return self(z), self(path_of(backbone).redrawn(z, noise).latents)


class PathEnergy(JointEnergy):
    """The energy networks of a top-down backbone: one per layer, which maps the path after it to f_i of (batch, 1).

    The path holds the layer and all above it, so that E(z) = sum_i E_i(z_i, z_{>i}), where the paper's sum is of
    E_i(z_i). Energies of one layer each leave the dependence between layers as p0 has it.
    """

    def at(self, backbone: Backbone, z: Latents) -> Float[Tensor, "batch layers"]:
        """See `JointEnergy`."""
        return self(path_of(backbone).path(z))

    def at_noise(
        self, backbone: Backbone, given: Latents, noise: Latents
    ) -> tuple[Latents, Float[Tensor, "batch layers"]]:
        """See `JointEnergy`; one way down the path gives both."""
        z, path = path_of(backbone).push_path(given, noise)
        return z, self(path)

    def at_redrawn(
        self, backbone: Backbone, z: Latents, noise: Latents
    ) -> tuple[Float[Tensor, "batch layers"], Float[Tensor, "batch layers"]]:
        """See `JointEnergy`; one way down the path gives both."""
        redrawn = path_of(backbone).redrawn(z, noise)
        return self(redrawn.path), self(redrawn.path_below)


class NoEnergy(nn.Module):
    """The zero network, f_i = 0: the layer keeps its Gaussian prior."""

    def forward(self, layer: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch 1"]:
        """Return zeros."""
        return layer.new_zeros(len(layer), 1)


def is_zero(network: nn.Module) -> bool:
    """Whether a layer's network is the zero network itself, to which no hook adds anything."""
    return type(network) is NoEnergy and not hooked(network)


def no_energy(layers: int) -> JointEnergy:
    """Return the zero energy, whose prior is the Gaussian hierarchy; it has no parameters."""
    return JointEnergy([NoEnergy() for _ in range(layers)])


@dataclass(frozen=True)
class EnergyConfig(Kinds):
    """Base class of the energy networks' configurations; a kind is a subclass, here or in a user's code."""

    def build(self, shapes: LatentShapes) -> JointEnergy:
        """Build one network per layer, top first, with weights drawn from torch's global generator.

        Args:
            shapes: shape of each layer's latents, top first, without the batch.

        Raises:
            UserError: the networks do not fit these layers.
        """
        raise NotImplementedError

    def check(self, shapes: LatentShapes) -> None:
        """Refuse layers that the networks do not fit, before anything is trained.

        Raises:
            UserError: a layer does not fit.
        """

    def build_on(self, backbone: Backbone) -> JointEnergy:
        """Build the networks of a backbone's layers; networks that read more of it than their shapes override this.

        Raises:
            UserError: the networks do not fit these layers.
        """
        return self.build(backbone.latent_shapes)

    def check_on(self, backbone: HasLatentShapes) -> None:
        """Refuse a backbone, or the configuration of one, that the networks do not fit, before anything is trained.

        Raises:
            UserError: a layer does not fit.
        """
        self.check(backbone.latent_shapes)
