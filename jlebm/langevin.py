"""Langevin dynamics over any log-density of latents, unadjusted as in the paper or with a Metropolis correction.

The one convention: z <- z + epsilon * grad log p(z) + temperature * sqrt(2 epsilon) * xi. `Chain.from_joint_paper`
and `Chain.from_two_stage_paper` convert the paper's two notations (docs/facts, "Langevin step sizes").

The unadjusted chain samples a density that is near p for small epsilon. The corrected chain (MALA: Roberts and Tweedie,
Bernoulli 2(4), 1996) proposes the same move, which each element of the batch accepts or rejects on its own, and samples
p at every step size.

In whitened noise the density is exp(-E) N(0, I), and the Crank-Nicolson discretisation (Cotter, Roberts, Stuart and
White, Statistical Science 28(3), 2013, the proposal CNL) treats its Gaussian part implicitly,

    eps <- ((2 - epsilon) eps - 2 epsilon grad E + sqrt(8 epsilon) xi) / (2 + epsilon).

N(0, I) then stays as it is at every step size, and the energy alone limits epsilon: steps can be ten times larger.
Several such steps with one momentum are a Hamiltonian trajectory (`jlebm.trajectories`).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, NamedTuple, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from jlebm import trajectories
from jlebm.choices import Drift
from jlebm.config import MOST, check_choices
from jlebm.densities import LogDensity, step_sizes_of
from jlebm.engines import graphs
from jlebm.engines.gradients import Field, field_of, without_autograd
from jlebm.errors import UserError
from jlebm.images import NotFinite
from jlebm.latents import Latents, dot, map_latents
from jlebm.moves import Stride, log_acceptance, move
from jlebm.randomness import Noise, series
from jlebm.trajectories import Point

Start = Literal["standard-normal", "ancestral"]
Space = Literal["latents", "noise"]


@dataclass(frozen=True)
class Chain:
    """A Langevin chain: number of steps, step size, start and space."""

    steps: int = field(metadata={"least": 0})
    epsilon: float
    """Step size: the drift is epsilon times the gradient, the noise has variance 2 epsilon."""
    temperature: float = 1.0
    """Multiplies the noise; 0 is gradient ascent."""
    start: Start = "standard-normal"
    """Start: N(0, I) in every layer, as in the released joint training, or a draw from p0."""
    space: Space = field(default="latents", metadata={"since": "0.2"})
    """Space: the latents z, or the whitened noise eps of the hierarchy, z = T(eps)."""
    drift: Drift = field(default="exact", metadata={"since": "0.2"})
    """Log-density whose gradient the steps follow in whitened noise (`densities.PriorInNoise`)."""
    metropolis: bool = field(default=False, metadata={"since": "0.2"})
    """Whether each step is accepted or rejected (MALA), so that the chain samples the density exactly."""
    discretisation: Literal["euler", "crank-nicolson"] = field(default="euler", metadata={"since": "0.3"})
    """Euler-Maruyama, or Crank-Nicolson, which leaves N(0, I) as it is: for the exact drift in whitened noise."""
    sizes: Literal["equal", "adapted"] = field(default="equal", metadata={"since": "0.3"})
    """Step size of a layer: epsilon for all, or the size that was adapted while its energy was trained (`step_sizes`),
    of which epsilon is the first and the largest, and in a chain with another epsilon cuts off those above it."""

    leapfrog: int = field(default=1, metadata={"since": "0.3"})
    """Steps of a Hamiltonian trajectory, which are accepted or rejected together: for a corrected Crank-Nicolson chain,
    whose steps are then those of all trajectories."""
    precision: Literal["float32", "bf16"] = field(default="float32", metadata={"since": "0.3"})
    """Arithmetic of the networks that a chain in whitened noise follows. In bf16 its density is a rounded one, which a
    correction samples exactly; positions, noise and the Gaussian part stay in float32 (docs/performance)."""

    def __post_init__(self) -> None:
        """Refuse a chain that could not run."""
        check_choices(self)
        if not (self.epsilon > 0 and math.isfinite(self.epsilon)):
            raise UserError(f"the step size epsilon must be positive, not {self.epsilon}")
        if self.steps < 0:
            raise UserError(f"the number of Langevin steps must not be negative, as {self.steps} is")
        if self.steps > MOST:
            raise UserError(f"a chain of more than {MOST:,} Langevin steps never ends; set a smaller number")
        if not self.temperature >= 0:
            raise UserError(f"the temperature must be 0 or more, not {self.temperature}")
        if self.space == "noise" and self.start != "ancestral":
            raise UserError("a chain in whitened noise starts from an ancestral draw; set its start to 'ancestral'")
        if self.space == "latents" and self.drift != "exact":
            raise UserError(f"the {self.drift} drift needs a chain in whitened noise; set the chain's space to 'noise'")
        if self.discretisation != "euler" and (self.space, self.drift) != ("noise", "exact"):
            raise UserError(
                "Crank-Nicolson is a discretisation of the exact drift in whitened noise; set the chain's space to "
                "'noise' and its drift to 'exact', or its discretisation to 'euler'"
            )
        if self.sizes != "equal" and self.space != "noise":
            raise UserError("adapted step sizes are those of a chain in whitened noise; set its space to 'noise'")
        if self.precision != "float32" and self.space != "noise":
            raise UserError(
                "networks in bf16 are those of a chain in whitened noise; set its space to 'noise' or its precision to "
                "'float32'"
            )
        if self.metropolis and self.temperature != 1:
            raise UserError(
                "with a Metropolis correction, which samples the density itself, the temperature must be 1, "
                f"not {self.temperature}; set it to 1 or metropolis to false"
            )
        if self.leapfrog != 1 and not (self.metropolis and self.discretisation == "crank-nicolson"):
            raise UserError(
                "trajectories of several steps need a Crank-Nicolson discretisation and a Metropolis correction; set "
                "discretisation to 'crank-nicolson' and metropolis to true, or leapfrog to 1"
            )
        if self.leapfrog < 1:
            raise UserError(f"a trajectory needs a step: set leapfrog to 1 or more, not {self.leapfrog}")
        if self.steps % self.leapfrog:
            raise UserError(
                f"{self.steps} steps are no whole number of trajectories of {self.leapfrog}; set steps to a multiple"
            )

    @classmethod
    def from_joint_paper(cls, steps: int, s: float, start: Start = "standard-normal") -> "Chain":
        """Convert the joint-training paper's notation: drift s^2/2, noise s."""
        return cls(steps, math.copysign(s**2 / 2, s), start=start)

    @classmethod
    def from_two_stage_paper(cls, steps: int, h: float, drift: Drift = "exact") -> "Chain":
        """Convert the two-stage paper's notation, in whitened noise: drift h/2, noise sqrt(h)."""
        return cls(steps, h / 2, start="ancestral", space="noise", drift=drift)

    def describe(self) -> str:
        """Describe the chain in a few words, for a row of results."""
        cold = "" if self.temperature == 1 else f", temperature {self.temperature:g}"
        corrected = ", Metropolis-corrected" if self.metropolis else ""
        where = "" if self.space == "latents" else f", in whitened noise, {self.drift} drift"
        where += "" if self.discretisation == "euler" else ", Crank-Nicolson"
        size = (
            f"epsilon {self.epsilon:g}" if self.sizes == "equal" else f"adapted to each layer, up to {self.epsilon:g}"
        )
        corrected += f", trajectories of {self.leapfrog} steps" if self.leapfrog > 1 else ""
        corrected += ", networks in bf16" if self.precision == "bf16" else ""
        return f"{self.steps} steps, {size}, from {self.start}{cold}{where}{corrected}"

    def stride(self, size: float) -> "Stride":
        """Return the factors of a step of this size."""
        if self.discretisation == "crank-nicolson":
            return Stride(2 * size / (2 + size), self.temperature * math.sqrt(8 * size) / (2 + size))
        return Stride(size, self.temperature * math.sqrt(2 * size))

    def noise_alone(self, steps: int) -> float:
        """Return the root-mean-square distance that noise alone carries a coordinate in so many steps.

        It is that of a random walk; by Crank-Nicolson, from N(0, 1) and with the Gaussian part, sqrt(2) in the end, and
        2 at most: steps larger than 2, and trajectories of more than a quarter turn, lead to the other side. With
        adapted sizes, none of them larger than epsilon, it is that of the largest; trajectories have the middle of
        their angles.
        """
        if self.discretisation == "euler":
            return self.temperature * math.sqrt(2 * self.epsilon * steps)
        kept = (2 - self.epsilon) / (2 + self.epsilon)
        if self.leapfrog > 1:
            kept, steps = math.cos(self.leapfrog * trajectories.angle_of(self.epsilon)), steps // self.leapfrog
        return math.sqrt((1 - kept**steps) ** 2 + self.temperature**2 * (1 - kept ** (2 * steps)))


class StepInfo(NamedTuple):
    """Log-density, gradient norm and acceptance of one step, at the position before it."""

    log_density: Float[Tensor, " batch"]
    gradient_norm: Float[Tensor, " batch"]
    accepted: Bool[Tensor, " batch"] | None = None
    """Which elements moved; None without a Metropolis correction, when all do."""


Observer: TypeAlias = Callable[[int, Latents, StepInfo], None]
"""Called after every step of a chain with the step's index, the position, and what the step computed."""


def sizes_of(log_density: LogDensity, chain: Chain, layers: int) -> tuple[float, ...]:
    """Return the step size of each layer that moves.

    Raises:
        UserError: the chain takes adapted step sizes, and the energies have none.
    """
    if chain.sizes == "equal":
        return (chain.epsilon,) * layers
    sizes = step_sizes_of(log_density)
    if sizes is None:
        raise UserError("these energies were trained without adapted step sizes; set the chain's sizes to 'equal'")
    return tuple(sizes.clamp(max=chain.epsilon).tolist())


def run(
    position: Latents, log_density: LogDensity, chain: Chain, noise: Noise, observe: Observer | None = None
) -> Latents:
    """Run a chain from `position` and return its last position.

    The gradient comes from autograd, or in closed form if the density allows it (`jlebm.engines.gradients`). On a GPU,
    steps without an observer are launched as CUDA graphs if the density allows it (`jlebm.engines.graphs`).

    Args:
        position: starting point of every element of the batch.
        log_density: the density to sample; its gradient is evaluated `chain.steps` times, its value only for an
            observer. A Metropolis correction evaluates both, once more than there are steps.
        chain: length, step size, temperature and correction; `start` is used by the caller, to make `position`.
        noise: the source of xi; a correction takes one more draw per element after each xi, two for a trajectory.
        observe: called after each step with its index, the new position and the step's info.

    Raises:
        UserError: the chain takes adapted step sizes, and the density's energies have none.
        NotFinite: the density is NaN where a chain with a Metropolis correction starts.
    """
    position = map_latents(Tensor.detach, position)
    sizes = sizes_of(log_density, chain, len(position))
    strides = tuple(map(chain.stride, sizes))
    if chain.metropolis:
        length = _Corrected(chain.steps, sizes, strides, chain.leapfrog)
        return _run_corrected(position, field_of(log_density), length, noise, observe)
    draws = series(noise, position, chain.steps)
    if observe is None:
        return _run_unseen(position, log_density, chain.steps, strides, draws)
    field = field_of(log_density)
    for index, xi in enumerate(draws):
        value, gradient = field.value_and_gradient(position)
        position = move(position, gradient, strides, xi)
        observe(index, position, StepInfo(value, dot(gradient, gradient).sqrt()))
    return position


def _run_unseen(
    position: Latents, log_density: LogDensity, steps: int, strides: Sequence[Stride], draws: Iterator[Latents]
) -> Latents:
    def step_in(density: LogDensity) -> graphs.Step:
        field = field_of(density)
        return lambda z, xi: move(z, field.gradient(z), strides, xi)

    recorded = graphs.recorded(log_density, step_in, strides, position, steps)
    if recorded is not None:
        return recorded(position, draws)
    field = field_of(log_density)
    for xi in draws:
        with without_autograd(field):
            position = move(position, field.gradient(position), strides, xi)
    return map_latents(Tensor.clone, position)


class _Corrected(NamedTuple):
    """Length and steps of a chain with a Metropolis correction."""

    steps: int
    sizes: tuple[float, ...]
    strides: tuple[Stride, ...]
    leapfrog: int

    def propose(self, field: Field, here: Point, xi: Latents, noise: Noise) -> tuple[Point, Float[Tensor, " batch"]]:
        """Return the proposal and the logarithm of its acceptance ratio: of one step, or of a trajectory."""
        if self.leapfrog > 1:
            spread = trajectories.spread_of(noise((here.value[:, None],))[0][:, 0])
            end, momentum = trajectories.follow(field, here, xi, self.sizes, self.leapfrog, spread)
            return end, trajectories.log_ratio(here, xi, end, momentum)
        position = move(here.position, here.gradient, self.strides, xi)
        there = Point(position, *field.value_and_gradient(position))
        gain = there.value - here.value
        return there, log_acceptance(gain, here.gradient, there.gradient, xi, self.sizes)


def _run_corrected(
    position: Latents, field: Field, chain: _Corrected, noise: Noise, observe: Observer | None
) -> Latents:
    mode = nullcontext if observe is not None else partial(without_autograd, field)
    with mode():
        here = Point(position, *field.value_and_gradient(position))
    if bool(here.value.isnan().any()):  # nothing would be accepted, and the start pass for samples
        raise NotFinite(
            f"the density is not a number at the start of {int(here.value.isnan().sum())} of {len(here.value)} chains; "
            "look at the energies' weights, or train them again with smaller learning rates"
        )
    for first in range(0, chain.steps, chain.leapfrog):
        xi = noise(position)
        # The normal distribution function of one more draw is uniform. If the density at the proposal is zero or NaN,
        # the comparison is false and the proposal is rejected.
        log_uniform = torch.special.log_ndtr(noise((here.value[:, None],))[0][:, 0])
        before = here
        with mode():
            there, ratio = chain.propose(field, here, xi, noise)
            accepted = log_uniform < ratio
            position = _choose(accepted, there.position, here.position)
            gradient = _choose(accepted, there.gradient, here.gradient)
            here = Point(position, torch.where(accepted, there.value, here.value), gradient)
        if observe is not None:
            norm, last = dot(before.gradient, before.gradient).sqrt(), first + chain.leapfrog - 1
            for index in range(first, last):  # a trajectory moves at its last step
                observe(index, before.position, StepInfo(before.value, norm))
            observe(last, position, StepInfo(before.value, norm, accepted))
    return map_latents(Tensor.clone, position)


def _choose(accepted: Bool[Tensor, " batch"], new: Latents, old: Latents) -> Latents:
    return map_latents(lambda a, b: torch.where(accepted.reshape(-1, *[1] * (a.dim() - 1)), a, b), new, old)


@dataclass
class Trace:
    """An observer that records every step's info: `run(..., observe=trace)`."""

    infos: list[StepInfo] = field(default_factory=list)

    def __call__(self, index: int, position: Latents, info: StepInfo) -> None:
        """Record the step's info."""
        self.infos.append(info)

    def log_density(self) -> Float[Tensor, "steps batch"]:
        """Return the log-density before each move."""
        return torch.stack([info.log_density for info in self.infos])

    def gradient_norm(self) -> Float[Tensor, "steps batch"]:
        """Return the norm of the gradient before each move."""
        return torch.stack([info.gradient_norm for info in self.infos])
