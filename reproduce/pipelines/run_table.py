"""The systems of the paper's Table 2, trained and measured one after the other; and their table."""

import dataclasses
import functools
import importlib.metadata
import sys
from pathlib import Path

from jlebm.devices import resolve_device
from jlebm.errors import UserError, nearest
from reproduce import results
from reproduce.measuring.data_root import loaded, unseen
from reproduce.measuring.places import refuse_what_does_not_fit, try_places
from reproduce.measuring.session import Session
from reproduce.pipelines.arguments import refuse_processes
from reproduce.pipelines.command_arguments import TableArguments
from reproduce.pipelines.plans import changes_of_one_stage
from reproduce.pipelines.table_system import SOURCE, run_system
from reproduce.results.comparison import HEADER, comparison, not_run, sources
from reproduce.results.default_folder import naming
from reproduce.results.identity import TABLE
from reproduce.results.table_lines import BASELINES
from reproduce.systems import SIZES, built, presets_of
from reproduce.systems.system import DATASET, BaselineExperiment
from reproduce.terminal import printing
from reproduce.terminal.console import ConsoleReporter

FALLBACK = "photos"  # for `tiny`, if CIFAR-10 cannot be found
LIBRARIES = ("diffusers",)  # packages of the extra jlebm[baselines], whose versions the rows record as well


def run_table(arguments: TableArguments) -> int:
    """Train, sample and evaluate what is asked for, print the table; return the exit code."""
    refuse_processes("the systems of the table")
    device = resolve_device(arguments.device)
    preset = arguments.preset or ("budget" if device.type == "cuda" else "tiny")
    if preset not in SIZES:
        raise UserError(f"unknown preset {preset!r}{nearest(preset, SIZES)}")
    if arguments.only_table:
        print_table(arguments.results, arguments.dataset or DATASET, preset)
        return 0
    report = ConsoleReporter()
    experiments = [_experiment(name, preset, arguments) for name in _chosen(arguments)]
    kept = 1 in arguments.seeds and any(one.preset == preset and SIZES[preset].kept for one in experiments)
    try_places(arguments.results, arguments.runs, kept)
    fallback = FALLBACK if preset == "tiny" else None
    root = arguments.root(report)
    dataset = loaded(root, DATASET, arguments.dataset, fallback)
    report.line(f"preset {preset}, data: {dataset.name}, {len(dataset.images)} images, {dataset.origin}")
    size = SIZES[preset]
    images = size.images if arguments.images is None else arguments.images
    if images < 1:
        raise UserError(f"--images must be at least 1, not {images}")
    refuse_what_does_not_fit(images, dataset.images.shape[1:], len(experiments) * len(arguments.seeds), arguments.runs)
    size = dataclasses.replace(size, images=images, judged=(SOURCE,))
    session = Session.prepare(TABLE, dataset, size, root, device, arguments.noise)
    session.provenance["versions"] |= _versions()
    held_out = functools.cache(lambda: unseen(root, dataset))
    conditional = {system.name for system in BASELINES if system.conditional}
    for one in experiments:
        named = dataclasses.replace(one, dataset=dataset.name)
        classes = one.learning in conditional
        run_system(named, classes, arguments, session, held_out)
    print_table(arguments.results, dataset.name, experiments[0].preset)
    sys.stdout.writelines(f"{line}\n" for line in session.not_measured())
    return 0


def _chosen(arguments: TableArguments) -> tuple[str, ...]:
    known = built()
    for name in arguments.systems:
        if name not in known:
            raise UserError(f"{name!r} is not a system that this command trains{nearest(name, known)}")
    if arguments.set and len(arguments.systems) != 1:
        raise UserError("--set applies to one system; name it with --systems")
    return tuple(dict.fromkeys(arguments.systems)) or known


def _experiment(name: str, preset: str, arguments: TableArguments) -> BaselineExperiment:
    return presets_of(name)[preset].override(changes_of_one_stage(arguments, "backbone"))


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def print_table(folder: Path, dataset: str, preset: str) -> None:
    """Print the table of the stored rows, the sources of reported values, and the systems not run."""
    measured = results.read_all(folder / "measured")
    paper = results.paper_of(folder)
    printing.print_table(f"{dataset}, preset {preset}", HEADER, comparison(measured, paper, dataset, preset))
    sys.stdout.writelines(f"reported: {source}, on CIFAR-10\n" for source in sources(paper))
    for title, command in not_run(measured, dataset, preset) if preset in SIZES else []:
        sys.stdout.write(f"NEVER RUN {title}:\n    {naming(folder, command)}\n")
