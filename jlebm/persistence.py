"""Persistent chains: the prior's chains of one update go on where those of an earlier one ended.

Short chains from fresh noise sample what they reach, not the density; chains that go on are as long as the training
(Tieleman, 2008, "Training restricted Boltzmann machines using approximations to the likelihood gradient"), and a small
share of them restarts so that none stays in a mode for good (Du and Mordatch, 2019, arXiv 1903.08689). They are kept in
whitened noise, where a restart is a draw from N(0, I) and where they outlast a backbone's scale.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from jlebm.errors import UserError
from jlebm.latents import Latents, LatentShapes, layer_names, map_latents
from jlebm.randomness import Noise


@dataclass(frozen=True)
class Persistence:
    """How many chains are kept, and how many of them begin anew."""

    chains: int = 1_000
    restarts: float = 0.05
    """Share of an update's chains that begin anew from N(0, I)."""

    def __post_init__(self) -> None:
        """Refuse a share that is none."""
        if not 0 <= self.restarts <= 1:
            raise UserError(f"the share of chains that begin anew must lie between 0 and 1, not be {self.restarts}")


class PersistentChains:
    """The chains between two updates, which a checkpoint holds and weights do not."""

    def __init__(self, config: Persistence, shapes: LatentShapes, device: torch.device):
        """Draw every chain from N(0, I) by torch's global generator."""
        self.config = config
        self.noise: Latents = tuple(torch.randn(config.chains, *shape).to(device) for shape in shapes)

    def chosen(self, step: int, count: int) -> Int64[Tensor, " count"]:
        """Return the indices of the chains of an update: all of them in turn."""
        first = torch.arange(step * count, (step + 1) * count, device=self.noise[0].device)
        return first % self.config.chains

    def begin(self, indices: Int64[Tensor, " count"], noise: Noise) -> Latents:
        """Return the starting points of these chains: their last positions, or for a share of them N(0, I)."""
        ended = tuple(layer[indices] for layer in self.noise)
        fresh, drawn = noise(ended), noise((ended[0].new_empty(len(indices), 1),))[0][:, 0]
        anew = torch.special.ndtr(drawn) < self.config.restarts  # the distribution function of a normal is uniform
        return map_latents(lambda a, b: torch.where(anew.reshape(-1, *[1] * (a.dim() - 1)), a, b), fresh, ended)

    def keep(self, indices: Int64[Tensor, " count"], ends: Latents) -> None:
        """Keep the last positions of these chains."""
        for layer, end in zip(self.noise, ends, strict=True):
            layer[indices] = end

    def state_dict(self) -> dict[str, Tensor]:
        """Return the chains by layer."""
        return dict(zip(layer_names(len(self.noise)), self.noise, strict=True))

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state_dict` returned."""
        for name, layer in zip(layer_names(len(self.noise)), self.noise, strict=True):
            layer.copy_(state[name])
