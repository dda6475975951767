"""Learning the Gaussian hierarchy alone by its ELBO: the twin, in every figure, of a model with an EBM prior."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from jlebm.backbones.protocol import ELBOTerms, inferred
from jlebm.errors import UserError
from jlebm.langevin import Chain
from jlebm.learning.scheme import ELBOUpdate, OneUpdate, warmed_up
from jlebm.learning.settings import JointSettings, refuse_conditional_gradient, refuse_without_inference
from jlebm.model import JointModel
from jlebm.randomness import Noise


@dataclass(frozen=True)
class Gaussian(OneUpdate):
    """Train backbone and inference network by E_q[log p(x|z)] - KL(q(z|x) | p0(z)), without energies."""

    kl_warmup: int = 0
    """Updates over which the KL's weight rises (Sonderby et al., 2016, arXiv 1602.02282)."""
    kl_weight: float = 1.0
    """Full weight of the KL; 1 is the ELBO."""
    free_bits: tuple[float, ...] = ()
    """Nats of each layer's KL, top first, below which its mean over the batch is not reduced; empty for none."""

    has_energies = False
    needs_energies = False

    @classmethod
    def of(cls, settings: JointSettings) -> "Gaussian":
        """Return the scheme of a configuration.

        Raises:
            UserError: it has energies, its model no inference network, or it sets what belongs to another learning.
        """
        if settings.energy_hidden or settings.energy is not None:
            raise UserError("with learning 'gaussian' the prior has no energy; set energy_hidden to [], energy to null")
        refuse_without_inference("gaussian", settings)
        refuse_conditional_gradient("gaussian", settings)
        layers = len(settings.model.latent_shapes)
        if settings.free_bits and (len(settings.free_bits) != layers or not min(settings.free_bits) >= 0):
            raise UserError(f"free_bits must be {layers} numbers of nats, one per layer, not {settings.free_bits}")
        return cls(settings.kl_warmup, settings.kl_weight, settings.free_bits)

    def posterior_sampling_chain(self) -> Chain | None:
        """Return None: the inference network draws posterior samples."""
        return None

    def update(
        self, model: JointModel, x: Float[Tensor, "batch channels height width"], noise: Noise, step: int = 0
    ) -> ELBOUpdate:
        """Draw once from q(z|x) and return minus the ELBO, its KL weighted by the warm-up.

        Where the KL of the layers has no closed form, log q(z|x) - log p0(z) at the draw stands for their sum.

        Raises:
            UserError: there are free bits, and the KL of the layers is not known.
        """
        posterior, likelihood = inferred(model.backbone, x, noise)
        kl = posterior.kl
        if kl is None:
            kl = (posterior.log_prob - model.backbone.prior_log_prob(posterior.latents))[None]
        terms = ELBOTerms(likelihood.log_prob(x), kl, posterior.latents)
        weight = warmed_up(step, self.kl_warmup, self.kl_weight)
        paid = terms.kl.sum(0).mean()
        if self.free_bits:
            if len(kl) != len(self.free_bits):
                raise UserError(f"{type(model.backbone).__name__} gives no KL of its layers, which free_bits need")
            paid = torch.maximum(kl.mean(1), kl.new_tensor(self.free_bits)).sum()
        return ELBOUpdate(terms, weight * paid - terms.log_likelihood.mean(), weight)
