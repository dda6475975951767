"""Energies of the latents: one small network a layer, E(z) = sum_i E_i(z_i).

The sign convention of the whole library: lower energy is more likely, p(z) is proportional to exp(-E(z)) p0(z). The
paper's f_i is the network's output itself, E_i = -f_i (facts, section 1.1).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jlebm.latents import Latents
from jlebm.networks import mlp


class JointEnergy(nn.Module):
    """One network a layer; each maps its layer to f_i of shape (batch, 1)."""

    def __init__(self, networks: Sequence[nn.Module]):
        """Take the networks of f, top layer first."""
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, z: Latents) -> Float[Tensor, "batch layers"]:
        """Return the energy E_i = -f_i of each layer, top first; their sum is the energy of z."""
        negative = [network(layer) for network, layer in zip(self.networks, z, strict=True)]
        return -torch.cat(negative, dim=1)


def mlp_energy(dims: Sequence[int], hidden: Sequence[Sequence[int]]) -> JointEnergy:
    """Return one multi-layer perceptron a layer of vector latents, top first.

    Args:
        dims: dimensions of each layer.
        hidden: hidden units of each layer's network; the paper's for CIFAR-10 are ((100, 100), (200, 200, 200)).
    """
    return JointEnergy([mlp(dim, units, outputs=1) for dim, units in zip(dims, hidden, strict=True)])
