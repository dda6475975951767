"""Command of a recipe: parse, choose model and preset, train, measure, print the table."""

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from jlebm import data
from jlebm.devices import why_no_gpu
from jlebm.engines import parallel
from jlebm.engines.precision import precision_of
from jlebm.errors import UserError, nearest
from jlebm.evaluation import latent
from jlebm.experiment import Experiment
from jlebm.progress import SILENT, Reporter
from jlebm.run import open_run, resolve_device
from reproduce import results
from reproduce.measuring.data_root import loaded
from reproduce.measuring.places import try_places
from reproduce.measuring.row_store import Rows, Subject
from reproduce.measuring.session import Session
from reproduce.measuring.summary import print_verdicts
from reproduce.pipelines.arguments import Arguments, Variation, parse_duration, refuse_what_does_not_fit
from reproduce.pipelines.energies_on_backbone import run_two_stage
from reproduce.pipelines.fitting import STOPPED, Stopped, fitted
from reproduce.pipelines.joint import measure_joint, subject_of
from reproduce.pipelines.ladder_and_twin import run_ladder
from reproduce.pipelines.plans import planned
from reproduce.presets.extents import SOURCES
from reproduce.presets.ladder_sizes import LadderPreset
from reproduce.presets.recipes import Preset, Recipe, with_inference_network
from reproduce.presets.staged import TwoStagePreset
from reproduce.terminal.console import ConsoleReporter


def run_seeds(recipe: Recipe, arguments: Arguments) -> int:
    """Do a recipe's work for each seed and print the table; return the exit code."""
    device = resolve_device(arguments.device)
    with parallel.world(device):
        try:
            _run(recipe, arguments, device, ConsoleReporter() if parallel.first() else SILENT)
        except Stopped:
            return STOPPED
    return 0


def _run(recipe: Recipe, arguments: Arguments, device: torch.device, report: Reporter) -> None:
    sizes: dict[str, Mapping[str, Preset | TwoStagePreset | LadderPreset]] = {
        "two-layer": recipe.presets,
        "two-stage": recipe.two_stage,
        "ladder": recipe.ladder,
    }
    model = arguments.model or next(name for name, presets in sizes.items() if presets)
    presets = sizes[model]
    if not presets:
        raise UserError(f"the recipe {recipe.name} has no {model} model; leave --model out")
    name, why = _choose_preset(presets, arguments.preset, device)
    dataset = parallel.after_first(lambda: _dataset(recipe, arguments, report))
    if dataset.name == recipe.fallback and arguments.preset is None:
        name, why = "tiny", f"the size for the embedded {recipe.fallback!r}"
    if arguments.device == "auto" and (missing := why_no_gpu()):
        why = f"{why}; {missing}"
    report.line(f"preset {name}: {why}")
    report.line(f"data: {dataset.name}, {len(dataset.images)} images, {dataset.origin}")
    if len(set(arguments.seeds)) != len(arguments.seeds) or not arguments.seeds:
        raise UserError("--seeds needs at least one seed, each only once")
    preset = presets[name]
    images = arguments.images if arguments.images is not None else preset.images
    if images < latent.FEWEST:
        raise UserError(f"--images must be at least {latent.FEWEST}, what the two-sample test needs, not {images}")
    refuse_what_does_not_fit(images, dataset.images.shape[1:], len(SOURCES) * len(arguments.seeds), arguments.runs)
    work: Callable[[Session], list[Subject]]
    if isinstance(preset, TwoStagePreset):
        plan, variation = planned(preset.plan, arguments, dataset.name)
        refuse_tf32(plan.energies.precision, "energies.precision", device)
        work = partial(run_two_stage, plan, variation, preset, arguments)
    else:
        if arguments.variation != Variation():
            raise UserError("the options of the two-stage model need --model two-stage")
        if isinstance(preset, LadderPreset):
            if arguments.learning is not None:
                raise UserError("--learning is that of the two-layer model; leave it out with --model ladder")
            experiment = _overridden(preset.experiment, arguments, dataset.name)
            refuse_tf32(precision_of(experiment.model), "model.precision", device)
            work = partial(run_ladder, experiment, preset.extent, arguments)
        else:
            work = partial(_run_joint, _experiment(preset, arguments, dataset.name, device), arguments)
    try_places(arguments.results, arguments.runs, preset.kept and 1 in arguments.seeds and not arguments.set)
    size = dataclasses.replace(preset, images=images)
    session = Session.prepare(recipe.module, dataset, size, arguments.root(report), device)
    session.noise = arguments.noise
    print_table(work(session), session, arguments.seeds, arguments.results)


def _run_joint(experiment: Experiment, arguments: Arguments, session: Session) -> list[Subject]:
    subjects = []
    for seed in arguments.seeds:
        with open_run(arguments.runs, experiment, seed) as run:
            state = fitted(run, session.dataset.images, session.device, session.report)
            rows = Rows(subject_of(session, run, experiment, state), session, arguments.results)
            measure_joint(run, experiment, state, rows)
            subjects.append(rows.subject)
    return subjects


def _choose_preset(presets: Mapping[str, object], asked: str | None, device: torch.device) -> tuple[str, str]:
    if asked is not None:
        if asked not in presets:
            raise UserError(f"unknown preset {asked!r}{nearest(asked, presets)}")
        return asked, "asked for"
    if device.type == "cuda" and "budget" in presets:
        return (
            "budget",
            "the largest that a CUDA device finishes within an hour per seed; --preset paper takes hours more",
        )
    larger = "--preset cpu takes far longer" if "cpu" in presets else "the others take a GPU for days"
    return "tiny", f"the largest that a {device.type.upper()} finishes within minutes; {larger}"


def _experiment(preset: Preset, arguments: Arguments, dataset: str, device: torch.device) -> Experiment:
    experiment = preset.experiment
    if arguments.learning == "variational":
        experiment = with_inference_network(preset.variational or experiment)
    experiment = _overridden(experiment, arguments, dataset)
    refuse_tf32(precision_of(experiment.model), "model.precision", device)
    return experiment


def refuse_tf32(precision: str, key: str, device: torch.device) -> None:
    """Refuse TF32 on a CPU: its rows would name an arithmetic that a CPU does not have.

    Raises:
        UserError: TF32 is asked for on a CPU.
    """
    if precision == "tf32" and device.type == "cpu":
        raise UserError(f"{key}=tf32 is an arithmetic that a CPU does not have; take float32, or a GPU")


def _overridden(experiment: Experiment, arguments: Arguments, dataset: str) -> Experiment:
    for assignment in arguments.set:
        key = assignment.partition("=")[0]
        if key in ("protocol", "preset", "dataset", "learning"):
            raise UserError(f"--set does not change {key!r}, which names the rows; use the recipe's own options")
    changes = list(arguments.set)
    if arguments.budget is not None:
        changes.append(f"training.budget_seconds={parse_duration(arguments.budget)}")
    return dataclasses.replace(experiment.override(changes), dataset=dataset)


def _dataset(recipe: Recipe, arguments: Arguments, report: Reporter) -> data.Dataset:
    fallback = recipe.fallback if arguments.preset in (None, "tiny") else None
    return loaded(arguments.root(report), recipe.name, arguments.dataset, fallback)


def print_table(questions: Sequence[Subject], session: Session, seeds: Sequence[int], folder: Path) -> None:
    """Print the verdicts on this command's rows, then what was not measured and why."""
    if not parallel.first():
        return
    wanted = {(one.dataset, one.identity.label, one.learning) for one in questions}
    digests = {one.config_digest for one in questions}

    def ours(one: results.Measurement | results.Expectation) -> bool:
        return (one.dataset, one.label, one.learning) in wanted

    shared = {source for one in questions for source in one.shared}

    def asked(row: results.Measurement) -> bool:
        return ours(row) and (row.seed in seeds or row.source in shared)

    print_verdicts(asked, ours, digests, folder)
    sys.stdout.writelines(f"{line}\n" for line in session.not_measured())
