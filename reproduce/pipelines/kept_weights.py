"""Weights that the repository keeps, measured in place of a training (`--kept-weights`)."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

import jlebm
from jlebm.backbones.nvae import NVAE, NVAEConfig
from jlebm.errors import UserError
from jlebm.files import sha256_of_file
from jlebm.learning.two_stage import TwoStageExperiment
from jlebm.model import JointModel
from jlebm.run import Run, open_run
from jlebm.sampling import Sampler
from reproduce.pipelines.arguments import Arguments
from reproduce.pipelines.pictures import stem_of
from reproduce.pipelines.two_stage_rows import Learned
from reproduce.presets.staged import TwoStagePlan, name_of_backbone
from reproduce.results.default_folder import RESULTS

TRAINS = ("backbone_checkpoint", "energies_seed", "decoder")  # options that only a training has
FOLDER = "kept"  # in the folder of the runs: nothing of these mixes with a training's events


class Kept(NamedTuple):
    """Kept weights, and the run's folder of what is drawn from them."""

    run: Run
    model: JointModel
    backbone: nn.Module
    """The backbone as it was trained; `model` may hold a frozen copy of fewer parameters."""
    learned: Learned


def file_of(results: Path, dataset: str, preset: str) -> Path:
    """Return the path of a preset's kept weights: in a results folder, or else in the repository's.

    Raises:
        UserError: neither has them.
    """
    name = stem_of(f"{dataset} two-stage {preset}") + "_weights.safetensors"
    for folder in (results, RESULTS):
        if (path := folder / "artifacts" / name).exists():
            return path
    raise UserError(
        f"the weights of {dataset} {preset} are not kept: there is no {results / 'artifacts' / name}; leave "
        "--kept-weights out, and they are trained"
    )


@contextmanager
def opened(plan: TwoStagePlan, preset: str, arguments: Arguments, device: torch.device) -> Iterator[Kept]:
    """Load a preset's kept weights and open a folder for their samples, beside that of a training.

    Args:
        plan: configuration of the row, with the dataset's name.
        preset: name of the preset, before anything was set.
        arguments: command-line options.
        device: where to put the model.

    Raises:
        UserError: there are no such weights, they are damaged or of another configuration, an option of a training is
            given, or another process holds the folder.
    """
    for name in TRAINS:
        if getattr(arguments.variation, name) is not None:
            flag = name.replace("_", "-")
            raise UserError(f"--{flag} applies to a training, and kept weights have had theirs: leave one of both out")
    path = file_of(arguments.results, plan.energies.dataset, preset)
    kept = jlebm.load(path, device)
    energies, (seed, step, weights) = kept.experiment, _said(kept.header, path)
    _check_statistics(kept.sampler, plan.sampler, path)
    if not isinstance(energies, TwoStageExperiment) or not _of_plan(energies, plan, seed):
        advice = "--kept-weights" if plan.preset == preset else "--set and --budget"
        raise UserError(f"the weights in {path} are of another configuration; leave {advice} out")
    if seed != arguments.variation.training_seed:
        raise UserError(f"the weights in {path} are of training seed {seed}; give --training-seed {seed}")
    whole = energies.backbone == name_of_backbone(plan.backbone, seed, plan.backbone.training.steps)
    digest = sha256_of_file(path)
    learned = Learned(step, whole and step >= plan.energies.training.steps, weights, kept=digest)
    with open_run(arguments.runs / FOLDER / digest[:10], energies, seed) as run:
        yield Kept(run, kept.model, _as_trained(energies.model, kept.model), learned)


def _of_plan(energies: TwoStageExperiment, plan: TwoStagePlan, seed: int) -> bool:
    """Whether energies and their backbone have the configurations of a plan."""
    backbone = energies.backbone.startswith(name_of_backbone(plan.backbone, seed))
    return backbone and dataclasses.replace(energies, backbone="") == plan.energies


def _said(header: dict[str, Any], path: Path) -> tuple[int, int, str]:
    """Return seed, steps and raw or averaged weights, as a recipe writes them into a header."""
    seed, step, weights = (header.get(name) for name in ("seed", "step", "weights"))
    if type(seed) is not int or type(step) is not int or weights not in ("raw", "ema"):
        raise UserError(f"the header of {path} does not say its seed, steps and weights, as a recipe writes them")
    return seed, step, weights


def _check_statistics(kept: Sampler | None, asked: Sampler, path: Path) -> None:
    """Refuse other statistics of batch norms than those in the file."""
    there = "trained" if kept is None else kept.batch_norm
    if asked.batch_norm != there:
        raise UserError(f"the statistics of batch norms in {path} are {there!r}; leave --batch-norm out")
    if kept is not None and there != "trained" and (kept.temperature, kept.noise) != (asked.temperature, asked.noise):
        raise UserError(
            f"the statistics of batch norms in {path} were re-estimated at temperature {kept.temperature:g} and with "
            f"noise {kept.noise}; leave --temperature and --noise out"
        )


def _as_trained(config: Any, model: JointModel) -> nn.Module:
    """Return a backbone with the parameters that were trained; the weights of an NVAE are new ones."""
    if isinstance(config, NVAEConfig):
        with torch.random.fork_rng(devices=[]):
            return NVAE(config)
    assert isinstance(model.backbone, nn.Module)
    return model.backbone
