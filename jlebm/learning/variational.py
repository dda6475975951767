"""Variational learning: an inference network instead of posterior chains (docs/facts, "Variational learning")."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from jlebm.langevin import Chain
from jlebm.latents import map_latents
from jlebm.learning.scheme import ContrastiveUpdate, OneUpdate, warmed_up
from jlebm.learning.settings import JointSettings, refuse_free_bits, refuse_without_inference
from jlebm.model import JointModel
from jlebm.objectives import ConditionalGradient, variational_loss
from jlebm.randomness import Noise


@dataclass(frozen=True)
class Variational(OneUpdate):
    """Draw posterior samples from q(z|x), prior samples by short chains restarted at every update."""

    prior_chain: Chain
    energy_l2: float = 0.0
    kl_warmup: int = 0
    """Updates over which the weight of KL(q(z|x) | p(z)) rises; the energies' own gradient has that weight too."""
    kl_weight: float = 1.0
    """Full weight of the KL; 1 is the ELBO."""
    conditional_gradient: ConditionalGradient = "exact"

    has_energies = True
    needs_energies = True

    @classmethod
    def of(cls, settings: JointSettings) -> "Variational":
        """Return the scheme of a configuration.

        Raises:
            UserError: its model has no inference network.
        """
        refuse_without_inference("variational", settings)
        refuse_free_bits("variational", settings)
        l2 = settings.optimizer.energy_l2
        return cls(settings.prior_chain, l2, settings.kl_warmup, settings.kl_weight, settings.conditional_gradient)

    def posterior_sampling_chain(self) -> Chain | None:
        """Return None: the inference network draws posterior samples."""
        return None

    def update(
        self, model: JointModel, x: Float[Tensor, "batch channels height width"], noise: Noise, step: int = 0
    ) -> ContrastiveUpdate:
        """Run the prior's chains, draw from the inference network, and return minus the ELBO."""
        prior = model.sample_prior(len(x), self.prior_chain, noise)
        posterior = model.backbone.posterior(x, noise)
        losses = variational_loss(model, x, posterior, prior, self.energy_l2, self.conditional_gradient)
        latents = map_latents(Tensor.detach, posterior.latents)
        weight = warmed_up(step, self.kl_warmup, self.kl_weight)
        return ContrastiveUpdate(model, losses, latents, prior, posterior.kl, weight)
