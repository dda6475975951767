"""Ladder of vector latents: a model with an EBM prior and its twin with a Gaussian prior, trained equally long.

Both learn with the same inference network and differ only in the prior. Each has rows of its own, the model under the
learning `variational`, the twin under `gaussian`; the figures compare the two.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from figures import plotting
from jlebm.data import Dataset
from jlebm.engines import parallel
from jlebm.errors import UserError
from jlebm.experiment import Experiment
from jlebm.langevin import Chain
from jlebm.randomness import GENERATOR
from jlebm.run import Run, open_run
from jlebm.sampling import Sampler
from jlebm.training import TrainState
from jlebm.weights import save_model
from reproduce.measuring.data_root import unseen
from reproduce.measuring.judged_latents import judged_latents
from reproduce.measuring.representation import measure_representation
from reproduce.measuring.row_store import Rows, Subject, stored
from reproduce.measuring.sample_sets import SampleSets, posterior_indices
from reproduce.measuring.sampled import SampleMetrics
from reproduce.measuring.session import Session
from reproduce.pipelines import layer_panels, pictures
from reproduce.pipelines.arguments import Arguments
from reproduce.pipelines.copied_pictures import draw_nearest
from reproduce.pipelines.fitting import fitted
from reproduce.pipelines.joint import samples_folder, samples_of, subject_of
from reproduce.pipelines.layer_panels import Pair
from reproduce.pipelines.run_page import leave_page
from reproduce.presets.extents import SOURCES, Extent
from reproduce.presets.ladder_sizes import twin_of


@dataclass(frozen=True)
class Measured:
    """Model or twin, trained and with its rows stored."""

    run: Run
    state: TrainState
    rows: Rows
    samples: SampleSets


def run_ladder(experiment: Experiment, extent: Extent, arguments: Arguments, session: Session) -> list[Subject]:
    """Train, measure and draw model and twin of every seed; return the subjects of the rows.

    Args:
        experiment: configuration of the model with the EBM prior.
        extent: extent of the figures.
        arguments: command-line options.
        session: what it is measured with.

    Raises:
        UserError: the chain is not one in whitened noise, the images do not fit, the disk is full, or a stored row
            cannot be read.
    """
    if experiment.prior_chain.space != "noise":
        raise UserError("a ladder's layers are kept and drawn in whitened noise; leave prior_chain.space at 'noise'")
    images = unseen(arguments.root(session.report), session.dataset)
    twin, subjects = twin_of(experiment), []
    for seed in arguments.seeds:
        with open_run(arguments.runs, experiment, seed) as run, open_run(arguments.runs, twin, seed) as beside:
            states = [fitted(each, session.dataset.images, session.device, session.report) for each in (run, beside)]
            both = [
                _measured(each, one, state, images, arguments, session)
                for each, one, state in zip((run, beside), (experiment, twin), states, strict=True)
            ]
            _draw(both, experiment.prior_chain, extent, images)
            leave_page(run, session, arguments.results)
            subjects += [one.rows.subject for one in both]
    return subjects


def _measured(
    run: Run, experiment: Experiment, state: TrainState, images: Dataset, arguments: Arguments, session: Session
) -> Measured:
    twin_digest = "" if experiment.learning == "gaussian" else twin_of(experiment).digest()
    subject = dataclasses.replace(subject_of(session, run, experiment, state), twin_digest=twin_digest)
    model = state.evaluated_model()
    rows = Rows(subject, session, arguments.results)
    samples = samples_of(run, experiment, state, rows)
    metrics = SampleMetrics(rows, samples)
    metrics.measure()
    rows.fill(metrics.layers_told_apart(model.backbone.latent_shapes))
    rows.fill(judged_latents(rows, samples, model.backbone.latent_shapes))
    if experiment.learning != "gaussian":
        into = run.folder if session.noise == GENERATOR else samples_folder(run, session)
        draw_nearest(rows, samples, into)
    chain = None if experiment.learning == "gaussian" else experiment.prior_chain
    measure_representation(rows, model, chain, images)
    return Measured(run, state, rows, samples)


def _draw(both: Sequence[Measured], chain: Chain, extent: Extent, images: Dataset) -> None:
    """Write weights and pictures of both into their folders, and the comparison of both into the model's.

    With another noise than the first there are weights and samples, and no pictures.
    """
    ours, twin = both
    session, run, added = ours.rows.session, ours.run, sum(one.rows.added for one in both)
    if session.noise != GENERATOR:
        if parallel.first():
            _save(both, chain)
        session.report.line(f"{stored(ours.rows, twin.rows)}; samples are in {run.folder} and its twin's")
        return
    drawn = [*pictures.left(ours.rows, run.folder)]
    drawn += layer_panels.left(ours.rows, run.folder)
    drawn += pictures.figures_of(twin.run.folder, ("training",))
    drawn += [path for one in both for path in (one.run.weights, *one.samples.paths)]
    if parallel.agreed(added == 0 and pictures.there(drawn)):
        session.report.line(f"everything in {run.folder} and its twin was measured before; its rows are kept")
        return
    shown = {source: ours.samples[source].images for source in SOURCES}
    for source in twin.samples.draws:
        _ = twin.samples[source]
    shown["twin"] = twin.samples["gaussian-prior"].images
    pair = Pair(ours.state.evaluated_model(), chain, twin.state.evaluated_model())
    layer_panels.draw(pair, extent, images, ours.rows, run.folder)
    if not parallel.first():
        return
    _save(both, chain)
    chosen = posterior_indices(len(session.dataset.images), session.images)
    shown["data"] = session.dataset.images[np.array(chosen[: pictures.SHOWN]) % len(session.dataset.images)]
    pictures.draw(run, pictures.Traced(pair.model, chain), shown, ours.rows, run.folder)
    plotting.save(plotting.training_curves(twin.run.events()), twin.run.folder / "training")
    session.report.line(f"{stored(ours.rows, twin.rows)}; pictures and weights are in {run.folder} and its twin's")


def _save(both: Sequence[Measured], chain: Chain) -> None:
    for one in both:
        header = one.run.header() | {"step": one.state.step, "weights": one.rows.subject.weights}
        save_model(one.run.weights, one.state.evaluated_model(), header, Sampler(chain))
