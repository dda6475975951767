"""The whole table: every system trained and judged under one protocol, a row each of the paper's Table 2.

    python -m reproduce.table                                     every system at the machine's preset
    python -m reproduce.table --systems ddpm ncsn --preset cpu --seeds 1 2 3
    python -m reproduce.table --only-table --preset cpu           the stored rows, nothing is run

All have the same data, the same evaluator and, at `budget`, the same 20 minutes. The rows of NVAE and of ours are those
of `reproduce.cifar10 --model two-stage`. What the paper reports stands beside what is measured here and is no gate.
"""

import dataclasses
import functools
import importlib.metadata
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jlebm.errors import UserError, exit_on_user_error, nearest
from jlebm.randomness import GENERATOR, Scheme
from jlebm.run import resolve_device
from reproduce import results
from reproduce.measuring.places import paper_of, try_places
from reproduce.measuring.session import Session, loaded, unseen
from reproduce.pipelines.arguments import RESULTS, parse_duration, refuse_what_does_not_fit
from reproduce.pipelines.fitting import STOPPED, Stopped
from reproduce.pipelines.pictures import KEPT
from reproduce.pipelines.table_system import SOURCE, run_system
from reproduce.results.comparison import HEADER, comparison, not_run, sources
from reproduce.results.table_lines import BASELINES
from reproduce.systems import DATASET, SIZES, built, presets_of
from reproduce.systems.system import BaselineExperiment
from reproduce.terminal import printing
from reproduce.terminal.console import ConsoleReporter
from reproduce.terminal.parsing import parse

FALLBACK = "photos"  # for `tiny`, where CIFAR-10 cannot be had
LIBRARIES = ("diffusers",)  # of the extra jlebm[baselines], beside the versions that every row has


@dataclass(frozen=True)
class Arguments:
    """What a person can say."""

    systems: tuple[str, ...] = ()
    """Which, such as ddpm ncsn; by default all that are built."""
    preset: str | None = None
    """tiny, cpu, budget or paper; by default budget on a GPU and tiny elsewhere."""
    seeds: tuple[int, ...] = (1,)
    """One run and one set of rows for each."""
    dataset: str | None = None
    """Another dataset of 32 x 32 pixels than CIFAR-10, such as photos; stored under its name."""
    only_table: bool = False
    """Print the table of the stored rows and run nothing."""
    data_root: Path | None = None
    """The folder with datasets and Inception weights; by default $JLEBM_DATA or the user's cache folder."""
    download: bool = True
    """Whether what the data root lacks may be downloaded into it."""
    budget: str | None = None
    """Wall-clock time to train each seed, such as 90s, 20m or 1.5h; part of the configuration."""
    images: int | None = None
    """Images sampled from each system; by default the preset's."""
    noise: Scheme = GENERATOR
    """Scheme of the noise of sampled images (docs/noise); the rows name it."""
    device: str = "auto"
    """auto, cpu, cuda, or cuda:1 for another GPU of several."""
    runs: Path = Path("runs")
    """Where the runs' folders lie; the same command goes on where it was stopped."""
    results: Path = RESULTS
    """The folder with paper.toml, expected.toml and measured/."""
    set: tuple[str, ...] = ()
    """Configuration keys to set, such as training.steps=100, of one system; its preset is then called custom."""


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> int:
    """Train, sample and evaluate what is asked for, print the table; return the exit code."""
    arguments = parse(Arguments, argv, __doc__)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("the systems of the table are trained by one process; leave torchrun out")
    device = resolve_device(arguments.device)
    preset = arguments.preset or ("budget" if device.type == "cuda" else "tiny")
    if preset not in SIZES:
        raise UserError(f"unknown preset {preset!r}{nearest(preset, SIZES)}")
    if arguments.only_table:
        print_table(arguments.results, arguments.dataset or DATASET, preset)
        return 0
    report = ConsoleReporter()
    experiments = [_experiment(name, preset, arguments) for name in _chosen(arguments)]
    kept = 1 in arguments.seeds and any(one.preset in KEPT for one in experiments)
    try_places(arguments.results, arguments.runs, kept)
    fallback = FALLBACK if preset == "tiny" else None
    dataset = loaded(DATASET, arguments.dataset, fallback, arguments.data_root, arguments.download, report)
    report.line(f"preset {preset}, data: {dataset.name}, {len(dataset.images)} images, {dataset.origin}")
    size = SIZES[preset]
    images, root = size.images if arguments.images is None else arguments.images, arguments.data_root
    if images < 1:
        raise UserError(f"--images must be at least 1, not {images}")
    refuse_what_does_not_fit(images, dataset.images.shape[1:], len(experiments) * len(arguments.seeds), arguments.runs)
    judged = (SOURCE,)
    session = Session.prepare(dataset, images, size.reference_images, root, arguments.download, device, report, judged)
    session.provenance["versions"] |= _versions()
    session.noise = arguments.noise
    held_out = functools.cache(lambda: unseen(dataset, root, arguments.download, report))
    conditional = {system.name for system in BASELINES if system.conditional}
    for one in experiments:
        named = dataclasses.replace(one, dataset=dataset.name)
        classes = one.learning in conditional
        try:
            run_system(named, classes, arguments.seeds, arguments.runs, arguments.results, session, held_out)
        except Stopped:
            return STOPPED
    print_table(arguments.results, dataset.name, experiments[0].preset)
    sys.stdout.writelines(f"{line}\n" for line in session.not_measured())
    return 0


def _chosen(arguments: Arguments) -> tuple[str, ...]:
    known = built()
    for name in arguments.systems:
        if name not in known:
            raise UserError(f"{name!r} is not a system that this command trains{nearest(name, known)}")
    if len(set(arguments.seeds)) != len(arguments.seeds) or not arguments.seeds:
        raise UserError("--seeds needs at least one seed, each only once")
    if arguments.set and len(arguments.systems) != 1:
        raise UserError("--set is of one system; name it with --systems")
    return tuple(dict.fromkeys(arguments.systems)) or known


def _experiment(name: str, preset: str, arguments: Arguments) -> BaselineExperiment:
    changes = list(arguments.set)
    for assignment in changes:
        key = assignment.partition("=")[0]
        if key in ("protocol", "preset", "dataset", "learning", "backbone"):
            raise UserError(f"--set does not change {key!r}, which names the rows; use the command's own options")
    if arguments.budget is not None:
        changes.append(f"training.budget_seconds={parse_duration(arguments.budget)}")
    return presets_of(name)[preset].override(changes)


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def print_table(folder: Path, dataset: str, preset: str) -> None:
    """Print the table of the stored rows, where its reported numbers were read, and what was not run."""
    measured = results.read_all(folder / "measured")
    paper = paper_of(folder)
    printing.print_table(f"{dataset}, preset {preset}", HEADER, comparison(measured, paper, dataset, preset))
    sys.stdout.writelines(f"reported: {source}, on CIFAR-10\n" for source in sources(paper))
    for title, command in not_run(measured, dataset, preset) if preset in SIZES else []:
        sys.stdout.write(f"NOT RUN {title}:\n    {command}\n")


if __name__ == "__main__":
    sys.exit(main())
