"""A trained model, ready to use: it samples, reconstructs and scores with the chains of its own recipe."""

import operator
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, SupportsIndex

import numpy as np
import torch
from jaxtyping import Float64, UInt8

from jlebm import hierarchy, sampling
from jlebm.choices import Prior, Scheme
from jlebm.devices import layout, resolve_device
from jlebm.engines.gradients import outside_inference_mode
from jlebm.errors import UserError, nearest
from jlebm.hierarchy import PartialPosterior
from jlebm.langevin import Chain
from jlebm.learning.trainable import Trainable
from jlebm.model import JointModel
from jlebm.randomness import SCHEMES
from jlebm.sampling import Drawing, Sampler, Samples

BATCH_OF_IMAGES = 100  # images reconstructed or scored per batch


@dataclass(repr=False)
class TrainedModel:
    """A trained joint EBM prior with its generator and its recipe's chains."""

    model: JointModel
    header: dict[str, Any]
    """The header of the weights file: configuration, digest, seed, steps, raw or averaged weights, sampler."""
    image_shape: tuple[int, int, int]
    """Channels, height and width of its images."""
    experiment: Trainable | None = None
    """The configuration it was trained with; None for a backbone alone."""
    sampler: Sampler | None = None
    """Sampler of its recipe; None if neither the file nor the configuration has one."""
    batch_size: int | None = None
    """Images per batch; None for the size that fills the device."""

    def __repr__(self) -> str:
        one, shapes = self.experiment, self.model.backbone.latent_shapes
        trained = "" if one is None else f"{one.dataset}, {one.learning}, preset {one.preset}, "
        layers = " + ".join("x".join(map(str, shape)) for shape in shapes)
        energies = "" if self.has_energies else ", no energies"
        return f"TrainedModel({trained}latents {layers}, images {'x'.join(map(str, self.image_shape))}{energies})"

    @property
    def layers(self) -> int:
        """The number L of latent layers."""
        return len(self.model.backbone.latent_shapes)

    @property
    def has_energies(self) -> bool:
        """Whether there is an EBM prior; a Gaussian twin and a backbone alone have none."""
        return any(True for _ in self.model.energy.parameters())

    def to(self, device: str | torch.device) -> "TrainedModel":
        """Move the weights to a device and return this model; names are those of `jlebm.devices.resolve_device`.

        Raises:
            UserError: there is no such device.
        """
        there = resolve_device(device) if isinstance(device, str) else device
        self.model.to(there)
        if there.type != "cpu":
            self.model.to(memory_format=layout(there))
        return self

    def drawn_at_a_time(self, asked: int | None = None) -> int:
        """Return the batch size of sampling: the one asked for, else the recipe's, else the one that fills the device.

        Raises:
            UserError: `asked` is less than one.
        """
        if asked is not None and asked < 1:
            raise UserError(f"images are drawn at least one at a time, not {asked}")
        return asked or self.batch_size or sampling.filling_batch(self.model)

    def draw(
        self,
        seeds: Iterable[SupportsIndex],
        prior: Prior = "ebm-prior",
        chain: Chain | None = None,
        batch_size: int | None = None,
        noise: Scheme | None = None,
    ) -> Iterator[Samples]:
        """Yield the images of `sample` in batches, with their latents; arguments and errors as there."""
        seeds = checked_seeds(seeds)
        size = self.drawn_at_a_time(batch_size)
        chosen = self._chain(prior, chain)
        sampler = self.sampler or Sampler(chosen or Chain(0, epsilon=1.0))  # the Gaussian prior runs no chain
        if chosen is not None:
            sampler = replace(sampler, chain=chosen)
        if noise is not None:
            sampler = replace(sampler, noise=checked_scheme(noise))
        return sampling.generate(self.model, prior, seeds, sampler, size)

    def sample(
        self,
        seeds: Iterable[SupportsIndex],
        prior: Prior = "ebm-prior",
        chain: Chain | None = None,
        batch_size: int | None = None,
        noise: Scheme | None = None,
    ) -> UInt8[np.ndarray, "count channels height width"]:
        """Draw one image per seed, uint8 (N, C, H, W): image i from seed i alone, equal to its recipe's sample i.

        Args:
            seeds: whole numbers, such as `range(16)`.
            prior: "ebm-prior", or "gaussian-prior" for the hierarchy without its energies.
            chain: chain of the EBM prior; None for the recipe's own.
            batch_size: images per batch; None for the recipe's own. Another size may round float32 differently.
            noise: scheme of the noise, "generator/1" or "philox/1"; None for the recipe's own (docs/noise).

        Raises:
            UserError: a seed is not a whole number from 0 on, the model has no such prior, it has no chain, or the
                noise has no such scheme.
        """
        chosen = checked_seeds(seeds)
        batches = self.draw(chosen, prior, chain, batch_size, noise)
        with outside_inference_mode():
            return sampling.gathered(batches) if chosen else np.empty((0, *self.image_shape), np.uint8)

    def reconstruct(
        self,
        images: np.ndarray,
        keep: int | None = None,
        prior: Prior = "ebm-prior",
        chain: Chain | None = None,
    ) -> UInt8[np.ndarray, "count channels height width"]:
        """Keep the top layers of each image's posterior sample, draw the others from the prior, and decode.

        The noise of image i depends on i alone. Posterior samples come from a short chain for joint maximum likelihood,
        else from the inference network.

        Args:
            images: uint8 (N, C, H, W).
            keep: number of layers to keep, from the top, 0 to L; None for all.
            prior: prior of the layers below.
            chain: chain of the EBM prior of those layers, in whitened noise; None for the recipe's own.

        Raises:
            UserError: the images do not fit, there are no such layers, or the chain moves in latents.
        """
        self._check(images)
        if not len(images):
            return np.empty(images.shape, np.uint8)
        below = 0 if keep is None else self.layers - self._layers(keep)
        posterior = self._posterior_chain()
        indices, size = range(len(images)), self.batch_size or BATCH_OF_IMAGES
        if below == 0:
            batches = sampling.reconstruct(self.model, images, indices, posterior, size, self._drawing)
        else:
            chosen = self._chain(prior, chain)
            latents = PartialPosterior(below, chosen, posterior, self._drawing.noise)
            batches = hierarchy.reconstruct_from(self.model, images, indices, latents, size, self._drawing.decoding)
        with outside_inference_mode():
            return sampling.gathered(batches)

    def score(
        self,
        images: np.ndarray,
        above: int = 0,
        prior: Prior = "ebm-prior",
        chain: Chain | None = None,
        draws: int = 1,
    ) -> Float64[np.ndarray, " count"]:
        """Return L^{>k} of each image in nats, up to log Z: Eq. 20, `jlebm.hierarchy.scores_above`.

        Args:
            images: uint8 (N, C, H, W).
            above: k: layers above it come from the posterior, the k bottom ones from the prior given them.
            prior: prior of the k bottom layers.
            chain: chain of the EBM prior of those layers, in whitened noise; None for the recipe's own.
            draws: number of draws of the latents to average over.

        Raises:
            UserError: the images do not fit, there are no such layers or draws, or the chain moves in latents.
        """
        self._check(images)
        if not len(images):
            return np.empty(0)
        below = self._layers(above)
        chosen = self._chain(prior, chain) if below else None
        latents = PartialPosterior(below, chosen, self._posterior_chain(), self._drawing.noise)
        size = self.batch_size or BATCH_OF_IMAGES
        with outside_inference_mode():
            return hierarchy.scores_above(self.model, images, range(len(images)), latents, draws, size)

    def _chain(self, prior: Prior, chain: Chain | None) -> Chain | None:
        """Return the chain of a prior, None for the Gaussian one."""
        if prior not in ("ebm-prior", "gaussian-prior"):
            raise UserError(f"unknown prior {prior!r}{nearest(str(prior), ('ebm-prior', 'gaussian-prior'))}")
        if prior == "gaussian-prior":
            return None
        if not self.has_energies:
            raise UserError("this model has no energies, and so no EBM prior; sample its gaussian-prior")
        if chain is None and self.sampler is None:
            raise UserError(
                "these weights were written without the chain of their samples; give one, or run their recipe's "
                "command again, which writes them with it and does not train again"
            )
        return self.sampler.chain if chain is None and self.sampler is not None else chain

    @property
    def _drawing(self) -> Drawing:
        return Drawing() if self.sampler is None else self.sampler.drawing

    def _posterior_chain(self) -> Chain | None:
        return None if self.experiment is None else self.experiment.posterior_sampling_chain()

    def _layers(self, count: int) -> int:
        if not 0 <= count <= self.layers:
            raise UserError(f"the model has {self.layers} latent layers; give 0 to {self.layers} of them, not {count}")
        return count

    def _check(self, images: Any) -> None:
        if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape[1:] != self.image_shape:
            shape, kind = getattr(images, "shape", "none"), getattr(images, "dtype", type(images).__name__)
            raise UserError(
                f"images must be a numpy array of uint8 and of shape (N, {', '.join(map(str, self.image_shape))}), "
                f"not {kind} of shape {shape}"
            )


def checked_seeds(seeds: Iterable[SupportsIndex] | int) -> list[int]:
    """Return the seeds as a list of plain ints.

    Raises:
        UserError: a seed is not a whole number from 0 on.
    """
    plain = []
    if not isinstance(seeds, Iterable):
        raise UserError(f"give one seed for each image, such as range({seeds}), not {seeds!r}")
    for seed in seeds:
        number = operator.index(seed) if isinstance(seed, SupportsIndex) else -1
        if number < 0:
            raise UserError(f"seeds are whole numbers from 0 up, not {seed!r}")
        plain.append(number)
    return plain


def checked_scheme(noise: str) -> Scheme:
    """Return the name of a scheme of noise.

    Raises:
        UserError: there is none of this name.
    """
    if noise not in SCHEMES:
        raise UserError(f"unknown noise {noise!r}{nearest(noise, SCHEMES)}")
    return noise
