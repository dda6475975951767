"""What each layer of a hierarchy holds, as arrays for figures: some layers drawn anew, and reconstructions from few.

The model with its EBM prior stands beside a twin with a Gaussian one, which runs no chain: of a ladder a model of its
own, of a two-stage model the same backbone without the energies.
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
from reproduce.measuring.sampled import posterior_indices
from reproduce.measuring.session import Session, Subject
from reproduce.pipelines import transition
from reproduce.pipelines.pictures import files_of, store, there
from reproduce.presets.extents import Extent

FROZEN = 1  # the seed of the draw that panels keep layers of
PANELS = 3  # of hierarchical sampling: one a layer, or a group of layers of a deeper model
PLACES = {2: ("bottom", "top"), 3: ("bottom", "middle", "top")}


@dataclass(frozen=True)
class Pair:
    """A model with an EBM prior, and its twin with a Gaussian one."""

    model: JointModel
    chain: Chain
    """Of the model's prior, in whitened noise."""
    twin: JointModel
    batch_size: int = 100
    """Images at a time."""

    def each(self) -> tuple[tuple[JointModel, Chain | None], ...]:
        """Return both with their chains: the twin has none."""
        return (self.model, self.chain), (self.twin, None)


def draw(
    pair: Pair, extent: Extent, held_out: Dataset, subject: Subject, session: Session, folder: Path, into: Path
) -> None:
    """Write the artifacts that `into` lacks, and where the repository keeps them, there too.

    Args:
        pair: whose.
        extent: how much is drawn.
        held_out: the images that are reconstructed.
        subject: what the model's rows are about.
        session: for the training images, the provenance and the reporter.
        folder: the results folder.
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
            session.dataset.images,
            extent.short,
            extent.long,
            pair.batch_size,
        ),
    }
    for kind, make in kinds.items():
        if parallel.agreed(there(files_of(subject, folder, into, (kind,)))):
            continue
        session.report.line(f"drawing {kind}")
        arrays = make()  # by all processes: batches are dealt
        if parallel.first():
            store(kind, arrays, subject, session, folder, into)


def left(subject: Subject, folder: Path, into: Path) -> list[Path]:
    """Return all files that `draw` leaves."""
    return files_of(subject, folder, into, ("layers", "reconstruction", "transition"))


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
    """Return what each panel draws anew, bottom panel first: "z1, bottom"."""
    names, groups = layer_names(count), groups_of(count)
    said = [names[group[0]] if len(group) == 1 else f"{names[group[0]]} to {names[group[-1]]}" for group in groups]
    return [f"{layer}, {place}" for layer, place in zip(said, PLACES[len(groups)], strict=True)]


def layers(pair: Pair, draws: int) -> dict[str, np.ndarray]:
    """Draw hierarchical sampling: one full draw of the prior kept, in each panel one layer or group drawn anew.

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
    """Draw hierarchical reconstruction: images, and what is left of each when k layers come from the prior.

    Returns:
        images: uint8 (rows, layers + 2, channels, height, width): the image, then k = 0 to L.
        twin: the same of the twin.
        note: which images they are.

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
