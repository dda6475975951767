"""Measuring a jointly trained model: rows, weights and pictures."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jlebm import sampling
from jlebm.backbones.ladder import LadderConfig
from jlebm.engines import parallel
from jlebm.experiment import Experiment
from jlebm.learning.two_stage import TwoStageExperiment
from jlebm.randomness import GENERATOR
from jlebm.run import Run
from jlebm.sampling import Sampler, Samples
from jlebm.training import TrainState
from jlebm.weights import save_model
from reproduce.measuring.judged_latents import judged_latents
from reproduce.measuring.row_store import Rows, Subject, stored
from reproduce.measuring.sample_sets import Draw, SampleSets, posterior_indices
from reproduce.measuring.sampled import SampleMetrics
from reproduce.measuring.session import Session
from reproduce.pipelines import pictures
from reproduce.pipelines.copied_pictures import draw_nearest
from reproduce.pipelines.run_page import leave_page
from reproduce.presets.extents import PRIORS, SOURCES
from reproduce.results.identity import noise_option, noise_suffix


def subject_of(session: Session, run: Run, experiment: Experiment | TwoStageExperiment, state: TrainState) -> Subject:
    """Return the subject of the rows of a joint training, or of a twin without energies."""
    chains = {"ebm-prior": experiment.prior_chain.describe()}
    if (chain := experiment.posterior_sampling_chain()) is not None:
        chains["posterior"] = chain.describe()
    model = "ladder" if isinstance(experiment.model, LadderConfig) else "two-layer"
    return Subject.of_training(run, state, session.recipe, model, chains, noise_option(session.noise))


def samples_of(run: Run, experiment: Experiment, state: TrainState, rows: Rows) -> SampleSets:
    """Return the samples of both priors, or of the only one without energies, and as many decoded posterior samples."""
    session, model = rows.session, state.evaluated_model()
    images = session.dataset.images
    chosen = posterior_indices(len(images), session.images)
    chain, sampler = experiment.posterior_sampling_chain(), Sampler(experiment.prior_chain, noise=session.noise)

    def reconstructions() -> Iterator[Samples]:
        return sampling.reconstruct(model, images, chosen, chain, drawn=sampler.drawing)

    draws = {"posterior": Draw(reconstructions, len(chosen))}
    for prior in PRIORS if experiment.has_energies else PRIORS[:1]:

        def draw(prior: sampling.Prior = prior):
            return sampling.generate(model, prior, range(session.images), sampler)

        draws[prior] = Draw(draw, session.images)
    return SampleSets(draws, samples_folder(run, session), session.report, made=rows.made)


def samples_folder(run: Run, session: Session) -> Path:
    """Return where a run's samples lie: each scheme of noise has a folder of its own."""
    return run.folder / f"samples{noise_suffix(session.noise)}"


def measure_joint(run: Run, experiment: Experiment, state: TrainState, rows: Rows) -> None:
    """Store the rows that the results still lack, the weights and the pictures.

    Raises:
        UserError: the disk is full, or a stored row cannot be read.
    """
    session = rows.session
    into = run.folder if session.noise == GENERATOR else samples_folder(run, session)
    samples = samples_of(run, experiment, state, rows)
    SampleMetrics(rows, samples).measure()
    rows.fill(judged_latents(rows, samples, state.evaluated_model().backbone.latent_shapes))
    draw_nearest(rows, samples, into)
    drawn = pictures.there([run.weights, *samples.paths, *pictures.left(rows, into)])
    if parallel.agreed(rows.added == 0 and drawn):
        session.report.line(f"everything in {run.folder} was measured before; its rows are kept")
        leave_page(run, session, rows.folder)
        return
    shown = {source: samples[source].images for source in SOURCES}
    if not parallel.first():
        return
    header = run.header() | {"step": state.step, "weights": rows.subject.weights}
    save_model(run.weights, state.evaluated_model(), header, Sampler(experiment.prior_chain))
    chosen = posterior_indices(len(session.dataset.images), samples.count("posterior"))
    shown["data"] = session.dataset.images[np.array(chosen[: pictures.SHOWN]) % len(session.dataset.images)]
    traced = pictures.Traced(state.evaluated_model(), experiment.prior_chain)
    pictures.draw(run, traced, shown, rows, into)
    session.report.line(f"{stored(rows)}; pictures are in {into}, the weights in {run.folder}")
    leave_page(run, session, rows.folder)
