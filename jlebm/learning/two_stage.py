"""Stage two of the two-stage scheme: train energies alone on a frozen backbone (docs/facts, "Two-stage training")."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from jlebm import langevin
from jlebm.backbones.kinds import BackboneConfig, backbone_of
from jlebm.backbones.nvae.frozen import frozen_copy
from jlebm.backbones.nvae.network import NVAE
from jlebm.backbones.nvae.nvae_config import NVAEConfig
from jlebm.backbones.protocol import NO_PATH, Backbone, path_shapes_of
from jlebm.densities import PriorInNoise
from jlebm.energies import ConvEnergy, EnergyConfig, JointEnergy
from jlebm.engines import parallel
from jlebm.errors import UserError
from jlebm.langevin import Chain
from jlebm.latents import Latents
from jlebm.learning.noise_contrast import NoiseContrast, NoiseContrastUpdate
from jlebm.learning.scheme import ContrastiveUpdate, OneUpdate
from jlebm.learning.step_sizes import Adaptation, acceptance_by_layer, adapted
from jlebm.learning.trainable import (
    LOG_EVERY,
    Optimisation,
    Trainable,
    TrainingConfig,
    check_adam,
    check_decay,
    load_strictly,
)
from jlebm.model import JointModel
from jlebm.objectives import contrastive_loss
from jlebm.persistence import Persistence, PersistentChains
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
    largest_gradient: float | None = field(default=None, metadata={"since": "0.3"})
    """Largest norm of the gradient, to which longer ones are clipped; None, as in the paper, for no limit."""

    def __post_init__(self) -> None:
        """Refuse rates that could not learn."""
        if not self.energy_lr > 0:
            raise UserError("the learning rate must be positive")
        if self.largest_gradient is not None and not self.largest_gradient > 0:
            raise UserError(f"optimizer.largest_gradient must be positive or null, not {self.largest_gradient}")
        check_adam(self.beta1, self.beta2, self.energy_l2, self.weight_decay)
        check_decay(self.ema_decay)


@dataclass(frozen=True)
class MixedUpdate:
    """The losses of chains and of noise contrast, added."""

    chains: ContrastiveUpdate
    contrast: NoiseContrastUpdate
    weight: float

    def loss(self) -> Float[Tensor, ""]:
        """See `Update`."""
        return self.chains.loss() + self.weight * self.contrast.loss()

    def figures(self) -> dict[str, Tensor]:
        """Return the sum and the chains' other figures, and the loss and accuracy of noise contrast."""
        seen = self.contrast.figures()
        added = {"loss": self.loss().detach(), "accuracy": seen["accuracy"], "noise_contrast": seen["loss"]}
        return self.chains.figures() | added


@dataclass(frozen=True)
class TwoStage(OneUpdate):
    """Draw posterior samples from the backbone's q(z|x), prior samples by short chains; the backbone is frozen."""

    prior_chain: Chain
    energy_l2: float = 0.0
    adaptation: Adaptation | None = None
    """How the step sizes of the layers follow their acceptance; None for one size."""
    noise_contrast: float = 0.0
    """Weight of the logistic loss of noise contrast, added to that of the chains."""
    chains_every: int = 1
    """Updates from one by chains to the next; those between have the logistic loss alone."""
    by_layer: bool = False
    """Whether noise contrast has a classifier for each layer."""
    contrast_updates: int | None = None
    """Updates before noise contrast ends and every update is by chains; None if it goes on to the last."""

    def update(
        self, model: JointModel, x: Float[Tensor, "batch channels height width"], noise: Noise, step: int = 0
    ) -> ContrastiveUpdate | MixedUpdate | NoiseContrastUpdate:
        """Run the prior's chains, draw from the encoder, and return the energies' contrastive loss."""
        ended = self.contrast_updates is not None and step >= self.contrast_updates
        contrast = 0.0 if ended else self.noise_contrast
        if contrast and step % self.chains_every:
            return NoiseContrast(self.energy_l2, self.by_layer, contrast).update(model, x, noise)
        prior = self._prior(model, len(x), noise, step)
        with torch.no_grad():
            posterior = model.backbone.posterior(x, noise).latents
        losses = contrastive_loss(model.energy_at, posterior, prior, self.energy_l2)
        update = ContrastiveUpdate(model, losses, posterior, prior)
        if not contrast:
            return update
        classified = NoiseContrast(by_layer=self.by_layer).classified(model, posterior, noise)
        return MixedUpdate(update, classified, contrast)

    def _turn(self, step: int) -> int:
        """Return how many updates by chains came before this one."""
        both = step if self.contrast_updates is None else min(step, self.contrast_updates)
        return math.ceil(both / self.chains_every) + step - both

    def _prior(self, model: JointModel, count: int, noise: Noise, step: int) -> Latents:
        """Return the latents at the ends of this update's chains."""
        if model.chains is None and self.adaptation is None:
            return model.sample_prior(count, self.prior_chain, noise)
        density = model.prior_in_noise(self.prior_chain)
        if model.chains is None:
            end = langevin.run(model.noise(count, noise), density, self.prior_chain, noise)
        else:
            indices = model.chains.chosen(self._turn(step), count)
            end = langevin.run(model.chains.begin(indices, noise), density, self.prior_chain, noise)
            model.chains.keep(indices, end)
        if self.adaptation is not None and step % self.adaptation.every == 0:
            self._adapt(model.energy, density, end, noise)
        return model.pushed(end)

    def _adapt(self, energy: JointEnergy, density: PriorInNoise, position: Latents, noise: Noise) -> None:
        assert self.adaptation is not None
        assert energy.step_sizes is not None  # `TwoStageExperiment.build` gives them
        sizes = langevin.sizes_of(density, self.prior_chain, len(position))
        found = acceptance_by_layer(position, density, self.prior_chain, sizes, noise)
        parallel.average([found])  # each process has seen its part of the batch
        energy.step_sizes.copy_(adapted(energy.step_sizes, found, self.adaptation, self.prior_chain.epsilon))


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
    adaptation: Adaptation | None = field(default=None, metadata={"since": "0.3"})
    """How each layer's step size follows its acceptance, if `prior_chain.sizes` is "adapted"; None for one size."""
    persistence: Persistence | None = field(default=None, metadata={"since": "0.3"})
    """The chains that training keeps from one update to the next; None for fresh ones in each."""
    noise_contrast: float = field(default=0.0, metadata={"since": "0.3"})
    """Weight of the logistic loss of `NoiseContrast`, which is added to that of the chains. Both have the same minimum:
    the first finds the way there at once, the second corrects energies where only chains go."""
    chains_every: int = field(default=1, metadata={"since": "0.3"})
    """Updates from one by chains to the next; those between, which cost little, are by noise contrast alone."""
    contrast: Literal["whole", "layers"] = field(default="whole", metadata={"since": "0.3"})
    """What noise contrast tells apart: whole samples of posterior and p0, or each layer given those above it; see
    `NoiseContrast`."""
    contrast_updates: int | None = field(default=None, metadata={"since": "0.3"})
    """Updates after which noise contrast ends and every update is by chains alone; None for none. It finds the way to
    the posterior, but once p0 is told from it without fail its gradient only holds back what chains correct."""

    def __post_init__(self) -> None:
        """Refuse a hierarchy that the energies do not fit, before its backbone is trained, and a setting it ignores."""
        self._check_chains()
        if not isinstance(self.model, NVAEConfig):
            if self.precision != "float32":
                raise UserError(
                    f"precision={self.precision} is for chains on an NVAE; another backbone computes in its own "
                    "model.precision, so leave the energies' precision at float32"
                )
            self.energy.check_on(self.model)
            if not getattr(self.model, "inference_network", True):
                raise UserError("stage two draws from the encoder: set model.inference_network to true")
            if self.contrast == "layers":
                path_shapes_of(self.model)
            return
        if self.contrast == "layers":
            raise UserError(f"contrast=layers draws layers anew from p0: {NO_PATH}")
        side = self.model.top_side
        try:
            self.energy.check(((self.model.num_latent_per_group, side, side),))
        except UserError as error:
            advice = "choose other model.num_latent_scales or model.num_preprocess_blocks"
            raise UserError(f"at the top of the model, {error}; {advice}") from error

    def _check_chains(self) -> None:
        chain, learned = self.prior_chain, self.estimator == "chains"
        if (chain.sizes == "adapted") != (self.adaptation is not None):
            raise UserError(
                "adapted step sizes need both: set prior_chain.sizes to 'adapted' and adaptation to its settings, or "
                "neither"
            )
        if not learned and (self.adaptation is not None or self.persistence is not None or self.noise_contrast):
            raise UserError(
                "noise contrast runs no chains: leave adaptation and persistence at null, noise_contrast at 0"
            )
        if not self.noise_contrast >= 0:
            raise UserError(f"the weight noise_contrast must not be negative, as {self.noise_contrast} is")
        if self.contrast == "layers" and learned and not self.noise_contrast:
            raise UserError(
                "contrast is a setting of noise contrast; give noise_contrast a weight, or leave it at whole"
            )
        if self.chains_every > 1 and not (learned and self.noise_contrast):
            raise UserError(
                "updates without chains learn by noise contrast; give noise_contrast a weight, or set chains_every to 1"
            )
        if self.chains_every < 1 or LOG_EVERY % self.chains_every:
            raise UserError(
                f"chains_every must divide {LOG_EVERY}, so that the log sees chains, and {self.chains_every} does not"
            )
        if self.adaptation is not None:
            self.adaptation.check(chain.epsilon, self.chains_every, self.training.parts)
        if self.contrast_updates is not None and not (
            learned and self.noise_contrast and 0 < self.contrast_updates < self.training.steps
        ):
            raise UserError(
                f"contrast_updates={self.contrast_updates} ends the noise contrast beside chains: give noise_contrast "
                f"a weight, and a number of updates between 0 and training.steps, {self.training.steps}, or null"
            )
        if self.persistence is None:
            return
        if chain.space != "noise":
            raise UserError("chains are kept in whitened noise; set prior_chain.space to 'noise'")
        if self.persistence.chains % self.training.batch_size or self.training.parts != 1:
            raise UserError(
                f"persistence.chains, {self.persistence.chains}, must be a multiple of training.batch_size, "
                f"{self.training.batch_size}, in one part, so that each update takes other chains"
            )

    def build(self, backbone: Backbone | None = None) -> JointModel:
        """See `Trainable`."""
        if backbone is None:
            raise UserError("the two-stage scheme needs a trained backbone")
        if isinstance(backbone, NVAE):
            backbone.precision = self.precision
        energy = self.energy.build_on(backbone)
        return JointModel(backbone, energy if self.adaptation is None else energy.adapt_from(self.prior_chain.epsilon))

    def begin(self, model: JointModel, device: torch.device) -> None:
        """See `Trainable`: draws the persistent chains.

        Raises:
            UserError: several processes would each keep their own.
        """
        if self.persistence is not None:
            if parallel.size() > 1:
                raise UserError("persistent chains are those of one process; start one, or set persistence to null")
            model.chains = PersistentChains(self.persistence, model.backbone.latent_shapes, device)

    def scheme(self) -> TwoStage | NoiseContrast:
        """See `Trainable`."""
        if self.estimator == "noise-contrast":
            return NoiseContrast(self.optimizer.energy_l2, self.contrast == "layers")
        weights = self.optimizer.energy_l2, self.adaptation, self.noise_contrast
        return TwoStage(self.prior_chain, *weights, self.chains_every, self.contrast == "layers", self.contrast_updates)

    def optimisation(self, model: JointModel) -> Optimisation:
        """See `Trainable`: Adam over the energies alone."""
        config = self.optimizer
        adam = {"lr": config.energy_lr, "betas": (config.beta1, config.beta2), "weight_decay": config.weight_decay}
        optimizer = torch.optim.Adam(model.energy.parameters(), **adam)
        schedule = None
        if config.schedule != "constant":
            schedule = CosineAnnealingLR(optimizer, self.training.steps, eta_min=config.energy_lr / 100)
        return Optimisation(optimizer, schedule, config.largest_gradient)

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
    return frozen(NVAE(config) if isinstance(config, NVAEConfig) else backbone_of(config))


def frozen(network: nn.Module) -> Any:
    """Return a backbone as stage two holds it, in eval mode without gradients: of an NVAE a copy, else itself."""
    return frozen_copy(network) if isinstance(network, NVAE) else network.eval().requires_grad_(False)
