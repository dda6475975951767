"""Hierarchical sampling, reconstruction and scores L^{>k}: some layers are resampled while the others are kept.

Layers are kept and resampled in whitened noise, z = T(eps), so that a kept layer stays the same relative to the layers
above it (docs/facts, "Hierarchical sampling and reconstruction"). A resampled layer starts at N(0, I) and runs a chain
in the EBM prior given the kept layers: only its coordinates move, under the energies of all layers that it changes.
Without a chain the draw comes from the Gaussian hierarchy, which needs none: the twin in every figure.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from jlebm import langevin
from jlebm.backbones.protocol import push_below
from jlebm.densities import Posterior, PriorInNoise, SomeLayers
from jlebm.engines.precision import arithmetic
from jlebm.errors import UserError
from jlebm.langevin import Chain
from jlebm.latents import Latents
from jlebm.model import JointModel
from jlebm.randomness import GENERATOR, Noise, Scheme, image_noise
from jlebm.sampling import Decoding, Samples, batch_of, dealt, decoded


@dataclass(frozen=True)
class PartialPosterior:
    """Distribution of latents with z_{>k} from the posterior and z_{<=k} from the prior given them."""

    k: int
    """Number of layers drawn from the prior given those above them, counted from the bottom: 0 to L."""
    chain: Chain | None
    """Chain of the EBM prior of z_{<=k} given z_{>k}, in whitened noise; None draws from the Gaussian prior."""
    posterior_chain: Chain | None = None
    """Chain of p(z|x); None draws from the inference network."""
    noise: Scheme = GENERATOR
    """Scheme of the noise."""


OneDraw: TypeAlias = tuple[Float[Tensor, "1 ..."], ...]  # whitened noise of every layer, top first, of one image


def frozen_noise(model: JointModel, seed: int, chain: Chain | None, scheme: Scheme = GENERATOR) -> OneDraw:
    """Draw the whitened noise of all layers for one image, of which `resample` keeps some.

    `sampling.generate` decodes the same draw for this seed: with this chain, or with none from the Gaussian prior.

    Raises:
        UserError: the chain does not move in whitened noise.
    """
    noise = image_noise("sample", [seed], scheme)
    return model.noise(1, noise) if chain is None else model.sample_noise(1, _in_noise(chain), noise)


def resampled(
    model: JointModel,
    eps: OneDraw,
    layers: Sequence[int],
    seeds: Sequence[int],
    chain: Chain | None,
    scheme: Scheme = GENERATOR,
) -> Latents:
    """Resample some layers of `eps` once per seed; return whitened noise whose other layers are equal to the bit.

    Args:
        model: the trained model.
        eps: whitened noise of all layers, of one image.
        layers: indices of the resampled layers, counted from the top: z_L is 0.
        seeds: one per draw, which depends on its seed alone and shares no noise with `sampling.generate`.
        chain: chain of the EBM prior given the kept layers; None draws from the Gaussian prior.
        scheme: of the noise.

    Raises:
        UserError: there is no such layer, or the chain does not move in whitened noise.
    """
    drawn = tuple(sorted(set(layers)))
    if not drawn or not 0 <= drawn[0] <= drawn[-1] < len(eps):
        raise UserError(f"layers {list(layers)} cannot be resampled; the model's are 0, the top, to {len(eps) - 1}")
    held = tuple(layer.expand(len(seeds), *layer.shape[1:]) for layer in eps)
    noise = image_noise("layers", seeds, scheme)
    moving = noise(tuple(held[index] for index in drawn))
    prior = PriorInNoise(model.backbone, model.energy) if chain is None else model.prior_in_noise(_in_noise(chain))
    density = SomeLayers(prior, held, drawn)
    if chain is not None:
        with arithmetic(model.backbone):
            moving = langevin.run(moving, density, chain, noise)
    return density.whole(moving)


def resample(
    model: JointModel,
    eps: OneDraw,
    layers: Sequence[int],
    seeds: Sequence[int],
    chain: Chain | None,
    batch_size: int = 500,
) -> Iterator[Samples]:
    """Decode what `resampled` returns, in batches: one panel of hierarchical sampling."""

    def draw(first: int) -> Samples:
        drawn = resampled(model, eps, layers, seeds[first : first + batch_size], chain)
        return decoded(model, model.pushed(drawn))

    yield from dealt(draw, len(seeds), batch_size)


def reconstruct_from(
    model: JointModel,
    images: np.ndarray,
    chosen: Sequence[int],
    latents: PartialPosterior,
    batch_size: int = 100,
    decoding: Decoding = "mean",
) -> Iterator[Samples]:
    """Keep z_{>k} of each chosen image's posterior sample, draw z_{<=k} given them, and decode: one column of a figure.

    k = 0 is `sampling.reconstruct`, k = L an image of the prior. The posterior sample is the same for every k.

    Args:
        model: the trained model.
        images: uint8 (N, C, H, W).
        chosen: indices of the images to use; the noise of image i depends on i alone.
        latents: k, and the chains that draw the kept layers and those below.
        batch_size: images per batch.
        decoding: the decoder's mean, or a draw from its distribution.

    Raises:
        UserError: k is not in 0 to L, the chain does not move in whitened noise, or the backbone has no `push_below`.
    """
    _check(model, latents)

    def draw(first: int) -> Samples:
        indices, x = batch_of(model, images, chosen[first : first + batch_size])
        upper, lower = (image_noise(role, indices, latents.noise) for role in ("posterior", "layers"))
        z = _drawn_below(model, model.sample_posterior(x, latents.posterior_chain, upper), latents, lower)
        return decoded(model, z, upper if decoding == "sample" else None)

    yield from dealt(draw, len(chosen), batch_size)


def scores_above(
    model: JointModel,
    images: np.ndarray,
    chosen: Sequence[int],
    latents: PartialPosterior,
    draws: int = 1,
    batch_size: int = 100,
) -> Float64[np.ndarray, " chosen"]:
    """Return L^{>k} of each chosen image in nats, up to log Z: the paper's Eq. 20 (docs/facts, "Scores above a layer").

    L^{>k} = E[log p(x|z) + log p0(z) - E(z)] with z_{>k} ~ q(z|x) and z_{<=k} from the EBM prior given them; there is
    no entropy term. L^{>0} is the unnormalised log posterior at posterior samples: the score of anomaly detection.

    Args:
        model: the trained model.
        images: uint8 (N, C, H, W).
        chosen: indices of the images to use; the noise of image i depends on i alone.
        latents: k, and the chains that draw the layers above and below it.
        draws: number of draws of z to average over.
        batch_size: images per batch.

    Raises:
        UserError: as in `reconstruct_from`, or `draws` is less than one.
    """
    _check(model, latents)
    _check_draws(draws)
    found = [np.empty(0)]
    for first in range(0, len(chosen), batch_size):
        indices, x = batch_of(model, images, chosen[first : first + batch_size])
        upper, lower = (image_noise(role, indices, latents.noise) for role in ("posterior", "layers"))
        density, total = Posterior(model.backbone, model.energy, x), x.new_zeros(len(x), dtype=torch.float64)
        for _ in range(draws):
            z = _drawn_below(model, model.sample_posterior(x, latents.posterior_chain, upper), latents, lower)
            total += _value(density, z)
        found.append((total / draws).cpu().numpy())
    return np.concatenate(found)


@dataclass(frozen=True)
class PosteriorTerms:
    """The parts of log p(x, z) at posterior samples, each a mean over the draws, in nats."""

    log_likelihood: Float64[np.ndarray, " chosen"]
    """log p(x|z)."""
    log_prior: Float64[np.ndarray, " chosen"]
    """log p0(z), of the Gaussian hierarchy."""
    energy: Float64[np.ndarray, " chosen"]
    """E(z), the sum over the layers."""
    log_joint: Float64[np.ndarray, " chosen"]
    """log p(x, z) up to log Z, the first plus the second less the third: L^{>0} of Eq. 20."""


def posterior_terms(
    model: JointModel,
    images: np.ndarray,
    chosen: Sequence[int],
    latents: PartialPosterior = PartialPosterior(0, None),
    draws: int = 1,
    batch_size: int = 100,
) -> PosteriorTerms:
    """Return the parts of the score `scores_above` with k = 0, at the same draws; `log_joint` is that score to the bit.

    Args:
        model: the trained model.
        images: uint8 (N, C, H, W).
        chosen: indices of the images to use; the noise of image i depends on i alone.
        latents: the posterior's chain and the noise are used.
        draws: number of draws of z to average over.
        batch_size: images per batch.

    Raises:
        UserError: `draws` is less than one, or the chain does not move in latents.
    """
    _check_draws(draws)
    found = [np.empty((4, 0))]
    for first in range(0, len(chosen), batch_size):
        indices, x = batch_of(model, images, chosen[first : first + batch_size])
        density = Posterior(model.backbone, model.energy, x)
        noise, total = image_noise("posterior", indices, latents.noise), x.new_zeros(4, len(x), dtype=torch.float64)
        for _ in range(draws):
            z = model.sample_posterior(x, latents.posterior_chain, noise)
            with torch.no_grad(), arithmetic(model.backbone):
                parts = density.log_likelihood(z), model.backbone.prior_log_prob(z), model.energy_at(z).sum(1)
            likelihood, prior, energy = parts
            total += torch.stack([*parts, likelihood + prior - energy])  # in the order of `Posterior`, and its rounding
        found.append((total / draws).cpu().numpy())
    return PosteriorTerms(*np.concatenate(found, axis=1))


def _value(density: Posterior, z: Latents) -> Float[Tensor, " batch"]:
    with torch.no_grad(), arithmetic(density.backbone):
        return density(z)


def _drawn_below(model: JointModel, z: Latents, latents: PartialPosterior, noise: Noise) -> Latents:
    """Return z with its k bottom layers resampled given the ones above."""
    k, chain = latents.k, latents.chain
    kept, lower = z[: len(z) - k], z[len(z) - k :]
    if not lower:
        return z
    eps = noise(lower)
    with arithmetic(model.backbone):
        if chain is not None:
            eps = langevin.run(eps, model.prior_in_noise(chain, kept), chain, noise)
        with torch.no_grad():
            return push_below(model.backbone, kept, eps)


def _check(model: JointModel, latents: PartialPosterior) -> None:
    layers = len(model.backbone.latent_shapes)
    if not 0 <= latents.k <= layers:
        raise UserError(f"k is the number of layers that the prior draws, 0 to {layers}, not {latents.k}")
    if latents.chain is not None:
        _in_noise(latents.chain)


def _check_draws(draws: int) -> None:
    if draws < 1:
        raise UserError(f"a score needs at least one draw of the latents, not {draws}")


def _in_noise(chain: Chain) -> Chain:
    if chain.space != "noise":
        raise UserError(
            "layers are kept and drawn in whitened noise; set the chain's space to 'noise' and its start to 'ancestral'"
        )
    return chain
