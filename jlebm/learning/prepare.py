"""From a frozen configuration to what trains: the model, the scheme, the optimiser; alone here all kinds are known."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from jlebm.backbones.protocol import Backbone
from jlebm.engines import parallel
from jlebm.errors import UserError
from jlebm.experiment import Experiment
from jlebm.learning.backbone import BackboneOnly
from jlebm.learning.baseline import InTurns
from jlebm.learning.gaussian import Gaussian
from jlebm.learning.joint_mle import JointMLE
from jlebm.learning.scheme import Scheme, Update, warmed_up
from jlebm.learning.two_stage import TwoStage
from jlebm.learning.variational import Variational
from jlebm.randomness import Noise
from jlebm.staged import AnyExperiment, BackboneExperiment, TwoStageExperiment
from reproduce.systems.system import BaselineExperiment


def scheme(experiment: AnyExperiment) -> Scheme | InTurns:
    """Return the experiment's way of learning.

    Raises:
        UserError: several processes are to share a system of the table, whose buffers and batch statistics are of one.
    """
    match experiment:
        case BaselineExperiment():
            if parallel.size() > 1:
                raise UserError(f"the system {experiment.learning} is trained by one process; leave torchrun out")
            return InTurns()
        case BackboneExperiment():
            return BackboneOnly(experiment.elbo)
        case TwoStageExperiment():
            return TwoStage(experiment.prior_chain, experiment.optimizer.energy_l2)
        case Experiment(learning="variational"):
            return Variational(
                experiment.prior_chain,
                experiment.optimizer.energy_l2,
                experiment.kl_warmup,
                experiment.kl_weight,
                experiment.conditional_gradient,
            )
        case Experiment(learning="gaussian"):
            return Gaussian(experiment.kl_warmup, experiment.kl_weight)
        case _:
            return JointMLE(experiment.prior_chain, experiment.posterior_chain, experiment.optimizer.energy_l2)


def updates(
    learning: Scheme | InTurns,
    model: Any,
    x: Float[Tensor, "batch channels height width"],
    labels: Int64[Tensor, " batch"] | None,
    noise: Noise,
    step: int,
) -> Iterator[tuple[Update, Sequence[nn.Parameter] | None]]:
    """Yield what one training step is made of, each with the parameters that it moves, None for all.

    Of most schemes it is one update. A system that learns in turns computes each from what the one before left.
    """
    if isinstance(learning, InTurns):
        yield from learning.updates(model, x, labels, noise, step)
    else:
        yield learning.update(model, x, noise, step), None


def model(experiment: AnyExperiment, backbone: Backbone | None) -> Any:
    """Make the model, its new weights drawn from torch's global generator.

    Raises:
        UserError: stage two was given no backbone.
    """
    if isinstance(experiment, BaselineExperiment):
        return experiment.build(backbone)
    if not isinstance(experiment, TwoStageExperiment):
        return experiment.build()
    if backbone is None:
        raise UserError("the two-stage scheme needs a trained backbone")
    return experiment.build(backbone)


@dataclass(frozen=True)
class Optimisation:
    """How the weights move."""

    optimizer: torch.optim.Optimizer
    schedule: LRScheduler | None = None
    largest_gradient: float | None = None
    """Norm to which a longer gradient is shortened."""


def optimisation(experiment: AnyExperiment, model: Any) -> Optimisation:
    """Return the experiment's optimiser over the model's weights."""
    match experiment:
        case BaselineExperiment(optimizer=config):
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
        case BackboneExperiment(optimizer=config):
            optimizer = torch.optim.Adamax(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
            schedule = CosineAnnealingLR(optimizer, experiment.training.steps, eta_min=config.least_lr)
            return Optimisation(optimizer, schedule, config.largest_gradient)
        case TwoStageExperiment(optimizer=config):
            adam = {"lr": config.energy_lr, "betas": (config.beta1, config.beta2), "weight_decay": config.weight_decay}
            return Optimisation(torch.optim.Adam(model.energy.parameters(), **adam))
        case _:
            config = experiment.optimizer
            energy = list(model.energy.parameters())
            rest = [parameter for name, parameter in model.named_parameters() if not name.startswith("energy.")]
            groups = [{"params": rest, "lr": config.generator_lr}, {"params": energy, "lr": config.energy_lr}]
            return Optimisation(torch.optim.Adam(groups, betas=(config.beta1, config.beta2)))


def learned(experiment: AnyExperiment, model: Any) -> nn.Module:
    """Return the part of the model that learns and is stored: the energies alone where the backbone is given."""
    return model.energy if isinstance(experiment, TwoStageExperiment) else model


def average(experiment: AnyExperiment, learned: nn.Module) -> AveragedModel | None:
    """Return the moving average of what learns, None where the experiment has none.

    Batch statistics are averaged with the weights; the buffers of a system of the table, which may hold images, are
    those of the last step.
    """
    decay = experiment.optimizer.ema_decay
    if decay is None:
        return None
    buffers = not isinstance(experiment, BaselineExperiment)
    return AveragedModel(learned, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=buffers)
