"""Stage two of the two-stage scheme: the energies alone, on a trained backbone (facts, section 1.6)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from jlebm.langevin import Chain
from jlebm.learning.scheme import ContrastiveUpdate
from jlebm.model import JointModel
from jlebm.objectives import contrastive_loss
from jlebm.randomness import Noise


@dataclass(frozen=True)
class TwoStage:
    """Posterior samples from the backbone's q(z|x), prior samples by short chains; the backbone stays as it is."""

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
