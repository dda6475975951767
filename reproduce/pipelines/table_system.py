"""One other system of the table, from its frozen configuration to its rows, weights and pictures."""

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
from reproduce.measuring.sampled import Draw, SampleSets, measure_images, measure_parameters, posterior_indices
from reproduce.measuring.session import Rows, Session, Subject
from reproduce.pipelines.energies_on_backbone import Trained, hold_to, trained_backbone
from reproduce.pipelines.fitting import fitted
from reproduce.pipelines.joint import samples_folder
from reproduce.pipelines.pictures import SHOWN, figures_of, files_of, store, there
from reproduce.results.identity import noise_option
from reproduce.systems.levels import bits_per_dim
from reproduce.systems.system import BaselineExperiment, HasLikelihood, OnBackbone, System

SOURCE = "samples"
HELD_OUT = "held-out"
DRAWN = ("samples", "training")  # of a run
LIKELIHOODS = 1_000  # images over which bits per dimension are the mean
BATCH = 100  # images at a time; they do not depend on it
BACKBONE_SEED = 1  # of the backbone that systems share with the two-stage rows


def run_system(
    experiment: BaselineExperiment,
    conditional: bool,
    seeds: Sequence[int],
    runs: Path,
    results: Path,
    session: Session,
    held_out: Callable[[], Dataset],
) -> None:
    """Train each seed to its end and store every row that the results still lack.

    Args:
        experiment: the row before its numbers.
        conditional: whether it learns from the images' classes.
        seeds: one run for each.
        runs: where runs' folders lie.
        results: the folder with measured/.
        session: what it is measured with.
        held_out: returns images that no training saw, where the system has a likelihood.

    Raises:
        UserError: it needs classes and the dataset has none; a library is missing; a full disk.
    """
    if conditional and session.dataset.labels is None:
        raise UserError(f"{experiment.learning} learns from classes, and {session.dataset.name} has none; leave it out")
    trained, frozen = None, None
    if isinstance(experiment, OnBackbone):
        trained = _backbone(experiment, runs, session)
        frozen = frozen_copy(trained.network).to(session.device)
        experiment = dataclasses.replace(experiment, model=trained.network.config, backbone=trained.name)
    for seed in seeds:
        with open_run(runs, experiment, seed) as run:
            if trained is not None:
                hold_to(run, digest_of(trained.network))
            labels = session.dataset.labels if conditional else None
            state = fitted(run, session.dataset.images, session.device, session.report, frozen, labels)
            _measure(run, experiment, state, trained, session, results, held_out)


def _backbone(experiment: BaselineExperiment, runs: Path, session: Session) -> Trained:
    """Return the backbone of the two-stage rows of the same preset and dataset."""
    presets = cifar10.RECIPE.two_stage
    if experiment.preset not in presets:
        raise UserError(f"{experiment.learning} stands on the backbone of a preset; leave --set and --budget out")
    stage = dataclasses.replace(presets[experiment.preset].plan.backbone, dataset=session.dataset.name)
    return trained_backbone(stage, BACKBONE_SEED, runs, session)


def _measure(
    run: Run,
    experiment: BaselineExperiment,
    state: TrainState,
    trained: Trained | None,
    session: Session,
    folder: Path,
    held_out: Callable[[], Dataset],
) -> None:
    before = (0.0, True) if trained is None else (trained.seconds, trained.complete)
    subject = Subject(
        protocol=experiment.protocol,
        dataset=experiment.dataset,
        preset=experiment.preset,
        learning=experiment.learning,
        seed=run.seed,
        steps=state.step,
        complete=before[1] and state.step >= experiment.training.steps,
        weights="raw" if state.ema is None else "ema",
        config_digest=experiment.digest(),
        chains={SOURCE: experiment.describe_sampling()},
        train_seconds=before[0] + state.seconds,
        shared=(),
        variation=noise_option(session.noise),
    )
    system: System = state.evaluated_model()
    draw = Draw(lambda: _drawn(system, session.images, session.noise), session.images)
    samples, rows = (
        SampleSets({SOURCE: draw}, samples_folder(run, session), session.report),
        Rows(subject, session, folder),
    )
    upon = () if trained is None else (trained.network,)
    if rows.find("parameters", SOURCE, session.images, judged=False) is None:
        _ = samples[SOURCE]  # drawn now, for the row to say how long that takes where no Inception asks for them
    measure_parameters(rows, samples, SOURCE, system, *upon)
    if isinstance(system, HasLikelihood):
        measure_likelihood(rows, system, held_out())
    measure_images(rows, samples, SOURCE)
    into = run.folder if session.noise == GENERATOR else samples_folder(run, session)
    drawn = [*files_of(subject, folder, into, DRAWN), *figures_of(into, DRAWN)]
    if rows.added == 0 and there([run.weights, *samples.paths, *drawn]):
        session.report.line(f"everything of {run.folder} was measured before; its rows stand")
        return
    _ = samples[SOURCE]
    checkpoints.save_weights(run.weights, system, run.header() | {"step": state.step, "weights": subject.weights})
    shown = system.sample(range(SHOWN), session.noise).cpu().numpy()
    _pictures(run, shown, subject, session, folder, into)
    session.report.line(f"stored {rows.added} rows in {rows.path}; pictures and the weights are in {run.folder}")


def measure_likelihood(rows: Rows, system: HasLikelihood, held_out: Dataset) -> None:
    """Store the bits that a number of an image takes, a mean over images at even distances."""
    count = min(LIKELIHOODS, len(held_out.images))
    reference = fidelity.describe_reference(held_out, count)
    if rows.find("bits_per_dimension", HELD_OUT, count, reference=reference) is not None:
        return
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
    said = {"reference": reference, "chain": "", "bits": system.bits}
    rows.add("bits_per_dimension", HELD_OUT, total / count, count, seconds, **said)


def _drawn(system: System, count: int, scheme: Scheme) -> Iterator[Samples]:
    """Yield image i of seed i, in batches; a system has no latents to keep."""
    size = system.gpu_batch if system.empty(0).is_cuda else BATCH
    for first in range(0, count, size):
        with within_memory("take a GPU with more memory, or --device cpu for the samples"):
            images = system.sample(range(first, min(first + size, count)), scheme)
        yield Samples(images, (system.empty(len(images), 0),))


def _pictures(run: Run, images: np.ndarray, subject: Subject, session: Session, folder: Path, into: Path) -> None:
    """Draw the first samples, uncurated, and the curves of all recorded figures, and store what they are drawn from."""
    curves = plotting.recorded(run.events())
    store("samples", {"samples": images}, subject, session, folder, into)
    store("training", curves, subject, session, folder, into)
    plotting.save(plotting.image_grid(images, columns=SHOWN // 2), into / "samples")
    plotting.save(plotting.curve_panels(curves), into / "training")
