"""Training and measuring one other system of Table 2: rows, weights and pictures."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from figures import plotting
from jlebm import checkpoints
from jlebm.backbones.nvae import digest_of, frozen_copy
from jlebm.data import Dataset
from jlebm.devices import within_memory
from jlebm.errors import UserError
from jlebm.evaluation import fidelity
from jlebm.images import to_float
from jlebm.randomness import GENERATOR, Scheme, image_noise
from jlebm.run import Run, open_run
from jlebm.sampling import Samples
from jlebm.training import TrainState
from reproduce import cifar10
from reproduce.measuring.row_store import Answer, Part, Rows, Subject, Wanted, stored
from reproduce.measuring.sample_sets import Draw, SampleSets, posterior_indices
from reproduce.measuring.sampled import SampleMetrics
from reproduce.measuring.session import Session
from reproduce.pipelines.arguments import Training
from reproduce.pipelines.energies_on_backbone import Trained, record_backbone, trained_backbone
from reproduce.pipelines.fitting import fitted
from reproduce.pipelines.joint import samples_folder
from reproduce.pipelines.pictures import SHOWN, figures_of, files_of, store, there
from reproduce.pipelines.run_page import leave_page
from reproduce.results.identity import TABLE, Of, noise_option
from reproduce.systems.levels import bits_per_dim
from reproduce.systems.system import BaselineExperiment, HasLikelihood, OnBackbone, System

SOURCE = "samples"
HELD_OUT = "held-out"
DRAWN = ("samples", "training")  # pictures of a run
LIKELIHOODS = 1_000  # images that bits per dimension are averaged over
BATCH = 100  # images at a time; results do not depend on it
BACKBONE_SEED = 1  # seed of the backbone that is shared with the two-stage rows
OF_ANOTHER = {"long": "cpu"}  # the preset whose NVAE is taken where the two-stage model has another hierarchy


def run_system(
    experiment: BaselineExperiment,
    conditional: bool,
    options: Training,
    session: Session,
    held_out: Callable[[], Dataset],
) -> None:
    """Train each seed and store every row that the results still lack.

    Args:
        experiment: configuration of the system.
        conditional: whether it learns from the images' classes.
        options: seeds, and the folders of runs and results.
        session: what it is measured with.
        held_out: returns images not used in training, for a system with a likelihood.

    Raises:
        UserError: it needs classes and the dataset has none; a library is missing; a full disk.
    """
    if conditional and session.dataset.labels is None:
        raise UserError(f"{experiment.learning} learns from classes, and {session.dataset.name} has none; leave it out")
    trained, frozen = None, None
    if isinstance(experiment, OnBackbone):
        trained = _backbone(experiment, options.runs, session)
        frozen = frozen_copy(trained.network).to(session.device)
        experiment = dataclasses.replace(experiment, model=trained.network.config, backbone=trained.name)
    for seed in options.seeds:
        with open_run(options.runs, experiment, seed) as run:
            if trained is not None:
                record_backbone(run, digest_of(trained.network))
            labels = session.dataset.labels if conditional else None
            state = fitted(run, session.dataset.images, session.device, session.report, frozen, labels)
            rows = Rows(_subject(run, experiment, state, trained, session.noise), session, options.results)
            _measure(run, state, trained, rows, held_out)
            leave_page(run, session, options.results)


def _backbone(experiment: BaselineExperiment, runs: Path, session: Session) -> Trained:
    """Return the NVAE of the two-stage rows, of the same preset where that has one."""
    preset = cifar10.RECIPE.two_stage.get(OF_ANOTHER.get(experiment.preset, experiment.preset))
    if preset is None or preset.nvae is None:
        raise UserError(f"{experiment.learning} uses the backbone of a preset; leave --set and --budget out")
    stage = dataclasses.replace(preset.nvae, dataset=session.dataset.name)
    return trained_backbone(stage, BACKBONE_SEED, runs, session)


def _subject(
    run: Run, experiment: BaselineExperiment, state: TrainState, trained: Trained | None, noise: Scheme
) -> Subject:
    """Return the subject of a system's rows; a backbone's training counts as part of the system's."""
    chains = {SOURCE: experiment.describe_sampling()}
    own = Subject.of_training(run, state, TABLE, experiment.learning, chains, noise_option(noise))
    own = dataclasses.replace(own, shared=())
    if trained is None:
        return own
    seconds = trained.seconds + own.train_seconds
    return dataclasses.replace(own, complete=trained.complete and own.complete, train_seconds=seconds)


def _measure(run: Run, state: TrainState, trained: Trained | None, rows: Rows, held_out: Callable[[], Dataset]) -> None:
    """Store the rows that the results still lack, the weights and the pictures."""
    session, system = rows.session, state.evaluated_model()
    assert isinstance(system, System)
    draw = Draw(lambda: _drawn(system, session.images, session.noise), session.images)
    samples = SampleSets({SOURCE: draw}, samples_folder(run, session), session.report, made=rows.made)
    backbone = () if trained is None else (trained.network,)
    metrics = SampleMetrics(rows, samples)
    number = metrics.parameters(SOURCE, system, *backbone)
    if rows.find(number.wanted[0]) is None:
        _ = samples[SOURCE]  # drawn now, so that the row has the sampling time even without Inception
    rows.fill([number])
    if isinstance(system, HasLikelihood):
        rows.fill([likelihood(rows, system, held_out())])
    rows.fill(metrics.image_metrics(SOURCE))
    into = run.folder if session.noise == GENERATOR else samples_folder(run, session)
    drawn = [*files_of(rows, into, DRAWN), *figures_of(into, DRAWN)]
    if rows.added == 0 and there([run.weights, *samples.paths, *drawn]):
        session.report.line(f"everything in {run.folder} was measured before; its rows are kept")
        return
    _ = samples[SOURCE]
    header = run.header() | {"step": state.step, "weights": rows.subject.weights}
    checkpoints.save_weights(run.weights, system, header)
    _pictures(run, system.sample(range(SHOWN), session.noise).cpu().numpy(), rows, into)
    session.report.line(f"{stored(rows)}; pictures are in {into}, the weights in {run.folder}")


def likelihood(rows: Rows, system: HasLikelihood, held_out: Dataset) -> Part:
    """Return the part of the bits per dimension, averaged over evenly spaced images."""
    count = min(LIKELIHOODS, len(held_out.images))

    def answers(missing: Sequence[Wanted]) -> Iterator[Answer]:
        started, total = time.monotonic(), 0.0
        chosen = posterior_indices(len(held_out.images), count)
        for first in range(0, count, BATCH):
            some = chosen[first : first + BATCH]
            x = to_float(torch.from_numpy(np.array(held_out.images[some])).to(rows.session.device))
            with torch.no_grad():
                bits = bits_per_dim(
                    system.log_likelihood(x, image_noise("evaluation", some, rows.session.noise)), x[0].numel()
                )
            total += float(bits) * len(some)
        seconds = {"evaluate": time.monotonic() - started}
        yield Answer(missing[0], total / count, seconds, {"chain": "", "bits": system.bits})

    reference = fidelity.describe_reference(held_out, count)
    return Part([Wanted("bits_per_dimension", Of(HELD_OUT), count, reference=reference)], answers)


def _drawn(system: System, count: int, scheme: Scheme) -> Iterator[Samples]:
    """Yield image i from seed i, in batches; a system has no latents to store."""
    size = system.gpu_batch if system.empty(0).is_cuda else BATCH
    for first in range(0, count, size):
        with within_memory("take a GPU with more memory, or --device cpu for the samples"):
            images = system.sample(range(first, min(first + size, count)), scheme)
        yield Samples(images, (system.empty(len(images), 0),))


def _pictures(run: Run, images: np.ndarray, rows: Rows, into: Path) -> None:
    """Draw the first samples, uncurated, and the curves of all recorded losses, and store their arrays."""
    curves = plotting.recorded(run.events())
    store("samples", {"samples": images}, rows, into)
    store("training", curves, rows, into)
    plotting.save(plotting.image_grid(images, columns=SHOWN // 2), into / "samples")
    plotting.save(plotting.curve_panels(curves), into / "training")
