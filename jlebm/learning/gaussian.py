"""Learning the Gaussian hierarchy alone by its ELBO: the twin, in every figure, of a model with an EBM prior."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from jlebm.backbones.ladder import LadderConfig
from jlebm.backbones.protocol import ELBOTerms
from jlebm.errors import UserError
from jlebm.langevin import Chain
from jlebm.learning.scheme import ELBOUpdate, OneUpdate, warmed_up
from jlebm.learning.settings import JointSettings, refuse_conditional_gradient
from jlebm.model import JointModel
from jlebm.randomness import Noise


@dataclass(frozen=True)
class Gaussian(OneUpdate):
    """Train backbone and inference network by E_q[log p(x|z)] - KL(q(z|x) | p0(z)), without energies."""

    kl_warmup: int = 0
    """Updates over which the KL's weight rises (Sonderby et al., 2016, arXiv 1602.02282)."""
    kl_weight: float = 1.0
    """Full weight of the KL; 1 is the ELBO."""

    has_energies = False

    @classmethod
    def of(cls, settings: JointSettings) -> "Gaussian":
        """Return the scheme of a configuration.

        Raises:
            UserError: it has energies, its model is no ladder, or it sets what belongs to another learning.
        """
        if settings.energy_hidden or settings.energy is not None:
            raise UserError("with learning 'gaussian' the prior has no energy; set energy_hidden to [], energy to null")
        if not isinstance(settings.model, LadderConfig):
            raise UserError("learning 'gaussian' needs a ladder, whose layers' KLs are known; model is of another kind")
        refuse_conditional_gradient("gaussian", settings)
        return cls(settings.kl_warmup, settings.kl_weight)

    def posterior_sampling_chain(self) -> Chain | None:
        """Return None: the inference network draws posterior samples."""
        return None

    def update(
        self, model: JointModel, x: Float[Tensor, "batch channels height width"], noise: Noise, step: int = 0
    ) -> ELBOUpdate:
        """Draw once from q(z|x) and return minus the ELBO, its KL weighted by the warm-up.

        Raises:
            UserError: the backbone's posterior does not give the KL of its layers.
        """
        posterior = model.backbone.posterior(x, noise)
        if posterior.kl is None:
            raise UserError(
                f"{type(model.backbone).__name__}.posterior gives no KL of its layers, which the ELBO needs"
            )
        likelihood = model.backbone.decode(posterior.latents)
        terms = ELBOTerms(likelihood.log_prob(x), posterior.kl, posterior.latents)
        weight = warmed_up(step, self.kl_warmup, self.kl_weight)
        return ELBOUpdate(terms, weight * terms.kl.sum(0).mean() - terms.log_likelihood.mean(), weight)
