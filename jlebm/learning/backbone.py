"""Stage one of the two-stage scheme: a deep hierarchy with its Gaussian prior, by the ELBO (arXiv 2007.03898)."""

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from jlebm.backbones.nvae.nvae_config import NVAEConfig
from jlebm.backbones.nvae.regularisation import RegularisedNVAE
from jlebm.learning.scheme import ELBOUpdate
from jlebm.randomness import Noise
from jlebm.staged import ELBOConfig


@dataclass(frozen=True)
class BackboneOnly:
    """The ELBO with KL warm-up and balancing, spectral regularisation and mixed precision."""

    config: ELBOConfig

    def update(
        self, model: RegularisedNVAE, x: Float[Tensor, "batch channels height width"], noise: Noise, step: int = 0
    ) -> ELBOUpdate:
        """Draw once from q(z|x) and return the loss of update number `step`."""
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


def balance(kl: Float[Tensor, " groups"], sizes: Float[Tensor, " groups"]) -> Float[Tensor, " groups"]:
    """Return each group's factor during the warm-up, of mean 1: groups that hold little information are pulled less.

    In proportion to the group's KL and inversely to its share of the latents, so that a scale of higher resolution does
    not take everything (arXiv 2007.03898, appendix A; the constants are this project's).
    """
    factors = (kl.abs() + 1e-2) / sizes
    return factors / factors.mean()


def _sizes(config: NVAEConfig, like: Tensor) -> Float[Tensor, " groups"]:
    """Return how many latents each group has, relative to the top's, over the number of groups of its scale."""
    values = []
    for scale, count in enumerate(reversed(config.groups())):
        values += [4.0**scale / count] * count
    sizes = like.new_tensor(values)
    return sizes / sizes.min()
