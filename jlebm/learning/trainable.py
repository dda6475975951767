"""Base class of what `jlebm.training.fit` trains: a frozen configuration of model, scheme and optimiser."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from jlebm.backbones.protocol import Backbone
from jlebm.config import MOST, Config
from jlebm.errors import UserError
from jlebm.langevin import Chain
from jlebm.learning.averaging import MovingAverage
from jlebm.learning.scheme import Scheme


def check_decay(decay: float | None) -> None:
    """Refuse a decay that defines no moving average.

    Raises:
        UserError: the decay does not lie between 0 and 1.
    """
    if decay is not None and not 0 < decay < 1:
        raise UserError(f"ema_decay must lie between 0 and 1, not be {decay}")


def check_adam(beta1: float, beta2: float, energy_l2: float, weight_decay: float = 0.0) -> None:
    """Refuse decays that define no average of gradients, and negative weights of penalties.

    Raises:
        UserError: beta1 or beta2 does not lie in [0, 1), or energy_l2 or weight_decay is negative.
    """
    if not (0 <= beta1 < 1 and 0 <= beta2 < 1 and weight_decay >= 0 and energy_l2 >= 0):
        raise UserError(
            "optimizer.beta1 and optimizer.beta2 must lie in [0, 1), optimizer.weight_decay and optimizer.energy_l2 "
            "not be negative"
        )


LOG_EVERY = 10
"""Updates between two logged events, which the guard checks; the first update is logged too."""


@dataclass(frozen=True)
class TrainingConfig:
    """Length of a training: steps, batch size, time budget."""

    steps: int = field(default=50_500, metadata={"least": None})  # refused below with its own message
    batch_size: int = field(default=100, metadata={"least": None})
    budget_seconds: float | None = None
    """Wall-clock time after which training ends early; None for no limit."""
    parts: int = field(default=1, metadata={"since": "0.2", "least": None})
    """Parts of a batch whose gradients are added up before the update, so that a smaller memory is enough; batch norms,
    free bits and the balance of KLs see one part."""

    def __post_init__(self) -> None:
        """Refuse a length that allows no step."""
        if self.steps < 1 or self.batch_size < 1:
            raise UserError("training needs at least one step and one image a batch")
        if self.steps > MOST:
            raise UserError(f"a training of more than {MOST:,} steps never ends; set a smaller number")
        if self.parts < 1 or self.batch_size % self.parts:
            raise UserError(f"a batch of {self.batch_size} images cannot be split into {self.parts} equal parts")
        if self.budget_seconds is not None and not self.budget_seconds > 0:
            raise UserError(f"the wall-clock budget must be positive, not {self.budget_seconds:g} seconds")


@dataclass(frozen=True)
class Optimisation:
    """How an optimiser updates the weights."""

    optimizer: torch.optim.Optimizer
    schedule: LRScheduler | None = None
    largest_gradient: float | None = None
    """Largest norm of a gradient, to which longer ones are clipped."""


@dataclass(frozen=True)
class Trainable(Config):
    """Base class of a configuration that `fit` trains: model, scheme, optimiser.

    Your own learning scheme is a subclass: `jlebm.training.fit`, runs and checkpoints use nothing else.
    """

    protocol: str
    """Increased by every change that may alter a number; rows of different protocols are never compared."""
    preset: str
    dataset: str
    model: Any
    """Configuration of the networks, with an `image_shape` (channels, height, width)."""
    learning: Any
    """Name of the scheme, as stored in rows."""
    optimizer: Any
    """Configuration of the optimiser, with an `ema_decay`."""
    training: TrainingConfig

    def build(self, backbone: Backbone | None = None) -> Any:
        """Build the model, with initial weights drawn from torch's global generator.

        Args:
            backbone: the trained backbone of a model that needs one.

        Raises:
            UserError: the backbone or a library that the model needs is missing.
        """
        raise NotImplementedError

    def begin(self, model: Any, device: torch.device) -> None:
        """Make what training alone needs beside the weights; torch's global generator may draw it."""

    def scheme(self) -> Scheme:
        """Return the learning scheme."""
        raise NotImplementedError

    def optimisation(self, model: Any) -> Optimisation:
        """Return the optimiser over the model's weights."""
        raise NotImplementedError

    def learned(self, model: Any) -> nn.Module:
        """Return the part of the model that learns and is stored."""
        return model

    def average(self, learned: nn.Module) -> AveragedModel | None:
        """Return the moving average of what learns, batch statistics included; None if there is none."""
        return moving_average(learned, self.optimizer.ema_decay)

    def restored(self, weights: dict[str, Tensor], backbone: Backbone | None = None) -> Any:
        """Build the model with stored weights, in eval mode on the CPU.

        Args:
            weights: stored weights by name, as `jlebm.checkpoints.save_weights` writes them.
            backbone: the trained backbone, if the weights lack it.

        Raises:
            UserError: the backbone is missing, or a weight is missing, left over or of another shape.
        """
        # Channels-last as in training: convolutions of another layout round differently.
        model = self.build(backbone).to(memory_format=torch.channels_last)
        load_strictly(model, weights)
        return model.eval()

    def prior_sampling_chain(self) -> Chain | None:
        """Return the chain that samples the trained model's prior; None if the configuration has none."""
        return None

    def posterior_sampling_chain(self) -> Chain | None:
        """Return the chain that samples the posterior; None if the inference network draws."""
        return None


def load_strictly(module: nn.Module, weights: dict[str, Tensor]) -> None:
    """Load stored weights into a module, all of them and no others.

    Raises:
        UserError: a weight is missing, left over or of another shape.
    """
    wanted = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    if wrong := sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)):
        name = wrong[0]
        raise UserError(
            f"the weights are not those of their configuration: {name!r} has shape {found.get(name, 'none')} and must "
            f"have {wanted.get(name, 'none')}"
        )
    module.load_state_dict(weights)


def moving_average(learned: nn.Module, decay: float | None, buffers: bool = True) -> AveragedModel | None:
    """Return an exponential moving average of weights; None if there is no decay.

    Args:
        learned: the module whose weights are averaged.
        decay: decay of the average, between 0 and 1.
        buffers: whether buffers are averaged too, or copied from the last step.
    """
    if decay is None:
        return None
    return MovingAverage(learned, decay, buffers)
