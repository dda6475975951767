"""The ladder of vector latents: a model with an EBM prior beside its twin with a Gaussian one, trained as long.

Both learn through the same inference network; they differ in their prior alone. Each has rows of its own, the model
under the learning `variational`, the twin under `gaussian`; the figures show one beside the other.
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
from reproduce.measuring.representation import measure_representation
from reproduce.measuring.sampled import SampleSets, measure, measure_layers, posterior_indices
from reproduce.measuring.session import Rows, Session, Subject, unseen
from reproduce.pipelines import layer_panels, pictures
from reproduce.pipelines.arguments import Arguments
from reproduce.pipelines.fitting import fitted
from reproduce.pipelines.joint import samples_of, subject_of
from reproduce.pipelines.layer_panels import Pair
from reproduce.presets.extents import SOURCES, Extent
from reproduce.presets.ladder_sizes import twin_of


@dataclass(frozen=True)
class Measured:
    """One of the two, trained and with its rows stored."""

    run: Run
    state: TrainState
    subject: Subject
    rows: Rows
    samples: SampleSets


def run_ladder(experiment: Experiment, extent: Extent, arguments: Arguments, session: Session) -> list[Subject]:
    """Train model and twin of every seed, measure both, draw them, and return what the rows are about.

    Args:
        experiment: of the model with the EBM prior.
        extent: of the figures.
        arguments: what the person said.
        session: what it is measured with.

    Raises:
        UserError: the chain is not one in whitened noise, the images do not fit, the disk is full, or a stored row
            cannot be read.
    """
    if experiment.prior_chain.space != "noise":
        raise UserError("a ladder's layers are kept and drawn in whitened noise; leave prior_chain.space at 'noise'")
    images = unseen(session.dataset, arguments.data_root, arguments.download, session.report)
    twin, subjects = twin_of(experiment), []
    for seed in arguments.seeds:
        with open_run(arguments.runs, experiment, seed) as run, open_run(arguments.runs, twin, seed) as beside:
            states = [fitted(each, session.dataset.images, session.device, session.report) for each in (run, beside)]
            both = [
                _measured(each, one, state, images, arguments, session)
                for each, one, state in zip((run, beside), (experiment, twin), states, strict=True)
            ]
            _draw(both, experiment.prior_chain, extent, images, arguments, session)
            subjects += [one.subject for one in both]
    return subjects


def _measured(
    run: Run, experiment: Experiment, state: TrainState, images: Dataset, arguments: Arguments, session: Session
) -> Measured:
    twin_digest = "" if experiment.learning == "gaussian" else twin_of(experiment).digest()
    subject = dataclasses.replace(subject_of(run, experiment, state, session.noise), twin_digest=twin_digest)
    model = state.evaluated_model()
    rows, samples = Rows(subject, session, arguments.results), samples_of(run, experiment, state, session)
    measure(rows, samples)
    measure_layers(rows, samples, model.backbone.latent_shapes)
    chain = None if experiment.learning == "gaussian" else experiment.prior_chain
    measure_representation(rows, model, chain, images)
    return Measured(run, state, subject, rows, samples)


def _draw(
    both: Sequence[Measured], chain: Chain, extent: Extent, images: Dataset, arguments: Arguments, session: Session
) -> None:
    """Leave weights and pictures of both in their folders, and in that of the model what shows one beside the other.

    Of another noise than the first there are weights and samples, and no pictures.
    """
    ours, twin = both
    run, added = ours.run, sum(one.rows.added for one in both)
    if session.noise != GENERATOR:
        if parallel.first():
            _save(both, chain)
        session.report.line(f"stored {added} rows in {ours.rows.path}; samples are in {run.folder} and its twin's")
        return
    drawn = [*pictures.left(ours.subject, arguments.results, run.folder)]
    drawn += layer_panels.left(ours.subject, arguments.results, run.folder)
    drawn += pictures.figures_of(twin.run.folder, ("training",))
    drawn += [path for one in both for path in (one.run.weights, *one.samples.paths)]
    if parallel.agreed(added == 0 and pictures.there(drawn)):
        session.report.line(f"everything of {run.folder} and its twin was measured before; its rows stand")
        return
    shown = {source: ours.samples[source].images for source in SOURCES}
    for source in twin.samples.draws:
        _ = twin.samples[source]
    shown["twin"] = twin.samples["gaussian-prior"].images
    pair = Pair(ours.state.evaluated_model(), chain, twin.state.evaluated_model())
    layer_panels.draw(pair, extent, images, ours.subject, session, arguments.results, run.folder)
    if not parallel.first():
        return
    _save(both, chain)
    chosen = posterior_indices(len(session.dataset.images), session.images)
    shown["data"] = session.dataset.images[np.array(chosen[: pictures.SHOWN]) % len(session.dataset.images)]
    pictures.draw(run, pair.model, chain, shown, ours.subject, session, arguments.results)
    plotting.save(plotting.training_curves(twin.run.events()), twin.run.folder / "training")
    session.report.line(
        f"stored {added} rows in {ours.rows.path}; pictures and weights are in {run.folder} and its twin's"
    )


def _save(both: Sequence[Measured], chain: Chain) -> None:
    for one in both:
        header = one.run.header() | {"step": one.state.step, "weights": one.subject.weights}
        save_model(one.run.weights, one.state.evaluated_model(), header, Sampler(chain))
