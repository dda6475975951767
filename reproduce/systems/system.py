"""Base classes of the other systems of Table 2: built from a frozen configuration, trained in turns, sampled by seed.

A `System` is a module whose parts learn by the losses of its `turns`. All its state, including a replay buffer, is in
parameters and buffers, so a checkpoint holds the whole. `jlebm.training.fit` trains what a `BaselineExperiment` builds
like everything else.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Literal, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from jlebm.backbones.protocol import Backbone
from jlebm.engines import parallel
from jlebm.errors import UserError
from jlebm.images import to_uint8
from jlebm.learning.scheme import warmed_up
from jlebm.learning.trainable import Optimisation, Trainable, TrainingConfig, check_decay, moving_average
from jlebm.randomness import GENERATOR, Noise, Scheme, image_noise
from reproduce.systems.turns import InTurns, Turn, uniform

PROTOCOL = "table/1"
DATASET = "cifar10"
HOUR = 3_600.0  # seconds


class System(nn.Module):
    """A generative model of images, with all state of its training."""

    gpu_batch: int = 500
    """Images sampled at a time on a GPU; 100 on a CPU."""

    def turns(
        self,
        x: Float[Tensor, "batch channels height width"],
        labels: Int64[Tensor, " batch"] | None,
        noise: Noise,
        step: int,
    ) -> Iterator[Turn]:
        """Yield the updates of one training step in order; each is made before the next is computed.

        Args:
            x: training images in [-1, 1].
            labels: their classes, if the dataset has them.
            noise: the source of every draw (`uniform` and `integers` convert it).
            step: training steps made before.
        """
        raise NotImplementedError

    def draw(self, count: int, noise: Noise) -> Float[Tensor, "batch channels height width"]:
        """Return new images in [-1, 1]; image i depends only on row i of what `noise` gives."""
        raise NotImplementedError

    def sample(self, seeds: Sequence[int], scheme: Scheme = GENERATOR) -> UInt8[Tensor, "batch channels height width"]:
        """Return one image per seed, in eval mode; its noise does not depend on the other seeds."""
        training = self.training
        self.eval()
        with torch.no_grad():
            images = to_uint8(self.draw(len(seeds), image_noise("sample", seeds, scheme)))
        self.train(training)
        return images

    def empty(self, *shape: int) -> Tensor:
        """Return an empty tensor of the parameters' type, on their device."""
        return next(self.parameters()).new_empty(*shape)


@runtime_checkable
class HasLikelihood(Protocol):
    """A system with a likelihood, whose rows include bits per dimension."""

    @property
    def bits(self) -> int:
        """Images are quantised to 2^bits levels first; values for different bits are not comparable."""
        ...

    def log_likelihood(self, x: Float[Tensor, "batch channels height width"], noise: Noise) -> Float[Tensor, " batch"]:
        """Return the log-probability of images in [-1, 1] in nats, or a lower bound in the mean over the noise."""
        ...


def flipped(
    x: Float[Tensor, "batch channels height width"], noise: Noise
) -> Float[Tensor, "batch channels height width"]:
    """Mirror each image with probability one half."""
    return torch.where(uniform(noise, x.new_empty(len(x), 1, 1, 1)) < 0.5, x.flip(3), x)


@dataclass(frozen=True)
class Adam:
    """Optimiser of one part."""

    lr: float = 2e-4
    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 0.0
    warmup: int = field(default=0, metadata={"least": 0})
    """Steps over which the rate rises linearly to `lr`."""

    def __post_init__(self) -> None:
        """Refuse rates that could not learn."""
        if not (self.lr > 0 and 0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise UserError("an optimiser's lr must be positive, its beta1 and beta2 lie in [0, 1)")
        if not self.weight_decay >= 0 or self.warmup < 0:
            raise UserError("an optimiser's weight_decay and warmup must not be negative")


@dataclass(frozen=True)
class Optimizers:
    """Optimisers of a system: one `Adam` per part, named as the system names its modules."""

    rule: Literal["adam", "adamax"] = "adam"
    largest_gradient: float | None = None
    """Largest norm of a turn's gradient, to which longer ones are clipped; None for no clipping."""
    ema_decay: float | None = None
    """Decay of a moving average of all weights, which then gives the samples; buffers are those of the last step."""

    def __post_init__(self) -> None:
        """Refuse bounds and decays out of range."""
        if self.largest_gradient is not None and not self.largest_gradient > 0:
            raise UserError(f"optimizer.largest_gradient must be positive or null, not {self.largest_gradient}")
        check_decay(self.ema_decay)

    def parts(self) -> dict[str, Adam]:
        """Return the optimiser of each part by name."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Adam)}


@dataclass(frozen=True)
class OneNetwork(Optimizers):
    """Optimiser of a system that learns as a whole."""

    network: Adam = field(default_factory=Adam)


@dataclass(frozen=True)
class Adversaries(Optimizers):
    """Optimisers of two networks that learn against each other."""

    generator: Adam = field(default_factory=Adam)
    discriminator: Adam = field(default_factory=Adam)


@runtime_checkable
class ImageModel(Protocol):
    """Configuration of a system's networks."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        ...


@dataclass(frozen=True)
class BaselineExperiment(Trainable):
    """Configuration of a system; a subclass sets `learning` and `model` and builds the system."""

    protocol: str = field(default=PROTOCOL, kw_only=True)
    dataset: str = field(default=DATASET, kw_only=True)
    model: ImageModel
    learning: str = ""
    """The system's name in `reproduce.results.table_lines`."""
    optimizer: Optimizers = field(default_factory=OneNetwork)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def build(self, backbone: Backbone | None = None) -> System:
        """Build the system, with initial weights drawn from torch's global generator.

        Args:
            backbone: the trained backbone of a system that needs one.

        Raises:
            UserError: a library that it needs is not installed, or the backbone is missing.
        """
        raise NotImplementedError

    def scheme(self) -> InTurns:
        """See `Trainable`.

        Raises:
            UserError: several processes would share it; its buffers and batch statistics belong to one.
        """
        if parallel.size() > 1:
            raise UserError(f"the system {self.learning} is trained by one process; leave torchrun out")
        return InTurns()

    def optimisation(self, model: System) -> Optimisation:
        """See `Trainable`: one group of parameters per part, whose rates may rise linearly at first."""
        config = self.optimizer
        parts = config.parts()
        groups = [
            {
                "params": list(getattr(model, name).parameters()),
                "lr": adam.lr,
                "betas": (adam.beta1, adam.beta2),
                "weight_decay": adam.weight_decay,
            }
            for name, adam in parts.items()
        ]
        optimizer = (torch.optim.Adamax if config.rule == "adamax" else torch.optim.Adam)(groups)
        rising = [partial(warmed_up, steps=adam.warmup) for adam in parts.values()]
        schedule = LambdaLR(optimizer, rising) if any(adam.warmup for adam in parts.values()) else None
        return Optimisation(optimizer, schedule, config.largest_gradient)

    def average(self, learned: nn.Module) -> AveragedModel | None:
        """See `Trainable`; the buffers, which may hold images, are those of the last step."""
        return moving_average(learned, self.optimizer.ema_decay, buffers=False)

    def describe_sampling(self) -> str:
        """Describe in a few words how images are sampled, for a row; empty for a single pass."""
        return ""


@dataclass(frozen=True)
class OnBackbone(BaselineExperiment):
    """Configuration of a system on a frozen NVAE; `model` is the backbone's configuration."""

    backbone: str = ""
    """Name of the backbone: digest and seed of its stage one."""


E = TypeVar("E", bound=BaselineExperiment)


def hour_of(preset: E, model: ImageModel | None = None) -> E:
    """Return `long`: what `cpu` trains in five minutes, for an hour of one core, with a ten times longer average.

    Args:
        preset: the system's `cpu`.
        model: its networks with what a longer training changes, such as a larger buffer of images; None for the same.
    """
    decay = preset.optimizer.ema_decay
    return replace(
        preset,
        preset="long",
        model=model or preset.model,
        optimizer=preset.optimizer if decay is None else replace(preset.optimizer, ema_decay=1 - (1 - decay) / 10),
        training=replace(preset.training, steps=1_000_000, budget_seconds=HOUR),
    )
