"""What every recipe does with its presets: train, sample, evaluate, store the rows, compare them, draw."""

import dataclasses
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
import tyro

from jlebm import data, parallel, results
from jlebm.errors import UserError, nearest
from jlebm.evaluation import latent
from jlebm.experiment import Experiment, LearningName
from jlebm.progress import SILENT, ConsoleReporter, Reporter
from jlebm.run import open_run, resolve_device
from jlebm.training import fit
from reproduce.bench import SOURCES, Bench
from reproduce.joint import measure_joint

STOPPED = 130  # the exit code of a command that Ctrl-C ended
RESULTS = Path(__file__).resolve().parents[1] / "results"


@dataclass(frozen=True)
class Preset:
    """One size of a recipe: what is trained, and how many images it is measured on."""

    experiment: Experiment
    images: int
    """Sampled from each prior."""
    reference_images: int | None = None
    """Training images that the samples are held against; None for all."""
    judged: tuple[str, ...] = SOURCES
    """The sources whose images go through Inception; the others are drawn, decoded and compared in latents alone."""
    variational: Experiment | None = None
    """What variational learning trains, where its chains and rates are not those of `experiment`."""


@dataclass(frozen=True)
class Recipe:
    """One dataset of the paper and its presets by name."""

    name: str
    presets: Mapping[str, Preset]
    fallback: str
    """The embedded dataset that the tiny preset takes where the recipe's own cannot be had."""


@dataclass(frozen=True)
class Arguments:
    """What a person can say to a recipe."""

    preset: str | None = None
    """tiny, cpu, budget or paper; by default the largest that this machine can run."""
    learning: LearningName = "joint-mle"
    """Joint maximum likelihood by posterior chains, or variational learning by an inference network."""
    dataset: str | None = None
    """Another dataset than the recipe's own, of the same image size, such as photos; stored under its name."""
    seeds: tuple[int, ...] = (1,)
    """One run and one set of rows for each."""
    data_root: Path | None = None
    """The folder with datasets and Inception weights; by default $JLEBM_DATA or the user's cache folder."""
    download: bool = True
    """Whether what the data root lacks may be downloaded into it."""
    budget: str | None = None
    """Wall-clock time to train each seed, such as 90s, 20m or 1.5h; part of the configuration."""
    images: int | None = None
    """Images sampled from each prior; by default the preset's."""
    device: str = "auto"
    """auto, cpu or cuda."""
    runs: Path = Path("runs")
    """Where the runs' folders lie; the same command goes on where it was stopped."""
    results: Path = RESULTS
    """The folder with paper.toml, expected.toml and measured/."""
    set: tuple[str, ...] = ()
    """Configuration keys to set, such as training.steps=100; the preset is then called custom."""


def run_recipe(recipe: Recipe, argv: Sequence[str] | None, description: str) -> int:
    """Parse the arguments, do the work for each seed, print the table; return the exit code."""
    arguments = tyro.cli(Arguments, args=argv, description=description)
    device = resolve_device(arguments.device)
    with parallel.world(device):
        return _run(recipe, arguments, device, ConsoleReporter() if parallel.first() else SILENT)


def _run(recipe: Recipe, arguments: Arguments, device: torch.device, report: Reporter) -> int:
    name, why = _choose_preset(recipe, arguments.preset, device)
    dataset = parallel.after_first(lambda: _dataset(recipe, arguments, report))
    if dataset.name == recipe.fallback and arguments.preset is None:
        name, why = "tiny", f"the size for the embedded {recipe.fallback!r}"
    report.line(f"preset {name}: {why}")
    preset = recipe.presets[name]
    experiment = dataclasses.replace(_experiment(preset, arguments), dataset=dataset.name)
    report.line(f"data: {dataset.name}, {len(dataset.images)} images, {dataset.origin}")
    if len(set(arguments.seeds)) != len(arguments.seeds) or not arguments.seeds:
        raise UserError("--seeds needs at least one seed, each only once")

    images = arguments.images if arguments.images is not None else preset.images
    if images < latent.FEWEST:
        raise UserError(f"--images must be at least {latent.FEWEST}, what the two-sample test needs, not {images}")
    bench = Bench.prepare(
        dataset,
        images,
        preset.reference_images,
        arguments.data_root,
        arguments.download,
        device,
        report,
        preset.judged,
    )
    for seed in arguments.seeds:
        with open_run(arguments.runs, experiment, seed) as run:
            report.line(f"seed {seed}: {run.folder}")
            started = time.monotonic()
            with _stop_signals(report) as stop:
                state = fit(run, dataset.images, device, report, stop=stop)
            if not state.done(experiment):
                report.line(f"stopped at step {state.step} with a checkpoint; the same command goes on from there")
                return STOPPED
            report.line(f"trained {state.step} steps; {time.monotonic() - started:.0f} s in this process")
            measure_joint(run, experiment, state, bench, arguments.results)
    if not parallel.first():
        return 0
    sys.stdout.write(_table(experiment, arguments.seeds, arguments.results))
    for line in bench.not_measured():
        sys.stdout.write(f"{line}\n")
    return 0


@contextmanager
def _stop_signals(report: Reporter) -> Iterator[Callable[[int], bool]]:
    """Turn the first Ctrl-C or SIGTERM into a wish to stop after the step; a second one ends the process at once."""
    wished = []

    def wish(number: int, frame: FrameType | None) -> None:
        for each, handler in before.items():
            signal.signal(each, handler)
        wished.append(number)
        report.line("stopping after this step")

    before = {each: signal.signal(each, wish) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda step: bool(wished)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _choose_preset(recipe: Recipe, asked: str | None, device: torch.device) -> tuple[str, str]:
    if asked is not None:
        if asked not in recipe.presets:
            raise UserError(f"unknown preset {asked!r}{nearest(asked, recipe.presets)}")
        return asked, "asked for"
    if device.type == "cuda":
        return (
            "budget",
            "the largest that a CUDA device finishes within an hour a seed; --preset paper takes hours more",
        )
    return (
        "tiny",
        "the largest that a CPU finishes within minutes; --preset cpu takes more than an hour",
    )


def _experiment(preset: Preset, arguments: Arguments) -> Experiment:
    experiment = preset.experiment
    if arguments.learning == "variational":
        experiment = preset.variational or experiment
        model = dataclasses.replace(experiment.model, inference_network=True)
        experiment = dataclasses.replace(experiment, learning="variational", model=model)
    for assignment in arguments.set:
        key = assignment.partition("=")[0]
        if key in ("protocol", "preset", "dataset", "learning"):
            raise UserError(f"--set does not change {key!r}, which names the rows; use the recipe's own options")
    changes = list(arguments.set)
    if arguments.budget is not None:
        changes.append(f"training.budget_seconds={parse_duration(arguments.budget)}")
    return experiment.override(changes)


def _dataset(recipe: Recipe, arguments: Arguments, report: Reporter) -> data.Dataset:
    if arguments.dataset is not None:
        return data.load(arguments.dataset, arguments.data_root, download=arguments.download, report=report)
    try:
        return data.load(recipe.name, arguments.data_root, download=arguments.download, report=report)
    except data.DatasetNotFound as missing:
        if arguments.preset not in (None, "tiny"):
            raise
        report.line(f"{missing}")
        report.line(
            f"{recipe.name} is not here: this tiny run is on the embedded {recipe.fallback!r} and its rows are stored "
            f"under that name"
        )
        return data.load(recipe.fallback)


def parse_duration(text: str) -> float:
    """Return seconds for "90s", "20m" or "1.5h".

    Raises:
        UserError: it is none of these, or not positive.
    """
    match = re.fullmatch(r"(-?\d+(?:\.\d+)?)\s*([smh])", text.strip())
    if match is None:
        raise UserError(f"the budget {text!r} is not a time such as 90s, 20m or 1.5h")
    seconds = float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]
    if seconds <= 0:
        raise UserError(f"the budget must be positive, not {text!r}")
    return seconds


def _table(experiment: Experiment, seeds: Sequence[int], folder: Path) -> str:
    """Render the verdicts of this command's own rows, and what is expected of them and has not been measured."""
    digest = experiment.digest()

    def ours(one: results.Measurement | results.Expectation) -> bool:
        return (one.dataset, one.preset, one.learning) == (experiment.dataset, experiment.preset, experiment.learning)

    measured = [row for row in results.read_all(folder / "measured") if ours(row) and row.config_digest == digest]
    measured = [row for row in measured if row.seed in seeds or row.source == "training-halves"]
    expected = [one for one in results.read_expected(folder / "expected.toml") if ours(one)]
    # An expectation of another configuration or count says nothing about these rows, which are then shown alone.
    expected = [one for one in expected if one.value is None or one.config_digest == digest]
    terminal = sys.stdout.isatty()
    return results.render(
        results.check(measured, expected),
        results.read_paper(folder / "paper.toml"),
        "terminal",
        color=terminal,
        width=shutil.get_terminal_size().columns if terminal else 200,
        commands=False,
    )
