"""Anomaly detection on MNIST, a digit held out: rows of the paper's Table 4.

    python -m reproduce.anomaly                                     a first look, every held-out digit
    python -m reproduce.anomaly --preset cpu --seeds 1 2 3
    python -m reproduce.anomaly --preset cpu --digits 1 9 --learning gaussian

For each digit and seed a ladder learns from the training images of all other digits. The score of a test image is
-L^{>0}, minus the unnormalised log posterior at posterior samples (docs/facts, "Scores above a layer"), and the
held-out digit is the positive class among all test images: at chance the AUPRC is its share, about a tenth. Without
MNIST `tiny` takes the embedded digits, of which each fifth image is held out of all training.
"""

import dataclasses
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from jlebm import data
from jlebm.backbones.ladder import LadderConfig
from jlebm.errors import UserError, exit_on_user_error, nearest
from jlebm.experiment import Experiment, OptimizerConfig
from jlebm.hierarchy import PartialPosterior, posterior_energies, scores_above
from jlebm.langevin import Chain
from jlebm.learning.trainable import TrainingConfig
from jlebm.model import JointModel
from jlebm.progress import Reporter
from jlebm.randomness import GENERATOR, Scheme
from jlebm.run import Run, open_run, resolve_device
from reproduce import results
from reproduce.measuring.detection import Question, judge, print_table, refuse_lost, session_of, stands
from reproduce.measuring.places import try_places
from reproduce.measuring.sampled import posterior_indices
from reproduce.measuring.session import Rows
from reproduce.pipelines.arguments import RESULTS
from reproduce.pipelines.fitting import STOPPED, Stopped, fitted
from reproduce.pipelines.joint import subject_of
from reproduce.presets.ladder_sizes import CONDITIONAL, ENERGY_L2, twin_of
from reproduce.results.identity import Of, noise_option, noise_suffix
from reproduce.terminal.console import ConsoleReporter
from reproduce.terminal.parsing import parse

PROTOCOL = "anomaly/1"
DATASET, FALLBACK = "mnist", "digits"
PAPER_DIGITS = (1, 4, 5, 7, 9)
DEVELOPMENT = 6  # one training image of so many is held out instead of the test images: MNIST's 10,000
SCORES = {"L>0": "-L>0", "E": "E(z), the energies alone"}  # by name, and as the rows say it


@dataclass(frozen=True)
class Preset:
    """One size: what is trained for each digit, and how it is judged."""

    experiment: Experiment
    draws: int
    """Posterior samples of each test image, over which its score is a mean."""
    images: int | None = None
    """Test images, at even distances; None for all."""


TINY = Preset(
    Experiment(
        PROTOCOL,
        "tiny",
        DATASET,
        learning="variational",
        model=LadderConfig(latent_dims=(4, 8, 16), channels=(16, 8, 4), conditional_hidden=(32,), features=64),
        energy_hidden=((32,), (32,), (32,)),
        prior_chain=Chain(10, 0.1, start="ancestral", space="noise"),
        optimizer=OptimizerConfig(generator_lr=1e-3, energy_lr=1e-4),
        training=TrainingConfig(steps=100, batch_size=32),
        kl_warmup=20,
        conditional_gradient=CONDITIONAL,
    ),
    draws=2,
    images=500,
)

# So few latents because what can hold any digit also holds the one left out: on held-out training images
# (--development, digit 9, seed 1) L>0 had an AUROC of 0.60, and of 0.51 with 8, 16 and 32 latents and a sigma of 1.
# With so few a chain can leave for far away: at the ladders' rate of the energies one did at update 121 (digit 7).
CPU = Preset(
    Experiment(
        PROTOCOL,
        "cpu",
        DATASET,
        learning="variational",
        model=LadderConfig(latent_dims=(2, 4, 8), channels=(32, 16, 8)),
        energy_hidden=((128, 128), (128, 128), (128, 128)),
        prior_chain=Chain(20, 0.1, start="ancestral", space="noise"),
        optimizer=OptimizerConfig(1e-3, energy_lr=3e-5, energy_l2=ENERGY_L2, ema_decay=0.995),
        training=TrainingConfig(steps=1_200, batch_size=64),
        kl_warmup=200,
        conditional_gradient=CONDITIONAL,
    ),
    draws=8,
)

PRESETS = {"tiny": TINY, "cpu": CPU}


@dataclass(frozen=True)
class Arguments:
    """What a person can say to the detection of anomalies."""

    digits: tuple[int, ...] = PAPER_DIGITS
    """Held out, one after the other; by default the paper's five."""
    seeds: tuple[int, ...] = (1,)
    """One run and one set of rows for each, and for each digit."""
    preset: str = "tiny"
    """tiny: minutes for all digits; cpu: a few minutes of one core for each digit and seed."""
    learning: Literal["variational", "gaussian"] = "variational"
    """With the joint EBM prior, or the same ladder with its Gaussian prior, which is a VAE."""
    images: int | None = None
    """Test images, at even distances; by default the preset's."""
    development: bool = False
    """Whether to leave the test images alone: each sixth training image is held out and judged instead, and the preset
    is called so. For choosing settings."""
    data_root: Path | None = None
    """The folder with datasets; by default $JLEBM_DATA or the user's cache folder."""
    download: bool = True
    """Whether what the data root lacks may be downloaded into it."""
    noise: Scheme = GENERATOR
    """Scheme of the noise of posterior samples (docs/noise); the rows name it."""
    device: str = "auto"
    """auto, cpu, cuda, or cuda:1 for another GPU of several."""
    runs: Path = Path("runs")
    """Where the runs' folders lie; the same command goes on where it was stopped."""
    results: Path = RESULTS
    """The folder with paper.toml, expected.toml and measured/."""
    set: tuple[str, ...] = ()
    """Configuration keys to set, such as training.steps=100; the preset is then called custom."""


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> int:
    """Train and judge one model for each digit and seed; return the exit code."""
    arguments = parse(Arguments, argv, __doc__)
    try:
        _run(arguments, ConsoleReporter())
    except Stopped:
        return STOPPED
    return 0


def _run(arguments: Arguments, report: Reporter) -> None:
    for name, values in (("--digits", arguments.digits), ("--seeds", arguments.seeds)):
        if not values or len(set(values)) != len(values):
            raise UserError(f"{name} needs at least one number, each only once")
    if arguments.preset not in PRESETS:
        raise UserError(f"unknown preset {arguments.preset!r}{nearest(arguments.preset, PRESETS)}")
    preset, device = PRESETS[arguments.preset], resolve_device(arguments.device)
    train, test = _images(arguments, report)
    report.line(f"data: {train.name}, {len(train.images)} training and {len(test.images)} test images, {test.origin}")
    wanted = min(preset.images or len(test.images), len(test.images)) if arguments.images is None else arguments.images
    if not 1 <= wanted <= len(test.images):
        raise UserError(f"--images must be between 1 and {len(test.images)}, what {test.name} holds out, not {wanted}")
    chosen = posterior_indices(len(test.images), wanted)
    normal = {digit: data.without(train, digit) for digit in arguments.digits}  # a digit that is none ends it here
    try_places(arguments.results, arguments.runs)
    session, subjects = session_of(test, arguments.data_root, device, report), []
    size = "custom" if arguments.set else arguments.preset
    variation = ({"development": True} if arguments.development else {}) | noise_option(arguments.noise)
    session.noise = arguments.noise
    for digit in arguments.digits:
        experiment = experiment_without(arguments, preset, normal[digit])
        for seed in arguments.seeds:
            with open_run(arguments.runs, experiment, seed) as run:
                state = fitted(run, normal[digit].images, device, report)
                subject = dataclasses.replace(
                    subject_of(run, experiment, state), dataset=test.name, preset=size, variation=variation
                )
                rows = Rows(subject, session, arguments.results)
                _judge(run, rows, state.evaluated_model(), digit, chosen, preset.draws)
                subjects.append(subject)
    sources = [of(digit, score) for digit in arguments.digits for score in scores_of(arguments.learning)]
    print_table(subjects, sources, arguments.results)


def scores_of(learning: str) -> tuple[str, ...]:
    """Return the names of the scores that a model has: one with a Gaussian prior has no energies."""
    return tuple(SCORES) if learning == "variational" else ("L>0",)


def of(digit: int, score: str) -> Of:
    """Return what the rows of a held-out digit and a score are of."""
    return Of("anomaly", target=str(digit), score=score)


def experiment_without(arguments: Arguments, preset: Preset, normal: data.Dataset) -> Experiment:
    """Return what is trained on these images: their name, which says the digit, is part of the configuration.

    Raises:
        UserError: a key of --set is unknown or names the rows, or a value does not fit.
    """
    for assignment in arguments.set:
        if (key := assignment.partition("=")[0]) in ("protocol", "preset", "dataset", "learning"):
            raise UserError(f"--set does not change {key!r}, which names the rows; use the command's own options")
    words = " --development" if arguments.development else ""
    height, width = normal.images.shape[2:]
    experiment = dataclasses.replace(
        preset.experiment,
        preset=preset.experiment.preset + words,
        dataset=normal.name,
        model=dataclasses.replace(preset.experiment.model, image_shape=(1, height, width)),
    )
    if arguments.learning == "gaussian":
        experiment = twin_of(experiment)
    return experiment.override(arguments.set)


def _images(arguments: Arguments, report: Reporter) -> tuple[data.Dataset, data.Dataset]:
    try:
        train, test = data.held_out(DATASET, arguments.data_root, arguments.download, report)
    except data.DatasetNotFound as missing:
        if arguments.preset != "tiny":
            raise
        report.line(f"{missing}")
        report.line(f"this tiny run is on the embedded {FALLBACK!r} and its rows are stored under that name")
        train, test = data.held_out(FALLBACK)
    if not arguments.development:
        return train, test
    return data.every(train, DEVELOPMENT, inverted=True), data.every(train, DEVELOPMENT)


def _judge(run: Run, rows: Rows, model: JointModel, digit: int, chosen: list[int], draws: int) -> None:
    """Store the rows that the results lack, and the scores themselves, the higher ones those of anomalies."""
    session = rows.session
    labels, where = session.dataset.labels, f"{session.dataset.name}/{session.dataset.split}"
    assert labels is not None  # `without` found the digit by them
    held_out = labels[chosen] == digit
    counts = int(held_out.sum()), int((~held_out).sum())
    questions = {}
    for name in scores_of(rows.subject.learning):
        said = (
            f"positive: digit {digit}, held out, {counts[0]} images of {where}; negative: the other digits, "
            f"{counts[1]}; score: {SCORES[name]}, mean of {draws} posterior samples"
        )
        questions[name] = Question(of(digit, name), f"digit {digit}", said, len(chosen))
    path = run.folder / f"scores{noise_suffix(session.noise)}.npz"
    if all(stands(rows, question) for question in questions.values()) and path.exists():
        session.report.line(f"digit {digit}, seed {run.seed}: measured before; its rows stand")
        return
    kept: dict[str, np.ndarray] = {}
    seconds = []
    latents = PartialPosterior(0, None, noise=session.noise)
    for name in questions:
        started = time.monotonic()
        if name == "E":
            kept[name] = posterior_energies(model, session.dataset.images, chosen, latents, draws)
        else:
            kept[name] = -scores_above(model, session.dataset.images, chosen, latents, draws)
        seconds.append(time.monotonic() - started)
    refuse_lost({name: (scores,) for name, scores in kept.items()})  # before the first row
    for (name, question), spent in zip(questions.items(), seconds, strict=True):
        judge(rows, question, kept[name][held_out], kept[name][~held_out], spent)
    whole = np.stack(list(kept.values())).astype(np.float32)
    arrays = {"positive": whole[:, held_out], "negative": whole[:, ~held_out], "names": np.array(list(kept))}
    results.write_artifact(path, arrays, rows.subject.provenance(session.provenance["commit"]))


if __name__ == "__main__":
    sys.exit(main())
