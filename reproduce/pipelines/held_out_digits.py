"""Anomaly detection with held-out digits: one model for each digit and seed, trained, judged, stored."""

import dataclasses
import time

import numpy as np

from jlebm import data
from jlebm.errors import UserError, nearest
from jlebm.experiment import Experiment
from jlebm.hierarchy import PartialPosterior, posterior_energies, scores_above
from jlebm.model import JointModel
from jlebm.progress import Reporter
from jlebm.run import Run, open_run, resolve_device
from reproduce import results
from reproduce.measuring.detection import Question, judge, print_table, refuse_lost, session_of, stands
from reproduce.measuring.places import try_places
from reproduce.measuring.sampled import posterior_indices
from reproduce.measuring.session import Rows
from reproduce.pipelines.command_arguments import AnomalyArguments
from reproduce.pipelines.fitting import STOPPED, Stopped, fitted
from reproduce.pipelines.joint import subject_of
from reproduce.presets.anomaly_sizes import DATASET, PRESETS, AnomalyPreset
from reproduce.presets.ladder_sizes import twin_of
from reproduce.results.identity import Of
from reproduce.terminal.console import ConsoleReporter

FALLBACK = "digits"
DEVELOPMENT = 6  # one training image of so many is held out instead of the test images: MNIST's 10,000
SCORES = {"L>0": "-L>0", "E": "E(z), the energies alone"}  # by name, and as the rows say it


def run_anomaly(arguments: AnomalyArguments) -> int:
    """Train and judge one model for each digit and seed; return the exit code."""
    try:
        _run(arguments, ConsoleReporter())
    except Stopped:
        return STOPPED
    return 0


def _run(arguments: AnomalyArguments, report: Reporter) -> None:
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
    variation = {"development": True} if arguments.development else {}
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


def experiment_without(arguments: AnomalyArguments, preset: AnomalyPreset, normal: data.Dataset) -> Experiment:
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


def _images(arguments: AnomalyArguments, report: Reporter) -> tuple[data.Dataset, data.Dataset]:
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
    path = run.folder / "scores.npz"
    if all(stands(rows, question) for question in questions.values()) and path.exists():
        session.report.line(f"digit {digit}, seed {run.seed}: measured before; its rows stand")
        return
    kept: dict[str, np.ndarray] = {}
    seconds = []
    for name in questions:
        started = time.monotonic()
        if name == "E":
            kept[name] = posterior_energies(model, session.dataset.images, chosen, draws=draws)
        else:
            kept[name] = -scores_above(model, session.dataset.images, chosen, PartialPosterior(0, None), draws)
        seconds.append(time.monotonic() - started)
    refuse_lost({name: (scores,) for name, scores in kept.items()})  # before the first row
    for (name, question), spent in zip(questions.items(), seconds, strict=True):
        judge(rows, question, kept[name][held_out], kept[name][~held_out], spent)
    whole = np.stack(list(kept.values())).astype(np.float32)
    arrays = {"positive": whole[:, held_out], "negative": whole[:, ~held_out], "names": np.array(list(kept))}
    results.write_artifact(path, arrays, rows.subject.provenance(session.provenance["commit"]))
