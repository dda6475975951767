"""Rows and pictures of the two-stage model, whose weights were trained or are kept in the repository.

Both priors, the decoded posterior samples and every variation of the sampling use the same weights.
"""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import nn

from jlebm import sampling
from jlebm.energies import no_energy
from jlebm.engines import parallel
from jlebm.learning.two_stage import TwoStageExperiment
from jlebm.model import JointModel
from jlebm.run import Run
from reproduce.measuring.data_root import unseen
from reproduce.measuring.judged_latents import judged_latents
from reproduce.measuring.row_store import Rows, Subject, stored
from reproduce.measuring.sample_sets import Draw, SampleSets, latents_kept, posterior_indices
from reproduce.measuring.sampled import SampleMetrics
from reproduce.measuring.session import Session
from reproduce.pipelines import layer_panels, pictures
from reproduce.pipelines.arguments import Arguments
from reproduce.pipelines.copied_pictures import draw_nearest
from reproduce.pipelines.run_page import leave_page
from reproduce.presets.extents import PRIORS, SOURCES, Extent
from reproduce.presets.staged import Sampled
from reproduce.results.identity import Option

WEIGHTS = {"backbone_checkpoint", "training_seed", "energies_seed"}  # options of other weights, drawn as in the preset
PLAIN = str.maketrans({" ": "", ":": "-", "/": "-"})  # a label as the name of a folder


class Learned(NamedTuple):
    """What rows record of the weights of both stages."""

    step: int
    """Updates of the energies."""
    complete: bool
    """Whether both trainings ran to their ends."""
    weights: str
    """raw or ema"""
    backbone_seconds: float = 0.0
    """Wall-clock time of stage one, if it was trained here."""
    seconds: float = 0.0
    """Wall-clock time of stage two, if it was trained here."""
    kept: str = ""
    """Digest of the repository's file; empty for the weights of a training."""


@dataclass(frozen=True)
class StageTwo:
    """The run of the energies, its weights, and what tells their samples from those of the preset."""

    run: Run
    learned: Learned
    preset: str
    variation: dict[str, Option]

    def subject(self, sampler: sampling.Sampler, recipe: str, seed: int) -> Subject:
        """Return the subject of the rows of one seed of samples."""
        energies, learned = self.run.experiment, self.learned
        assert isinstance(energies, TwoStageExperiment)
        alone = sampler.describe(chain=False)
        decoded = dataclasses.replace(sampler, temperature=1.0).describe(chain=False)  # q(z|x) has no temperature
        return Subject(
            recipe=recipe,
            model="two-stage",
            protocol=energies.protocol,
            dataset=energies.dataset,
            preset=self.preset,
            learning=energies.learning,
            seed=seed,
            steps=learned.step,
            complete=learned.complete,
            weights=learned.weights,  # the energies'; the configuration tells the backbone's
            config_digest=Sampled(energies, sampler, self.run.seed, learned.kept).digest(),
            chains={"ebm-prior": sampler.describe(chain=True), "gaussian-prior": alone, "posterior": decoded},
            train_seconds=learned.backbone_seconds + learned.seconds,
            shared=("training-halves", "posterior"),
            variation=self.variation,
            run=(energies.digest(), self.run.seed),
        )


class Drawn(NamedTuple):
    """Model, sampler and batch size of the samples, and the backbone as it was trained."""

    model: JointModel
    sampler: sampling.Sampler
    batch_size: int
    backbone: nn.Module


def measure_seeds(
    stage: StageTwo, drawn: Drawn, extent: Extent, arguments: Arguments, session: Session
) -> list[Subject]:
    """Measure every seed of samples, draw the figures of the hierarchy, and return the subjects of the rows.

    Raises:
        UserError: a full disk; a stored row that cannot be read.
    """
    measured: list[Rows] = []
    for seed in arguments.seeds:
        rows = Rows(stage.subject(drawn.sampler, session.recipe, seed), session, arguments.results)
        _measure(stage, drawn, rows)
        measured.append(rows)
    if 1 in arguments.seeds:
        _draw_layers(stage.run, drawn, extent, measured[arguments.seeds.index(1)], arguments)
    leave_page(stage.run, session, arguments.results)
    return [rows.subject for rows in measured]


def _measure(stage: StageTwo, drawn: Drawn, rows: Rows) -> None:
    """Measure one seed of samples of trained weights; image i of seed s has noise number (s - 1) N + i."""
    run, learned, session, subject = stage.run, stage.learned, rows.session, rows.subject
    (model, sampler, batch_size, backbone), images, seed = drawn, session.dataset.images, subject.seed
    numbers = range((seed - 1) * session.images, seed * session.images)
    chosen = posterior_indices(len(images), session.images)

    def reconstructions() -> Iterator[sampling.Samples]:
        return sampling.reconstruct(model, images, chosen, None, batch_size, sampler.drawing)

    draws = {"posterior": Draw(reconstructions, len(chosen))}
    for prior in PRIORS:

        def draw(prior: sampling.Prior = prior) -> Iterator[sampling.Samples]:
            return sampling.generate(model, prior, numbers, sampler, batch_size)

        draws[prior] = Draw(draw, session.images)
    folder = run.folder / f"{subject.identity.label.translate(PLAIN)}-seed{seed}"
    samples = SampleSets(draws, folder, session.report, latents_kept(dimensions(model)), rows.made)
    metrics = SampleMetrics(rows, samples)
    metrics.measure()
    rows.fill([metrics.parameters("gaussian-prior", backbone, trained_in=learned.backbone_seconds)])
    rows.fill([metrics.parameters("ebm-prior", backbone, model.energy)])
    rows.fill(metrics.layers_told_apart(model.backbone.latent_shapes))
    rows.fill(judged_latents(rows, samples, model.backbone.latent_shapes))
    draw_nearest(rows, samples, folder)
    trained = not learned.kept
    weights = [run.weights] if trained else []
    there = pictures.there([*weights, *samples.paths, *pictures.left(rows, folder, trained)])
    if parallel.agreed(rows.added == 0 and there):
        session.report.line(f"everything in {folder} was measured before; its rows are kept")
        return
    shown = {source: samples[source].images for source in SOURCES}
    if parallel.first():
        shown["data"] = images[np.array(chosen[: pictures.SHOWN]) % len(images)]
        traced = pictures.Traced(model, sampler.chain)
        traced = dataclasses.replace(traced, count=min(traced.count, batch_size))
        pictures.draw(run, traced, shown, rows, folder, trained)
        session.report.line(f"{stored(rows)}; pictures and samples are in {folder}")


def _draw_layers(run: Run, drawn: Drawn, extent: Extent, rows: Rows, arguments: Arguments) -> None:
    """Draw the figures of the hierarchy, once for all seeds of samples.

    A single group, chains in latents and variations of the sampling have no such figure.
    """
    varied = rows.subject.variation.keys() - WEIGHTS
    model, chain = drawn.model, drawn.sampler.chain
    layers = len(model.backbone.latent_shapes)
    if varied or layers < 2 or chain.space != "noise":
        return
    if parallel.agreed(pictures.there(layer_panels.left(rows, run.folder))):
        return
    twin = JointModel(model.backbone, no_energy(layers))
    pair = layer_panels.Pair(model, chain, twin, drawn.batch_size)
    images = unseen(arguments.root(rows.session.report), rows.session.dataset)
    layer_panels.draw(pair, extent, images, rows, run.folder)


def dimensions(model: JointModel) -> int:
    """Return the number of latents of an image."""
    return sum(math.prod(shape) for shape in model.backbone.latent_shapes)
