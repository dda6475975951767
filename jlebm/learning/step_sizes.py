"""Step sizes that follow the acceptance of a Metropolis-corrected move, layer by layer, while the energies learn.

One step size for all layers is that of the stiffest one, and the others hardly move. Here each layer's size rises while
a move of that layer alone would be accepted more often than asked for, and falls otherwise; the chains themselves stay
uncorrected. Between 0.6 and 0.9 the uncorrected chain is near its density and still moves; MALA's own optimum is 0.574
(Roberts and Rosenthal, 1998, "Optimal scaling of discrete approximations to Langevin diffusions").
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from jlebm.densities import LogDensity
from jlebm.engines.gradients import Field, field_of
from jlebm.errors import UserError
from jlebm.langevin import Chain
from jlebm.latents import Latents
from jlebm.moves import log_acceptance, move
from jlebm.randomness import Noise
from jlebm.trajectories import Point, follow, log_ratio


@dataclass(frozen=True)
class Adaptation:
    """How step sizes follow the acceptance."""

    acceptance: float = 0.75
    """Acceptance that each layer's size is led to."""
    every: int = 10
    """Updates from one probe to the next, if all of them run chains; else the next that does."""
    factor: float = 1.15
    """Factor by which a size rises or falls at a probe."""
    least: float = 1e-3
    """Smallest size; the largest is the chain's epsilon."""

    def __post_init__(self) -> None:
        """Refuse an adaptation that leads nowhere."""
        if not 0 < self.acceptance < 1:
            raise UserError(f"the acceptance that step sizes follow must lie between 0 and 1, not be {self.acceptance}")
        if self.every < 1 or not self.factor > 1 or not self.least > 0:
            raise UserError(
                "adaptation.every must be at least 1, adaptation.factor above 1 and adaptation.least positive"
            )

    def check(self, epsilon: float, chains_every: int, parts: int) -> None:
        """Refuse a training in which it does not do what it says.

        Args:
            epsilon: of the chains, the largest size.
            chains_every: updates from one with chains to the next.
            parts: of a batch.

        Raises:
            UserError: sizes could not move, would be probed more rarely than either number says, or in each part.
        """
        if self.least > epsilon:
            raise UserError(
                f"adaptation.least, {self.least:g}, must not be above the largest step size, prior_chain.epsilon, "
                f"{epsilon:g}"
            )
        if max(self.every, chains_every) % min(self.every, chains_every):
            raise UserError(
                f"step sizes are probed in updates with chains: adaptation.every, {self.every}, and chains_every, "
                f"{chains_every}, must be multiples of one another"
            )
        if parts != 1:
            raise UserError(
                f"a whole batch leads the step sizes: set training.parts to 1, not {parts}, or no adaptation"
            )


def acceptance_by_layer(
    position: Latents, log_density: LogDensity, chain: Chain, sizes: Sequence[float], noise: Noise
) -> Float[Tensor, " layers"]:
    """Return how often a Metropolis correction would accept a step, or a trajectory, of each layer alone.

    The other layers are held.

    Args:
        position: where the steps begin.
        log_density: the density that is sampled.
        chain: its discretisation and its steps a trajectory are used; the steps have temperature 1.
        sizes: step size of each layer.
        noise: of one step.
    """
    field, xi = field_of(log_density), noise(position)
    value, gradient = field.value_and_gradient(position)
    if chain.leapfrog > 1:
        return _of_trajectories(field, Point(position, value, gradient), xi, sizes, chain.leapfrog)
    strides = tuple(map(dataclasses.replace(chain, temperature=1.0).stride, sizes))
    moved, found = move(position, gradient, strides, xi), []
    for index, size in enumerate(sizes):
        there = (*position[:index], moved[index], *position[index + 1 :])
        its_value, its_gradient = field.value_and_gradient(there)
        layer = slice(index, index + 1)
        ratio = log_acceptance(its_value - value, gradient[layer], its_gradient[layer], xi[layer], (size,))
        found.append(ratio.clamp(max=0).exp().nan_to_num().mean())  # a density of NaN accepts nothing
    return torch.stack(found)


def _of_trajectories(
    field: Field, here: Point, momentum: Latents, sizes: Sequence[float], steps: int
) -> Float[Tensor, " layers"]:
    found, equal = [], torch.ones_like(here.value)
    for index, size in enumerate(sizes):
        alone = tuple(size if layer == index else 0.0 for layer in range(len(sizes)))  # a layer of size 0 stays
        end, its_momentum = follow(field, here, momentum, alone, steps, equal)
        ratio = log_ratio(here, momentum, end, its_momentum)
        found.append(ratio.clamp(max=0).exp().nan_to_num().mean())
    return torch.stack(found)


def adapted(
    sizes: Float[Tensor, " layers"], acceptance: Float[Tensor, " layers"], adaptation: Adaptation, largest: float
) -> Float[Tensor, " layers"]:
    """Return the next step sizes: larger where more is accepted than asked for, smaller elsewhere."""
    larger = acceptance > adaptation.acceptance
    return torch.where(larger, sizes * adaptation.factor, sizes / adaptation.factor).clamp(adaptation.least, largest)
