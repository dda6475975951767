"""Out-of-distribution scores of a trained ladder, L^{>k} of Eq. 20 and their ratios: scored, stored, printed."""

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from jlebm import checkpoints, data
from jlebm.config import MOST
from jlebm.devices import resolve_device
from jlebm.errors import UserError
from jlebm.evaluation import Detection, likelihood_ratio
from jlebm.experiment import Experiment
from jlebm.files import atomic_write
from jlebm.folders import try_folder
from jlebm.hierarchy import PartialPosterior, scores_above
from jlebm.model import JointModel
from jlebm.progress import Reporter
from jlebm.run import Run, read_header
from jlebm.training import TrainState, initial_state
from reproduce import results
from reproduce.measuring.data_root import not_trained_on
from reproduce.measuring.detection import METRICS, Question, judge, print_table, refuse_lost, session_of, stands
from reproduce.measuring.places import try_places
from reproduce.measuring.row_store import Rows
from reproduce.measuring.sample_sets import posterior_indices
from reproduce.pipelines.command_arguments import OodArguments
from reproduce.pipelines.joint import subject_of
from reproduce.pipelines.pictures import stem_of
from reproduce.pipelines.run_page import leave_page
from reproduce.presets.recipes import kept
from reproduce.results.identity import Of, noise_suffix
from reproduce.terminal.console import ConsoleReporter

PROTOCOL = "ood/1"
RECIPE_NAME = "ood"
TASK = "detection"  # in the provenance of stored scores


def run_ood(arguments: OodArguments) -> None:
    """Score, store and print."""
    report, device = ConsoleReporter(), resolve_device(arguments.device)
    if arguments.images < 1 or arguments.draws < 1:
        raise UserError(f"--images and --draws must be at least 1, not {arguments.images} and {arguments.draws}")
    if arguments.draws > MOST:
        raise UserError(f"--draws must be at most {MOST:,}, beyond which a mean no longer changes; ask for fewer")
    run, experiment = open_trained(arguments.run)
    inside = _held_out(experiment, arguments, report)
    found = _load(arguments.outside, arguments, report)
    outside = sized(found, inside.images.shape[1:], arguments.resize)
    state = restored(run, experiment, device)
    try_folder(run.folder)
    try_places(arguments.results, artifacts=kept(experiment.preset) and run.seed == 1)
    sides = Sides(inside, outside, min(arguments.images, len(inside.images), len(outside.images)), arguments.draws)
    report.line(
        f"inside: {inside.name}, {inside.origin}; outside: {outside.name}, {outside.origin}; {sides.count} of each"
    )
    session = session_of(RECIPE_NAME, inside, kept(experiment.preset), arguments.root(report), device, arguments.noise)
    subject = dataclasses.replace(subject_of(session, run, experiment, state), protocol=PROTOCOL)
    rows = Rows(subject, session, arguments.results)
    resized = "" if outside is found else f" brought from {found.images.shape[-1]} pixels (bilinear)"
    questions = asked(experiment, sides, resized)
    path = run.folder / f"ood_{outside.name}{noise_suffix(session.noise)}.npz"
    copy = copy_of(rows, outside.name)
    task = next(iter(questions.values())).reference
    if all(stands(rows, question) for question in questions.values()) and _task_of(path) == task:
        report.line(f"{path} was measured before; its rows are kept")
        keep(path, [] if copy is None or copy.exists() else [copy])
    else:
        _measure(rows, questions, state.evaluated_model(), experiment, sides, path)
        keep(path, [] if copy is None else [copy])
    leave_page(run, session, arguments.results)
    print_table([subject], [question.of for question in questions.values()], arguments.results)


@dataclass(frozen=True)
class Sides:
    """Images inside and outside the distribution, and how they are scored."""

    inside: data.Dataset
    outside: data.Dataset
    count: int
    """Images scored on each side, evenly spaced."""
    draws: int
    """Draws of the latents that each score is averaged over."""


def open_trained(folder: Path) -> tuple[Run, Experiment]:
    """Return a run and its experiment from its folder.

    Raises:
        UserError: it is not the folder of a run, or not that of a ladder.
    """
    try:
        header = read_header(folder)
    except UserError as error:
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            raise UserError(f"{folder} is not the folder of a run: it has no config.json") from error
        raise
    config, seed = header["config"], header["seed"]
    if not isinstance(config, dict) or not isinstance(config.get("model"), dict) or type(seed) is not int:
        raise UserError(f"{folder} is not the folder of a run: its config.json is that of something else")
    if "latent_dims" not in config["model"] or "features" not in config["model"]:
        raise UserError(f"{folder} is the run of another model than a ladder; the scores L>k need a ladder's layers")
    experiment = Experiment.from_json(config)
    return Run(folder, experiment, seed), experiment


def restored(run: Run, experiment: Experiment, device: torch.device) -> TrainState:
    """Return the state at the end of a run's training.

    Raises:
        UserError: there is no usable checkpoint, or training has not ended.
    """
    if not run.checkpoint.exists():
        raise UserError(f"{run.folder} has no checkpoint; train it with its recipe first")
    state = initial_state(experiment, run.seed, device)
    state.load_state_dict(checkpoints.load(run.checkpoint, experiment.digest(), run.seed))
    if not state.done(experiment):
        raise UserError(
            f"the training in {run.folder} is at step {state.step} of {experiment.training.steps}; "
            "let its recipe finish it first"
        )
    return state


def _load(name: str, arguments: OodArguments, report: Reporter) -> data.Dataset:
    """Load a dataset's test split, or all of it if it has none."""
    return not_trained_on(arguments.root(report), name)


def _held_out(experiment: Experiment, arguments: OodArguments, report: Reporter) -> data.Dataset:
    name = arguments.held_out or experiment.dataset
    if name == experiment.dataset and name in data.CATALOGUE and "test" not in data.CATALOGUE[name].splits:
        raise UserError(f"{name} has no test split, and all of it was trained on; name other images with --held-out")
    try:
        found = _load(name, arguments, report)
    except data.DatasetNotFound as missing:
        if arguments.held_out is not None:
            raise
        raise UserError(f"{missing}; or name images not used in training with --held-out") from missing
    if found.images.shape[1:] != experiment.model.image_shape:
        raise UserError(
            f"the run is of images of {experiment.model.image_shape}, and {name} has {found.images.shape[1:]}; "
            "--held-out takes images of the dataset inside"
        )
    return found


def sized(dataset: data.Dataset, shape: tuple[int, ...], resize: bool) -> data.Dataset:
    """Return the dataset outside with images of the shape inside, resized if `resize` is set.

    Raises:
        UserError: the shapes differ, and `resize` is not set or the channels differ.
    """
    found = dataset.images.shape[1:]
    if found == shape:
        return dataset
    if not resize or found[0] != shape[0]:
        remedy = "take another" if found[0] != shape[0] else "take another, or --resize"
        raise UserError(
            f"{dataset.name} is an out-of-distribution set of another shape, {found} and not {shape}; {remedy}"
        )
    images = np.empty((len(dataset.images), *shape), np.uint8)
    for index, image in enumerate(dataset.images):
        for channel, pixels in enumerate(image):
            # Pillow's bilinear filter widens when it reduces, which avoids aliasing.
            resized = Image.fromarray(pixels).resize((shape[2], shape[1]), Image.Resampling.BILINEAR)
            images[index, channel] = np.asarray(resized)
    return dataclasses.replace(dataset, images=images)


class Score(NamedTuple):
    """A score of an image: L^{>k}, or the ratio of the whole likelihood and L^{>k}."""

    ratio: bool
    k: int

    @property
    def name(self) -> str:
        """Name in the rows: "L>1", "LLR>1"."""
        return f"{'LLR' if self.ratio else 'L'}>{self.k}"


def scores_of(layers: int) -> list[Score]:
    """Return the scores of a ladder of so many layers, in the order of the artifact."""
    return [Score(ratio, k) for ratio in (False, True) for k in range(int(ratio), layers)]


def asked(experiment: Experiment, sides: Sides, resized: str) -> dict[str, Question]:
    """Return the detection task of each score, by the score's name, in the order of the artifact.

    Args:
        experiment: configuration of the ladder.
        sides: images inside and outside.
        resized: how the images outside were resized, for the rows; empty if they were not.
    """
    inside, outside, count = sides.inside, sides.outside, sides.count
    reference = (
        f"positive: outside, {count} images of {outside.name}/{outside.split}{resized}; "
        f"negative: inside, {count} of {inside.name}/{inside.split}; mean of {sides.draws} draws"
    )
    layers = len(experiment.model.latent_shapes)
    chain = experiment.prior_chain.describe() if experiment.learning == "variational" else ""
    questions = {}
    for score in scores_of(layers):
        of = Of("out-of-distribution", target=outside.name, score=score.name)
        said = f"{reference}; score: {'' if score.ratio else '-'}{score.name}"
        questions[score.name] = Question(of, outside.name, said, 2 * count, chain if score.k else "")
    return questions


def _measure(
    rows: Rows, questions: dict[str, Question], model: JointModel, experiment: Experiment, sides: Sides, path: Path
) -> None:
    """Store the rows that the results lack, and the scores of both sides."""
    chain = experiment.prior_chain if experiment.learning == "variational" else None
    scores: dict[str, tuple[np.ndarray, ...]] = {}
    seconds: list[float] = []
    wanted = scores_of(len(experiment.model.latent_shapes))
    for score in wanted:
        started = time.monotonic()
        if score.ratio:
            scores[score.name] = tuple(map(likelihood_ratio, scores["L>0"], scores[f"L>{score.k}"]))
        else:
            latents = PartialPosterior(score.k, chain, noise=rows.session.noise)
            scores[score.name] = tuple(
                scores_above(model, side.images, posterior_indices(len(side.images), sides.count), latents, sides.draws)
                for side in (sides.inside, sides.outside)
            )
        seconds.append(time.monotonic() - started)
    found: list[Detection] = []
    # All scores are checked before the first row is stored.
    refuse_lost(scores)
    for score, spent in zip(wanted, seconds, strict=True):
        inside, outside = scores[score.name] if score.ratio else (-side for side in scores[score.name])
        found.append(judge(rows, questions[score.name], outside, inside, spent))
    arrays = {
        "inside": np.stack([inside for inside, _ in scores.values()]).astype(np.float32),
        "outside": np.stack([outside for _, outside in scores.values()]).astype(np.float32),
        "names": np.array(list(scores)),
        "positive": np.array(found[0].positive),
        **{metric: np.array([getattr(one, metric) for one in found]) for metric in METRICS},
    }
    made = rows.subject.provenance(rows.session.provenance["commit"])
    results.write_artifact(path, arrays, made | {TASK: next(iter(questions.values())).reference})


def _task_of(path: Path) -> str:
    """Return the detection task that stored scores are of: its images, draws and first score; "" without a file."""
    return str(results.read_artifact(path, (), ())[1].get(TASK, "")) if path.exists() else ""


def copy_of(rows: Rows, outside: str) -> Path | None:
    """Return the path of the scores in the repository's artifacts; None if they are not kept there."""
    one = rows.subject.identity
    if not rows.kept or one.learning != "variational":
        return None
    return rows.folder / "artifacts" / f"{stem_of(f'{one.dataset} ladder {one.label} ood {outside}')}.npz"


def keep(path: Path, copies: Sequence[Path]) -> None:
    """Copy the scores to each path."""
    for copy in copies:
        with atomic_write(copy) as file:
            file.write(path.read_bytes())
