"""From a jointly trained state to its rows, weights and pictures."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jlebm import sampling
from jlebm.engines import parallel
from jlebm.experiment import Experiment
from jlebm.randomness import GENERATOR, Scheme
from jlebm.run import Run
from jlebm.sampling import Sampler, Samples
from jlebm.training import TrainState
from jlebm.weights import save_model
from reproduce.measuring.sampled import Draw, SampleSets, measure, posterior_indices
from reproduce.measuring.session import Rows, Session, Subject
from reproduce.pipelines import pictures
from reproduce.presets.extents import PRIORS, SOURCES
from reproduce.results.identity import noise_option, noise_suffix


def subject_of(run: Run, experiment: Experiment, state: TrainState, noise: Scheme = GENERATOR) -> Subject:
    """Return what the rows of a joint training, or of a twin without energies, are about."""
    chains = {"ebm-prior": experiment.prior_chain.describe()}
    if experiment.learning == "joint-mle":
        chains["posterior"] = experiment.posterior_chain.describe()
    return Subject(
        protocol=experiment.protocol,
        dataset=experiment.dataset,
        preset=experiment.preset,
        learning=experiment.learning,
        seed=run.seed,
        steps=state.step,
        complete=state.step >= experiment.training.steps,
        weights="raw" if state.ema is None else "ema",
        config_digest=experiment.digest(),
        chains=chains,
        train_seconds=state.seconds,
        variation=noise_option(noise),
    )


def samples_of(run: Run, experiment: Experiment, state: TrainState, session: Session) -> SampleSets:
    """Return the samples of both priors, or of the one that a twin has, and as many decoded posterior samples."""
    model, images = state.evaluated_model(), session.dataset.images
    chosen = posterior_indices(len(images), session.images)
    chain, sampler = experiment.posterior_sampling_chain(), Sampler(experiment.prior_chain, noise=session.noise)

    def reconstructions() -> Iterator[Samples]:
        return sampling.reconstruct(model, images, chosen, chain, drawn=sampler.drawing)

    draws = {"posterior": Draw(reconstructions, len(chosen))}
    for prior in PRIORS[:1] if experiment.learning == "gaussian" else PRIORS:

        def draw(prior: sampling.Prior = prior):
            return sampling.generate(model, prior, range(session.images), sampler)

        draws[prior] = Draw(draw, session.images)
    return SampleSets(draws, samples_folder(run, session), session.report)


def samples_folder(run: Run, session: Session) -> Path:
    """Return where a run's samples lie: each scheme of noise has a folder of its own."""
    return run.folder / f"samples{noise_suffix(session.noise)}"


def measure_joint(run: Run, experiment: Experiment, state: TrainState, session: Session, folder: Path) -> Subject:
    """Store every row that `folder/measured` lacks of this state, draw its pictures, return what the rows are about.

    Raises:
        UserError: the disk is full, or a stored row cannot be read.
    """
    subject = subject_of(run, experiment, state, session.noise)
    into = run.folder if session.noise == GENERATOR else samples_folder(run, session)
    rows, samples = Rows(subject, session, folder), samples_of(run, experiment, state, session)
    measure(rows, samples)
    drawn = pictures.there([run.weights, *samples.paths, *pictures.left(subject, folder, into)])
    if parallel.agreed(rows.added == 0 and drawn):
        session.report.line(f"everything of {run.folder} was measured before; its rows stand")
        return subject
    shown = {source: samples[source].images for source in SOURCES}
    if not parallel.first():
        return subject
    header = run.header() | {"step": state.step, "weights": subject.weights}
    save_model(run.weights, state.evaluated_model(), header, Sampler(experiment.prior_chain))
    chosen = posterior_indices(len(session.dataset.images), samples.count("posterior"))
    shown["data"] = session.dataset.images[np.array(chosen[: pictures.SHOWN]) % len(session.dataset.images)]
    pictures.draw(run, state.evaluated_model(), experiment.prior_chain, shown, subject, session, folder, into)
    session.report.line(
        f"stored {rows.added} rows in {rows.path}; samples.png, energy.png, training.png and the weights are in {into}"
    )
    return subject
