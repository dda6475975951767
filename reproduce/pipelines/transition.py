"""Langevin transitions: short and long prior chains from reference noise, as arrays for figures.

Three numbers along a long chain tell whether it keeps sampling: the drift of its energy, the share of saturated pixels,
and the distance between images of independent chains.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, UInt8

from jlebm.diagnostics import drift_of
from jlebm.langevin import Chain, StepInfo
from jlebm.latents import Latents, layer_names
from jlebm.model import JointModel
from jlebm.randomness import PerImageNoise
from jlebm.sampling import decoded
from reproduce.presets.extents import LONG, SHORT, Length

SHOWN = 3  # chains whose images are kept
ENDS = (1, 254)  # pixels at or beyond these are saturated
BURN_IN = 100  # steps of a long chain
JUDGED = 1000  # training images whose saturated pixels are counted
LARGEST_HALF = 60_000  # largest energy stored as float16


class Watched:
    """Observer of a chain that records energies and, every few steps, decoded images.

    Args:
        model: whose chains are observed.
        start: their starting points.
        length: how often images are stored.
    """

    def __init__(self, model: JointModel, start: Latents, length: Length):
        self.model, self.length = model, length
        self.energies: list[np.ndarray] = []
        self.images: list[np.ndarray] = []
        self._see(0, start)

    def __call__(self, index: int, position: Latents, info: StepInfo) -> None:
        """Record the position after a step."""
        self._see(index + 1, position)

    def _see(self, step: int, z: Latents) -> None:
        self.energies.append(self.model.energies(z).float().cpu().numpy())
        if step % self.length.every == 0 and len(self.images) < self.length.images:
            self.images.append(decoded(self.model, z).images.cpu().numpy())


def transition(
    model: JointModel,
    chain: Chain,
    data: UInt8[np.ndarray, "count channels height width"],
    short: Length = SHORT,
    long: Length = LONG,
    batch_size: int = 100,
) -> dict[str, np.ndarray]:
    """Run short and long prior chains from reference noise and record them.

    Args:
        model: with the energies.
        chain: of its prior, in whitened noise; `short` and `long` replace its number of steps.
        data: training images, for comparison.
        short: length of the short chains.
        long: length of the long ones.
        batch_size: most chains that fit in memory.

    Returns:
        short_images, long_images: uint8 (shown chains, images, channels, height, width).
        short_energy, long_energy: of each layer at the start and after every step, (steps + 1, chains, layers).
        saturated, diversity: of all long chains at each of their images; float16.
        saturated_data, diversity_data: of the data.
        notes: the drift of the long chains' energy.
    """
    seen = []
    for length in (short, long):
        chains = min(length.chains, max(batch_size, 2))
        run = dataclasses.replace(chain, steps=length.steps)
        # The start is drawn twice, from the same seeds: once to record it, once by the chain itself.
        watched = Watched(model, model.start(chains, run, PerImageNoise("sample", range(chains))), length)
        model.sample_prior(chains, run, PerImageNoise("sample", range(chains)), watched)
        seen.append(watched)
    energies = [np.stack(watched.energies) for watched in seen]
    chains = len(seen[1].images[0])
    some, as_many = (data[:: max(1, len(data) // count)][:count] for count in (JUDGED, chains))
    arrays = {
        "saturated": np.array([saturated(images) for images in seen[1].images], np.float16),
        "saturated_data": np.array(saturated(some), np.float16),
        "diversity": np.array([diversity(images) for images in seen[1].images], np.float16),
        "diversity_data": np.array(diversity(as_many), np.float16),
        "notes": np.array(drifts(energies[1])),
    }
    for name, watched, energy in zip(("short", "long"), seen, energies, strict=True):
        arrays[f"{name}_images"] = np.stack(watched.images, axis=1)[:SHOWN]
        arrays[f"{name}_energy"] = energy.astype(np.float16) if np.abs(energy).max() < LARGEST_HALF else energy
    return arrays


def saturated(images: UInt8[np.ndarray, "count channels height width"]) -> float:
    """Return the share of pixels at 0 or 1, or at 254 or 255."""
    return float(((images <= ENDS[0]) | (images >= ENDS[1])).mean())


def diversity(images: UInt8[np.ndarray, "count channels height width"]) -> float:
    """Return the mean over pairs of images of the root-mean-square distance of pixels in [0, 1]."""
    flat = images.reshape(len(images), -1) / 255
    distances = [np.sqrt(np.square(flat[i + 1 :] - flat[i]).mean(axis=1)) for i in range(len(flat) - 1)]
    return float(np.concatenate(distances).mean())


def drifts(energy: Float[np.ndarray, "steps_and_start chains layers"]) -> list[str]:
    """Describe the drift of the energy after burn-in, for each layer and for their sum."""
    first = min(BURN_IN, len(energy) // 2)
    steps, chains, layers = len(energy) - 1, energy.shape[1], energy.shape[2]
    curves = {"all layers": energy.sum(axis=2)}
    curves |= {name: energy[:, :, index] for index, name in enumerate(layer_names(layers))}
    said = []
    for name, curve in curves.items():
        found = drift_of(curve[first:].astype(np.float64))
        if found is None:
            said.append(f"{name}: all chains have the same energy")
            continue
        scale = 1000 / (steps - first)
        said.append(
            f"{name}: the energy drifts by {found.change * scale:+.3f} ± {found.error * scale:.3f} standard deviations "
            f"per 1,000 steps over steps {first} to {steps} of {chains} chains"
        )
    return said
