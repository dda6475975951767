"""Stage two of the two-stage scheme: train energies alone on a frozen backbone (docs/facts, "Two-stage training")."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from jlebm.backbones.kinds import BackboneConfig, backbone_of
from jlebm.backbones.nvae.frozen import frozen_copy
from jlebm.backbones.nvae.network import NVAE
from jlebm.backbones.nvae.nvae_config import NVAEConfig
from jlebm.backbones.protocol import Backbone
from jlebm.energies import ConvEnergy, EnergyConfig
from jlebm.errors import UserError
from jlebm.langevin import Chain
from jlebm.learning.noise_contrast import NoiseContrast
from jlebm.learning.scheme import ContrastiveUpdate, OneUpdate
from jlebm.learning.trainable import Optimisation, Trainable, TrainingConfig, check_adam, check_decay, load_strictly
from jlebm.model import JointModel
from jlebm.objectives import contrastive_loss
from jlebm.randomness import Noise


@dataclass(frozen=True)
class EnergyOptimizer:
    """Adam for the energies; the defaults are the published CIFAR-10 run's."""

    energy_lr: float = 1e-4
    beta1: float = 0.99
    beta2: float = 0.999
    weight_decay: float = 3e-5
    energy_l2: float = 0.0
    """Weight of the squared energies in the loss; the paper's is 0."""
    ema_decay: float | None = None
    schedule: Literal["constant", "cosine"] = field(default="constant", metadata={"since": "0.2"})
    """The rate over the training: constant, or a half cosine that ends at a hundredth of it."""

    def __post_init__(self) -> None:
        """Refuse rates that could not learn."""
        if not self.energy_lr > 0:
            raise UserError("the learning rate must be positive")
        check_adam(self.beta1, self.beta2, self.energy_l2, self.weight_decay)
        check_decay(self.ema_decay)


@dataclass(frozen=True)
class TwoStage(OneUpdate):
    """Draw posterior samples from the backbone's q(z|x), prior samples by short chains; the backbone is frozen."""

    prior_chain: Chain
    energy_l2: float = 0.0

    def update(
        self, model: JointModel, x: Float[Tensor, "batch channels height width"], noise: Noise, step: int = 0
    ) -> ContrastiveUpdate:
        """Run the prior's chains, draw from the encoder, and return the energies' contrastive loss."""
        prior = model.sample_prior(len(x), self.prior_chain, noise)
        with torch.no_grad():
            posterior = model.backbone.posterior(x, noise).latents
        losses = contrastive_loss(model.energy, posterior, prior, self.energy_l2)
        return ContrastiveUpdate(model, losses, posterior, prior)


@dataclass(frozen=True)
class TwoStageExperiment(Trainable):
    """Configuration of stage two, energies on a trained backbone; the defaults are the paper's CIFAR-10 run."""

    model: NVAEConfig | BackboneConfig
    backbone: str = field(kw_only=True)
    """Identity of the backbone: digest and seed of a stage one, or the digest of a published checkpoint's weights."""
    learning: Literal["two-stage"] = "two-stage"
    energy: EnergyConfig = field(default_factory=ConvEnergy)
    """Energy networks, one per group."""
    prior_chain: Chain = field(default_factory=lambda: Chain.from_two_stage_paper(20, 4e-5))
    """Chain of the EBM prior in training; noise contrast runs none."""
    optimizer: EnergyOptimizer = field(default_factory=EnergyOptimizer)
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(steps=5_000, batch_size=64))
    estimator: Literal["chains", "noise-contrast"] = field(default="chains", metadata={"since": "0.2"})
    """How the energies learn: from the ends of the prior's chains, or by `NoiseContrast` without any chain."""
    precision: Literal["float32", "tf32"] = field(default="float32", metadata={"since": "0.2"})
    """Arithmetic of the backbone's and the energies' convolutions in chains, in training and when sampled."""

    def __post_init__(self) -> None:
        """Refuse a hierarchy that the energies do not fit, before its backbone is trained, and a setting it ignores."""
        if not isinstance(self.model, NVAEConfig):
            if self.precision != "float32":
                raise UserError(
                    f"precision={self.precision} is for chains on an NVAE; a backbone of vectors computes in its own "
                    "model.precision, so leave the energies' precision at float32"
                )
            self.energy.check(self.model.latent_shapes)
            return
        side = self.model.top_side
        try:
            self.energy.check(((self.model.num_latent_per_group, side, side),))
        except UserError as error:
            advice = "choose other model.num_latent_scales or model.num_preprocess_blocks"
            raise UserError(f"at the top of the model, {error}; {advice}") from error

    def build(self, backbone: Backbone | None = None) -> JointModel:
        """See `Trainable`."""
        if backbone is None:
            raise UserError("the two-stage scheme needs a trained backbone")
        if isinstance(backbone, NVAE):
            backbone.precision = self.precision
        return JointModel(backbone, self.energy.build(backbone.latent_shapes))

    def scheme(self) -> TwoStage | NoiseContrast:
        """See `Trainable`."""
        if self.estimator == "noise-contrast":
            return NoiseContrast(self.optimizer.energy_l2)
        return TwoStage(self.prior_chain, self.optimizer.energy_l2)

    def optimisation(self, model: JointModel) -> Optimisation:
        """See `Trainable`: Adam over the energies alone."""
        config = self.optimizer
        adam = {"lr": config.energy_lr, "betas": (config.beta1, config.beta2), "weight_decay": config.weight_decay}
        optimizer = torch.optim.Adam(model.energy.parameters(), **adam)
        if config.schedule == "constant":
            return Optimisation(optimizer)
        return Optimisation(
            optimizer, CosineAnnealingLR(optimizer, self.training.steps, eta_min=config.energy_lr / 100)
        )

    def learned(self, model: JointModel) -> nn.Module:
        """See `Trainable`: the energies alone, since the backbone is given."""
        return model.energy

    def restored(self, weights: dict[str, Tensor], backbone: Backbone | None = None) -> JointModel:
        """See `Trainable`: loads the whole model, or energies alone onto a given `backbone`; the backbone is frozen."""
        if any(name.startswith("backbone.") for name in weights):
            return super().restored(weights, frozen_network(self.model))
        if backbone is None:
            raise UserError("these weights are energies alone, and the backbone that they were learned on is not given")
        if getattr(backbone, "config", None) != self.model:
            raise UserError("these energies were learned on a backbone of another configuration than the one given")
        model = self.build(backbone)
        load_strictly(model.energy, weights)
        model.energy.to(memory_format=torch.channels_last)
        return model.eval()


def frozen_network(config: NVAEConfig | BackboneConfig) -> Backbone:
    """Return a backbone of these sizes as stage two holds it: in eval mode, without gradients of its weights."""
    if isinstance(config, NVAEConfig):
        return frozen_copy(NVAE(config))
    return backbone_of(config).eval().requires_grad_(False)
