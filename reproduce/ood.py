"""Out-of-distribution detection by the scores of a trained ladder: L^{>k} of Eq. 20, and their ratios.

    python -m reproduce.ood --run runs/fashion-mnist-variational-cpu-... --outside mnist
    python -m reproduce.ood --run runs/cifar10-... --outside svhn-first1083 --held-out cifar10-test1000
    python -m reproduce.ood --run runs/celeba64-... --held-out NAME --outside svhn --resize

The images outside are the positive class, found by -L^{>k} and by LLR^{>k} = L^{>0} - L^{>k} (Havtorn et al., 2021)
among as many images of the dataset inside that training has not seen. With CIFAR-10 inside and SVHN outside the paper's
AUROC is .087 at k = 0, where SVHN is the likelier one, and .927 by LLR^{>9} (docs/facts, "Scores above a layer"). A
score is a mean over `--draws` of the latents; L^{>0} needs no chain, and a Gaussian twin never does.

The scores themselves, L and LLR in nats and not turned round, go to `ood_<outside>.npz` in the run's folder, and those
of the first seed of an EBM prior to results/artifacts/<inside>_ood_<outside>.npz.
"""

import dataclasses
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from jlebm import checkpoints, data
from jlebm.data.catalogue import entry_of
from jlebm.errors import UserError, exit_on_user_error
from jlebm.evaluation import Detection, likelihood_ratio
from jlebm.experiment import Experiment
from jlebm.files import atomic_write
from jlebm.folders import try_folder
from jlebm.hierarchy import PartialPosterior, scores_above
from jlebm.model import JointModel
from jlebm.progress import Reporter
from jlebm.randomness import GENERATOR, Scheme
from jlebm.run import Run, read_header, resolve_device
from jlebm.training import TrainState, initial_state
from reproduce import results
from reproduce.measuring.detection import METRICS, Question, judge, print_table, refuse_lost, session_of, stands
from reproduce.measuring.places import try_places
from reproduce.measuring.sampled import posterior_indices
from reproduce.measuring.session import Rows, Subject
from reproduce.pipelines.arguments import RESULTS
from reproduce.pipelines.joint import subject_of
from reproduce.pipelines.pictures import KEPT
from reproduce.results.identity import Of, noise_of, noise_suffix
from reproduce.terminal.console import ConsoleReporter
from reproduce.terminal.parsing import parse

PROTOCOL = "ood/1"


@dataclass(frozen=True)
class Arguments:
    """What a person can say to the detection of images from elsewhere."""

    run: Path
    """The folder of a trained ladder, whose config.json names the dataset inside."""
    outside: str
    """The dataset outside, such as svhn or svhn-first1083; its test split where it has one."""
    held_out: str | None = None
    """Images inside that training has not seen, such as cifar10-test1000; by default the dataset's own test split."""
    images: int = 2_000
    """On each side, at even distances; of both sides as many as the smaller one has, where that is fewer."""
    draws: int = 1
    """Of the latents, over which each score is a mean."""
    resize: bool = False
    """Whether images outside of another size are brought to that inside (bilinear); the rows say so."""
    data_root: Path | None = None
    """The folder with datasets; by default $JLEBM_DATA or the user's cache folder."""
    download: bool = True
    """Whether what the data root lacks may be downloaded into it."""
    noise: Scheme = GENERATOR
    """Scheme of the noise of latents (docs/noise); the rows name it."""
    device: str = "auto"
    """auto, cpu, cuda, or cuda:1 for another GPU of several."""
    results: Path = RESULTS
    """The folder with paper.toml, expected.toml and measured/."""


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> int:
    """Score, store and print; return the exit code."""
    arguments = parse(Arguments, argv, __doc__)
    report, device = ConsoleReporter(), resolve_device(arguments.device)
    if arguments.images < 1 or arguments.draws < 1:
        raise UserError(f"--images and --draws must be at least 1, not {arguments.images} and {arguments.draws}")
    run, experiment = open_trained(arguments.run)
    inside = _held_out(experiment, arguments, report)
    found = _load(arguments.outside, arguments, report)
    outside = sized(found, inside.images.shape[1:], arguments.resize)
    state = restored(run, experiment, device)
    try_folder(run.folder)
    try_places(arguments.results, artifacts=experiment.preset in KEPT and run.seed == 1)
    count = min(arguments.images, len(inside.images), len(outside.images))
    report.line(f"inside: {inside.name}, {inside.origin}; outside: {outside.name}, {outside.origin}; {count} of each")
    subject = dataclasses.replace(subject_of(run, experiment, state, arguments.noise), protocol=PROTOCOL)
    session = session_of(inside, arguments.data_root, device, report)
    session.noise = arguments.noise
    rows = Rows(subject, session, arguments.results)
    resized = "" if outside is found else f" brought from {found.images.shape[-1]} pixels (bilinear)"
    sides = (
        f"positive: outside, {count} images of {outside.name}/{outside.split}{resized}; "
        f"negative: inside, {count} of {inside.name}/{inside.split}; mean of {arguments.draws} draws"
    )
    questions = asked(experiment, outside.name, sides, 2 * count)
    path = run.folder / f"ood_{outside.name}{noise_suffix(arguments.noise)}.npz"
    copy = copy_of(subject, outside.name, arguments.results)
    if all(stands(rows, question) for question in questions.values()) and path.exists():
        report.line(f"{path} was measured before; its rows stand")
        keep(path, [] if copy is None or copy.exists() else [copy])
    else:
        _measure(rows, questions, state.evaluated_model(), experiment, (inside, outside), count, arguments.draws, path)
        keep(path, [] if copy is None else [copy])
    print_table([subject], [question.of for question in questions.values()], arguments.results)
    return 0


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
        raise UserError(f"{folder} is the run of another model than a ladder, whose layers the scores L>k are of")
    experiment = Experiment.from_json(config)
    return Run(folder, experiment, seed), experiment


def restored(run: Run, experiment: Experiment, device: torch.device) -> TrainState:
    """Return the state at the end of a run's training.

    Raises:
        UserError: there is no checkpoint, it is unusable, or training has not ended.
    """
    if not run.checkpoint.exists():
        raise UserError(f"{run.folder} has no checkpoint; train it with its recipe first")
    state = initial_state(experiment, run.seed, device)
    state.load_state_dict(checkpoints.load(run.checkpoint, experiment.digest(), run.seed))
    if not state.done(experiment):
        raise UserError(
            f"the training in {run.folder} has come to step {state.step} of {experiment.training.steps}; "
            "let its recipe end it first"
        )
    return state


def _load(name: str, arguments: Arguments, report: Reporter) -> data.Dataset:
    """Load a dataset's test split where it has one, else the whole of it."""
    split = "test" if "test" in entry_of(name, "train").splits else "train"
    return data.load(name, arguments.data_root, split, arguments.download, report)


def _held_out(experiment: Experiment, arguments: Arguments, report: Reporter) -> data.Dataset:
    name = arguments.held_out or experiment.dataset
    if name == experiment.dataset and name in data.CATALOGUE and "test" not in data.CATALOGUE[name].splits:
        raise UserError(f"{name} has no test split, and all of it was trained on; name other images with --held-out")
    try:
        found = _load(name, arguments, report)
    except data.DatasetNotFound as missing:
        if arguments.held_out is not None:
            raise
        raise UserError(f"{missing}; or name images that training has not seen with --held-out") from missing
    if found.images.shape[1:] != experiment.model.image_shape:
        raise UserError(
            f"the run is of images of {experiment.model.image_shape}, and {name} has {found.images.shape[1:]}; "
            "--held-out takes images of the dataset inside"
        )
    return found


def sized(dataset: data.Dataset, shape: tuple[int, ...], resize: bool) -> data.Dataset:
    """Return the dataset outside with images of the shape inside, brought to it where that is wished.

    Raises:
        UserError: they are of another shape, and it is not wished or they differ in channels.
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
            # Pillow's bilinear filter widens where it reduces, so that nothing is aliased.
            resized = Image.fromarray(pixels).resize((shape[2], shape[1]), Image.Resampling.BILINEAR)
            images[index, channel] = np.asarray(resized)
    return dataclasses.replace(dataset, images=images)


def asked(experiment: Experiment, outside: str, sides: str, images: int) -> dict[str, Question]:
    """Return the question that each score is an answer to, by the score's name, in the order of the artifact."""
    layers = len(experiment.model.latent_dims)
    chain = experiment.prior_chain.describe() if experiment.learning == "variational" else ""
    questions = {}
    for kind, sign, first in (("L", "-", 0), ("LLR", "", 1)):
        for k in range(first, layers):
            name = f"{kind}>{k}"
            of = Of("out-of-distribution", target=outside, score=name)
            questions[name] = Question(of, outside, f"{sides}; score: {sign}{name}", images, chain if k else "")
    return questions


def _measure(
    rows: Rows,
    questions: dict[str, Question],
    model: JointModel,
    experiment: Experiment,
    sides: tuple[data.Dataset, data.Dataset],
    count: int,
    draws: int,
    path: Path,
) -> None:
    """Store what the results lack, and all scores with how well they tell the sides apart."""
    chain = experiment.prior_chain if experiment.learning == "variational" else None
    scores: dict[str, tuple[np.ndarray, ...]] = {}
    seconds: list[float] = []
    for name in questions:
        started = time.monotonic()
        kind, _, k = name.partition(">")
        if kind == "L":
            latents = PartialPosterior(int(k), chain, noise=rows.session.noise)
            scores[name] = tuple(
                scores_above(model, side.images, posterior_indices(len(side.images), count), latents, draws)
                for side in sides
            )
        else:
            scores[name] = tuple(map(likelihood_ratio, scores["L>0"], scores[f"L>{k}"]))
        seconds.append(time.monotonic() - started)
    found: list[Detection] = []
    # After all of them: no row is stored of a network that gives NaN in a later score.
    refuse_lost(scores)
    for (name, question), spent in zip(questions.items(), seconds, strict=True):
        inside, outside = scores[name] if name.startswith("LLR") else (-side for side in scores[name])
        found.append(judge(rows, question, outside, inside, spent))
    arrays = {
        "inside": np.stack([inside for inside, _ in scores.values()]).astype(np.float32),
        "outside": np.stack([outside for _, outside in scores.values()]).astype(np.float32),
        "names": np.array(list(scores)),
        "positive": np.array(found[0].positive),
        **{metric: np.array([getattr(one, metric) for one in found]) for metric in METRICS},
    }
    results.write_artifact(path, arrays, rows.subject.provenance(rows.session.provenance["commit"]))


def copy_of(subject: Subject, outside: str, folder: Path) -> Path | None:
    """Return where the repository keeps the scores of a full preset's first seed for its figures, None of others."""
    if subject.preset not in KEPT or subject.seed != 1 or subject.learning != "variational":
        return None
    if noise_of(subject.variation) != GENERATOR:
        return None
    return folder / "artifacts" / f"{f'{subject.dataset}_ood_{outside}'.replace('-', '_')}.npz"


def keep(path: Path, copies: Sequence[Path]) -> None:
    """Copy the scores."""
    for copy in copies:
        with atomic_write(copy) as file:
            file.write(path.read_bytes())


if __name__ == "__main__":
    sys.exit(main())
