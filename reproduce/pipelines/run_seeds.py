"""The work of a recipe: choose model and preset, train, measure, print the table."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial

import torch

from jlebm.devices import why_no_gpu
from jlebm.errors import UserError
from jlebm.evaluation import latent
from jlebm.experiment import Experiment
from jlebm.progress import Reporter
from jlebm.run import open_run
from reproduce.measuring.data_root import loaded, not_trained_on
from reproduce.measuring.places import refuse_what_does_not_fit, try_places
from reproduce.measuring.row_store import Rows, Subject
from reproduce.measuring.session import Session
from reproduce.measuring.summary import print_own_verdicts
from reproduce.pipelines.arguments import Arguments
from reproduce.pipelines.energies_on_backbone import run_two_stage
from reproduce.pipelines.fitting import fitted
from reproduce.pipelines.joint import measure_joint, subject_of
from reproduce.pipelines.ladder_and_twin import run_ladder
from reproduce.pipelines.plans import joint_planned, ladder_planned, planned
from reproduce.presets.extents import SOURCES, known_elsewhere
from reproduce.presets.ladder_sizes import LadderPreset
from reproduce.presets.recipes import Preset, Recipe
from reproduce.presets.staged import TwoStagePreset


def run_seeds(recipe: Recipe, arguments: Arguments, device: torch.device, report: Reporter) -> None:
    """Choose model and preset, prepare the data, do the work for each seed, and print the table."""
    sizes: dict[str, Mapping[str, Preset | TwoStagePreset | LadderPreset]] = {
        "two-layer": recipe.presets,
        "two-stage": recipe.two_stage,
        "ladder": recipe.ladder,
    }
    model = arguments.model or next(name for name, presets in sizes.items() if presets)
    presets = sizes[model]
    if not presets:
        raise UserError(f"the recipe {recipe.name} has no {model} model; leave --model out")
    if arguments.preset is not None and arguments.preset not in presets:
        others = {f"--model {other}": names for other, names in sizes.items()}
        raise UserError(f"unknown preset {arguments.preset!r}{known_elsewhere(arguments.preset, presets, others)}")
    name, why = _choose_preset(presets, arguments.preset, device)
    fallback = recipe.fallback if arguments.preset in (None, "tiny") else None
    root = arguments.root(report)
    dataset = loaded(root, recipe.name, arguments.dataset, fallback)
    held_out = None if arguments.held_out is None else not_trained_on(root, arguments.held_out)
    if dataset.name == recipe.fallback and arguments.preset is None:
        name, why = "tiny", f"the size for the embedded {recipe.fallback!r}"
    if arguments.device == "auto" and (missing := why_no_gpu()):
        why = f"{why}; {missing}"
    report.line(f"preset {name}: {why}")
    report.line(f"data: {dataset.name}, {len(dataset.images)} images, {dataset.origin}")
    preset = presets[name]
    images = arguments.images if arguments.images is not None else preset.images
    if images < latent.FEWEST:
        raise UserError(f"--images must be at least {latent.FEWEST}, what the two-sample test needs, not {images}")
    work: Callable[[Session], list[Subject]]
    if isinstance(preset, TwoStagePreset):
        plan, variation = planned(preset.plan, arguments, dataset.name, device)
        work = partial(run_two_stage, plan, variation, preset, arguments)
    elif isinstance(preset, LadderPreset):
        work = partial(run_ladder, ladder_planned(preset, arguments, dataset.name, device), preset.extent, arguments)
    else:
        work = partial(_run_joint, joint_planned(preset, arguments, dataset.name, device), arguments)
    refuse_what_does_not_fit(images, dataset.images.shape[1:], len(SOURCES) * len(arguments.seeds), arguments.runs)
    try_places(arguments.results, arguments.runs, preset.kept and 1 in arguments.seeds and not arguments.set)
    size = dataclasses.replace(preset, images=images)
    session = Session.prepare(recipe.module, dataset, size, root, device, arguments.noise)
    if held_out is not None:
        session.compare_with(held_out)
    print_own_verdicts(work(session), session, arguments.seeds, arguments.results)


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
        return asked, "asked for"
    if device.type == "cuda" and "budget" in presets:
        return (
            "budget",
            "the largest that a CUDA device finishes within an hour per seed; --preset paper takes hours more",
        )
    larger = "--preset cpu takes far longer" if "cpu" in presets else "the others take a GPU for days"
    return "tiny", f"the largest that a {device.type.upper()} finishes within minutes; {larger}"
