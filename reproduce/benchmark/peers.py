"""The prior's chain beside other libraries' Langevin kernels, on one target (`--peers`).

The target is log p(z) of the paper's model, up to log Z. Before a peer is timed, its log-density and the gradient are
compared with ours in float64, and one of its steps with the law that ours has: z + epsilon * grad log p(z) +
sqrt(2 epsilon) * xi, xi standard normal. The random numbers are each library's own. A peer's chain starts from N(0, I),
drawn in the timed part, as ours does.
"""

import copy
import importlib.util
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import NamedTuple, Protocol

import torch
from scipy import stats
from torch import Tensor

from jlebm.densities import PriorInLatents
from jlebm.engines.gradients import field_of
from jlebm.errors import UserError
from jlebm.langevin import Chain
from jlebm.latents import Latents
from jlebm.model import JointModel
from jlebm.progress import Reporter
from jlebm.training import initial_state
from reproduce.benchmark.part import EXACT, SEED, Part, noise, relative
from reproduce.benchmark.speed import Workload

METRIC = "prior chain beside another library"
LEAST_P_VALUE = 1e-6  # in a Kolmogorov-Smirnov test of a step's noise
NUMBERS = 20_000  # at least, of a layer's noise in that test
SMALL_STEP = 1e-7  # at which a Metropolis correction accepts practically everything
GOAL = {"cpu": 1.0}
BOUND = "matrix products of a hundred rows, and element-wise operations that XLA fuses"


class Peer(Protocol):
    """Another library's chain on the prior of one model, in the arithmetic of its weights."""

    def value_and_gradient(self, z: Latents) -> tuple[Tensor, Latents]:
        """Return log p(z) of each element and its gradient, as the library computes them."""
        ...

    def run(self, z: Latents, chain: Chain) -> Latents:
        """Run a chain from z."""
        ...

    def timed(self, count: int, chain: Chain) -> Callable[[], object]:
        """Return the whole computation to time: `count` starts from N(0, I), and the chain."""
        ...


class Kind(NamedTuple):
    """A peer: its name in a row, the packages that it needs, and how it is built from a model."""

    name: str
    packages: tuple[str, ...]
    make: Callable[[JointModel], Peer]
    """Imports those packages when it is called."""
    metropolis: bool = False
    goal: bool = True
    """Whether to be level with it is a goal."""


def _torchebm(model: JointModel) -> Peer:
    from reproduce.benchmark.torchebm_peer import TorchEBM

    return TorchEBM(model)


def _jax(model: JointModel) -> Peer:
    from reproduce.benchmark.jax_peers import Jax

    return Jax(model)


def _blackjax(model: JointModel) -> Peer:
    from reproduce.benchmark.blackjax_peers import Blackjax

    return Blackjax(model)


def _blackjax_mala(model: JointModel) -> Peer:
    from reproduce.benchmark.blackjax_peers import BlackjaxMALA

    return BlackjaxMALA(model)


KINDS = (
    Kind("torchebm", ("torchebm",), _torchebm, goal=False),
    Kind("JAX under jit", ("jax",), _jax),
    Kind("blackjax under jit", ("jax", "blackjax"), _blackjax),
    Kind("MALA of blackjax under jit", ("jax", "blackjax"), _blackjax_mala, metropolis=True),
)


@dataclass(frozen=True)
class Compared:
    """One peer's chain and ours, on the same model and in double precision too."""

    kind: Kind
    model: JointModel
    chain: Chain
    count: int

    def part(self, setting: str) -> Part:
        """Return the part to time."""
        peer = self.kind.make(self.model)
        device = next(self.model.parameters()).device
        return Part(
            METRIC,
            setting,
            peer.timed(self.count, self.chain),
            lambda: self.model.sample_prior(self.count, self.chain, noise(device)),
            self.difference,
            EXACT,
            GOAL if self.kind.goal else {},
            None,
            bound=BOUND,
            versions={name: version(name) for name in self.kind.packages},
        )

    def difference(self) -> float:
        """Return the largest relative difference of log p(z) and its gradient in float64.

        Raises:
            UserError: a step of the peer does not have our step's law.
        """
        double = copy.deepcopy(self.model).double()
        peer, ours = self.kind.make(double), field_of(PriorInLatents(double.backbone, double.energy))
        width = min(math.prod(shape) for shape in double.backbone.latent_shapes)
        z = double.noise(math.ceil(NUMBERS / width), noise(torch.device("cpu")))
        value, gradient = ours.value_and_gradient(z)
        theirs, their_gradient = peer.value_and_gradient(z)
        self.refuse_other_steps(peer, z, gradient)
        return relative((theirs, *their_gradient), (value, *gradient))

    def refuse_other_steps(self, peer: Peer, z: Latents, gradient: Latents) -> None:
        """Test one step's noise against N(0, I) in every layer.

        Raises:
            UserError: it is not from that distribution.
        """
        epsilon = SMALL_STEP if self.kind.metropolis else self.chain.epsilon
        after = peer.run(z, replace(self.chain, steps=1, epsilon=epsilon))
        for layer, moved, drift in zip(z, after, gradient, strict=True):
            xi = (moved - layer - epsilon * drift) / math.sqrt(2 * epsilon)
            if not stats.kstest(xi.flatten().numpy(), "norm").pvalue >= LEAST_P_VALUE:
                raise UserError(f"a step of {self.kind.name} does not have the noise of ours; it is not timed")


def missing(kind: Kind) -> list[str]:
    """Return the packages of a peer that are not installed."""
    return [name for name in kind.packages if importlib.util.find_spec(name) is None]


def parts(workload: Workload, report: Reporter) -> Iterator[Part]:
    """Yield the parts of all peers that are installed; a sentence names those that are not."""
    with _pinned(torch.get_num_threads()):
        for kind in KINDS:
            if absent := missing(kind):
                report.line(f"{kind.name} is not timed: {' and '.join(absent)} cannot be imported (the extra peers)")
                continue
            experiment = workload.experiment
            chain = replace(experiment.prior_chain, metropolis=kind.metropolis)
            model = initial_state(experiment, SEED, torch.device("cpu")).model
            count = experiment.training.batch_size
            setting = f"{kind.name}, {chain.steps} steps, batch {count}, {workload.size}"
            yield Compared(kind, model, chain, count).part(setting)


@contextmanager
def _pinned(cores: int) -> Iterator[None]:
    """Give both sides as many cores as torch has threads: XLA takes as many threads as it finds cores."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(sorted(before)[:cores]))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
