"""torchebm's Langevin sampler on the prior of a model; needs the extra `peers`."""

from collections.abc import Callable

import torch
from torch import Tensor
from torchebm.core import BaseModel  # pyright: ignore[reportMissingImports]
from torchebm.samplers import LangevinDynamics  # pyright: ignore[reportMissingImports]

from jlebm.densities import PriorInLatents
from jlebm.langevin import Chain
from jlebm.latents import Latents
from jlebm.model import JointModel


class _Energy(BaseModel):
    """-log p(z) of the layers side by side in one vector, as torchebm's samplers move one tensor."""

    def __init__(self, model: JointModel, dtype: torch.dtype):
        super().__init__(dtype=dtype)
        self.density = PriorInLatents(model.backbone, model.energy)
        self.widths = [shape[0] for shape in model.backbone.latent_shapes]

    def forward(self, z: Tensor) -> Tensor:
        """Return the energy of each element."""
        return -self.density(z.split(self.widths, dim=1))


class TorchEBM:
    """torchebm's own gradient (by autograd) and steps."""

    def __init__(self, model: JointModel):
        self.dtype = next(model.parameters()).dtype
        self.energy = _Energy(model, self.dtype)

    def value_and_gradient(self, z: Latents) -> tuple[Tensor, Latents]:
        """Return log p(z) and its gradient."""
        joined = torch.cat(z, dim=1)
        with torch.no_grad():
            value = -self.energy(joined)
        return value, (-self.energy.gradient(joined)).split(self.energy.widths, dim=1)

    def run(self, z: Latents, chain: Chain) -> Latents:
        """Run a chain from z."""
        moved = self._sampler(chain).sample(x=torch.cat(z, dim=1), n_steps=chain.steps)
        return moved.split(self.energy.widths, dim=1)

    def timed(self, count: int, chain: Chain) -> Callable[[], object]:
        """Return its sampling from N(0, I)."""
        sampler, width = self._sampler(chain), sum(self.energy.widths)
        return lambda: sampler.sample(dim=width, n_samples=count, n_steps=chain.steps)

    def _sampler(self, chain: Chain) -> LangevinDynamics:
        return LangevinDynamics(self.energy, step_size=chain.epsilon, dtype=self.dtype)
