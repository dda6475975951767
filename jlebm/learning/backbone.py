"""Stage one of the two-stage scheme: train a deep hierarchy with its Gaussian prior by the ELBO (arXiv 2007.03898)."""

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR

from jlebm.backbones.nvae.network import NVAE
from jlebm.backbones.nvae.nvae_config import NVAEConfig
from jlebm.backbones.nvae.regularisation import RegularisedNVAE, weights_once
from jlebm.backbones.protocol import Backbone
from jlebm.errors import UserError
from jlebm.learning.scheme import ELBOUpdate, OneUpdate
from jlebm.learning.trainable import Optimisation, Trainable, TrainingConfig, check_decay
from jlebm.randomness import Noise


@dataclass(frozen=True)
class ELBOConfig:
    """The objective of stage one; the defaults are the published CIFAR-10 run's (arXiv 2007.03898)."""

    warmup_steps: int = 1
    """Updates over which the weight of the KL rises to 1."""
    least_weight: float = 1e-4
    """Weight of the KL at the first update."""
    balanced: bool = True
    """Whether the KLs of the groups are balanced during the warm-up."""
    spectral: float = 0.0
    """Weight of the convolutions' spectral norms and of the batch norms' scales, in nats per image."""
    precision: Literal["float32", "bf16"] = "float32"
    """Arithmetic of the layers; densities and weights are float32 in both."""

    def __post_init__(self) -> None:
        """Refuse invalid weights."""
        if not 0 < self.least_weight <= 1 or self.warmup_steps < 1 or not self.spectral >= 0:
            raise UserError(
                "elbo.least_weight must lie in (0, 1], elbo.warmup_steps be at least 1 and elbo.spectral not negative"
            )

    def kl_weight(self, step: int) -> float:
        """Return the weight of the KL at an update, linear in the step."""
        return min(1.0, max(self.least_weight, step / self.warmup_steps))


@dataclass(frozen=True)
class AdamaxConfig:
    """Adamax with a cosine schedule."""

    lr: float = 1e-2
    least_lr: float = 1e-4
    """The rate at the last step."""
    weight_decay: float = 3e-4
    largest_gradient: float | None = None
    """Largest norm of a gradient, to which longer ones are clipped; None for no limit."""
    ema_decay: float | None = 0.999

    def __post_init__(self) -> None:
        """Refuse rates that could not learn."""
        if not 0 < self.least_lr <= self.lr:
            raise UserError("the learning rates must be positive, optimizer.least_lr no larger than optimizer.lr")
        if not self.weight_decay >= 0:
            raise UserError(f"optimizer.weight_decay must not be negative, as {self.weight_decay} is")
        if self.largest_gradient is not None and not self.largest_gradient > 0:
            raise UserError(f"optimizer.largest_gradient must be positive or null, not {self.largest_gradient}")
        check_decay(self.ema_decay)


@dataclass(frozen=True)
class BackboneOnly(OneUpdate):
    """The ELBO with KL warm-up and balancing, spectral regularisation and mixed precision."""

    config: ELBOConfig

    def update(
        self, model: RegularisedNVAE, x: Float[Tensor, "batch channels height width"], noise: Noise, step: int = 0
    ) -> ELBOUpdate:
        """Draw once from q(z|x) and return the loss of update number `step`."""
        # On a CPU, where launches cost little, weights are normalised at each use: the order of sums stays as it was.
        with weights_once(model.backbone) if x.is_cuda else nullcontext():
            return self._update(model, x, noise, step)

    def _update(self, model: RegularisedNVAE, x: Tensor, noise: Noise, step: int) -> ELBOUpdate:
        network = model.backbone
        eps = noise(tuple(x.new_empty(len(x), *shape) for shape in network.latent_shapes))
        bf16 = self.config.precision == "bf16"
        with torch.autocast(x.device.type, torch.bfloat16) if bf16 else nullcontext():
            terms = network.elbo_terms(x, eps)
        weight = self.config.kl_weight(step)
        kl = terms.kl.mean(1)
        if self.config.balanced and weight < 1:
            kl = kl * balance(kl.detach(), _sizes(network.config, kl))
        objective = weight * kl.sum() - terms.log_likelihood.mean()
        if self.config.spectral:
            penalty = model.spectral_norms() + model.batch_norm_scales()
            objective = objective + self.config.spectral * penalty
        return ELBOUpdate(terms, objective, weight)


@dataclass(frozen=True)
class BackboneExperiment(Trainable):
    """Configuration of stage one: the backbone's sizes, its objective and its optimiser."""

    model: NVAEConfig
    learning: Literal["backbone"] = "backbone"
    elbo: ELBOConfig = field(default_factory=ELBOConfig)
    optimizer: AdamaxConfig = field(default_factory=AdamaxConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def build(self, backbone: Backbone | None = None) -> RegularisedNVAE:
        """See `Trainable`; `backbone` must be None."""
        return RegularisedNVAE(NVAE(self.model))

    def scheme(self) -> BackboneOnly:
        """See `Trainable`."""
        return BackboneOnly(self.elbo)

    def optimisation(self, model: RegularisedNVAE) -> Optimisation:
        """See `Trainable`: Adamax on a cosine schedule."""
        config = self.optimizer
        optimizer = torch.optim.Adamax(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
        schedule = CosineAnnealingLR(optimizer, self.training.steps, eta_min=config.least_lr)
        return Optimisation(optimizer, schedule, config.largest_gradient)


def balance(kl: Float[Tensor, " groups"], sizes: Float[Tensor, " groups"]) -> Float[Tensor, " groups"]:
    """Return each group's KL factor during the warm-up, of mean 1: groups with little information are penalised less.

    The factor is proportional to the group's KL and inversely to its share of the latents, so that a scale of higher
    resolution does not take all information (arXiv 2007.03898, appendix A; the constants are this project's).
    """
    factors = (kl.abs() + 1e-2) / sizes
    return factors / factors.mean()


def _sizes(config: NVAEConfig, like: Tensor) -> Float[Tensor, " groups"]:
    """Return each group's number of latents relative to the top group's, over the number of groups of its scale."""
    values = []
    for scale, count in enumerate(reversed(config.groups())):
        values += [4.0**scale / count] * count
    sizes = like.new_tensor(values)
    return sizes / sizes.min()
