"""From a frozen configuration to what trains: the model, the scheme, the optimiser; alone here all kinds are known."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from jlebm.backbones.base import Backbone
from jlebm.errors import UserError
from jlebm.experiment import Experiment
from jlebm.learning.backbone import BackboneOnly
from jlebm.learning.base import Scheme
from jlebm.learning.gaussian import Gaussian
from jlebm.learning.joint_mle import JointMLE
from jlebm.learning.two_stage import TwoStage
from jlebm.learning.variational import Variational
from jlebm.staged import AnyExperiment, BackboneExperiment, TwoStageExperiment


def scheme(experiment: AnyExperiment) -> Scheme:
    """Return the experiment's way of learning."""
    match experiment:
        case BackboneExperiment():
            return BackboneOnly(experiment.elbo)
        case TwoStageExperiment():
            return TwoStage(experiment.prior_chain, experiment.optimizer.energy_l2)
        case Experiment(learning="variational"):
            l2 = experiment.optimizer.energy_l2
            return Variational(experiment.prior_chain, l2, experiment.kl_warmup, experiment.kl_weight)
        case Experiment(learning="gaussian"):
            return Gaussian(experiment.kl_warmup, experiment.kl_weight)
        case _:
            return JointMLE(experiment.prior_chain, experiment.posterior_chain, experiment.optimizer.energy_l2)


def model(experiment: AnyExperiment, backbone: Backbone | None) -> Any:
    """Make the model, its new weights drawn from torch's global generator.

    Raises:
        UserError: stage two was given no backbone.
    """
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
