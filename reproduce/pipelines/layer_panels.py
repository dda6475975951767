"""Arrays for the figures of a hierarchy: layers drawn anew, and reconstructions from few layers.

The model with its EBM prior is compared with a twin with a Gaussian prior, which runs no chain: for a ladder a model
trained beside it, for a two-stage model the same backbone without the energies.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from jlebm import hierarchy
from jlebm.data import Dataset
from jlebm.engines import parallel
from jlebm.errors import UserError
from jlebm.langevin import Chain
from jlebm.latents import layer_names
from jlebm.model import JointModel
from jlebm.sampling import gathered
from reproduce.measuring.row_store import Rows
from reproduce.measuring.sample_sets import posterior_indices
from reproduce.pipelines import transition
from reproduce.pipelines.pictures import files_of, store, there
from reproduce.presets.extents import Extent

FROZEN = 1  # seed of the draw whose layers panels keep
PANELS = 3  # panels of hierarchical sampling: one per layer, or per group of layers of a deeper model
PLACES = {2: ("bottom", "top"), 3: ("bottom", "middle", "top")}


@dataclass(frozen=True)
class Pair:
    """A model with an EBM prior, and its twin with a Gaussian one."""

    model: JointModel
    chain: Chain
    """Chain of the model's prior, in whitened noise."""
    twin: JointModel
    batch_size: int = 100
    """Images drawn at a time."""

    def each(self) -> tuple[tuple[JointModel, Chain | None], ...]:
        """Return both models with their chains; the twin has none."""
        return (self.model, self.chain), (self.twin, None)


def draw(pair: Pair, extent: Extent, held_out: Dataset, rows: Rows, into: Path) -> None:
    """Write the arrays that `into` lacks and, if the repository keeps them, its artifacts.

    Args:
        pair: model and twin.
        extent: how much is drawn.
        held_out: images to reconstruct.
        rows: of the model.
        into: the folder of the run.

    Raises:
        UserError: the model has a single layer, its chain is not one in whitened noise, or the disk is full.
    """
    kinds: dict[str, Callable[[], Mapping[str, np.ndarray]]] = {
        "layers": partial(layers, pair, extent.draws),
        "reconstruction": partial(reconstruction, pair, held_out, extent.rows),
        "transition": partial(
            transition.transition,
            pair.model,
            pair.chain,
            rows.session.dataset.images,
            extent.short,
            extent.long,
            pair.batch_size,
        ),
    }
    for kind, make in kinds.items():
        if parallel.agreed(there(files_of(rows, into, (kind,)))):
            continue
        rows.session.report.line(f"drawing {kind}")
        arrays = make()  # by all processes, which share the batches
        if parallel.first():
            store(kind, arrays, rows, into)


def left(rows: Rows, into: Path) -> list[Path]:
    """Return all files that `draw` writes."""
    return files_of(rows, into, ("layers", "reconstruction", "transition"))


def groups_of(count: int) -> tuple[tuple[int, ...], ...]:
    """Return the layers of each panel, bottom panel first, as indices from the top.

    Raises:
        UserError: there is a single layer.
    """
    if count < 2:
        raise UserError(f"hierarchical sampling keeps some layers and draws others: it needs two or more, not {count}")
    parts = np.array_split(np.arange(count), min(count, PANELS))
    return tuple(tuple(part.tolist()) for part in parts[::-1])


def panel_names(count: int) -> list[str]:
    """Return the names of the panels, the bottom one first: "z1, bottom"."""
    names, groups = layer_names(count), groups_of(count)
    said = [names[group[0]] if len(group) == 1 else f"{names[group[0]]} to {names[group[-1]]}" for group in groups]
    return [f"{layer}, {place}" for layer, place in zip(said, PLACES[len(groups)], strict=True)]


def layers(pair: Pair, draws: int) -> dict[str, np.ndarray]:
    """Draw hierarchical sampling: each panel keeps one draw of the prior except a layer or group, which is drawn anew.

    Returns:
        panels: uint8 (panels, draws, channels, height, width), bottom panel first.
        twin: the same of the twin, from a full draw of its own.
        names: of the panels.

    Raises:
        UserError: the model has a single layer, or its chain is not one in whitened noise.
    """
    count, seeds = len(pair.model.backbone.latent_shapes), range(draws)
    drawn = []
    for model, chain in pair.each():
        eps = hierarchy.frozen_noise(model, FROZEN, chain)
        panels = (hierarchy.resample(model, eps, each, seeds, chain, pair.batch_size) for each in groups_of(count))
        drawn.append(np.stack([gathered(panel) for panel in panels]))
    return {"panels": drawn[0], "twin": drawn[1], "names": np.array(panel_names(count))}


def reconstruction(pair: Pair, held_out: Dataset, rows: int) -> dict[str, np.ndarray]:
    """Draw hierarchical reconstruction: images, and each reconstructed with k layers taken from the prior.

    Returns:
        images: uint8 (rows, layers + 2, channels, height, width): the image, then k = 0 to L.
        twin: the same of the twin.
        note: names the images.

    Raises:
        UserError: the model's chain is not one in whitened noise.
    """
    images, chosen = held_out.images, posterior_indices(len(held_out.images), rows)
    drawn = []
    for model, chain in pair.each():
        columns = [np.array(images[chosen])]
        for k in range(len(model.backbone.latent_shapes) + 1):
            latents = hierarchy.PartialPosterior(k, chain)
            batches = hierarchy.reconstruct_from(model, images, chosen, latents, pair.batch_size)
            columns.append(gathered(batches))
        drawn.append(np.stack(columns, axis=1))
    kind = "training images" if held_out.split == "train" else "held-out images"
    note = f"{kind}, {held_out.name}/{held_out.split}, numbers {', '.join(map(str, chosen))}"
    return {"images": drawn[0], "twin": drawn[1], "note": np.array(note)}
