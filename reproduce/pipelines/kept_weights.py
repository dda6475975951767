"""Weights that the repository keeps, measured in place of a training (`--kept-weights`)."""

import dataclasses
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

import jlebm
from jlebm.errors import UserError
from jlebm.files import sha256_of_file
from jlebm.learning.two_stage import TwoStageExperiment
from jlebm.run import Run, open_run
from reproduce.pipelines.arguments import Arguments
from reproduce.pipelines.two_stage_rows import Learned
from reproduce.presets.staged import TwoStagePlan

TRAINS = ("backbone_checkpoint", "energies_seed", "decoder")  # options of a training, which there is none of

FOLDER = "kept"  # in the folder of the runs: nothing of these mixes with a training's events


def file_of(results: Path, dataset: str, preset: str) -> Path:
    """Return the path of a preset's kept weights in the results folder."""
    return results / "artifacts" / (re.sub(r"[\W_]+", "_", f"{dataset} two-stage {preset}") + "_weights.safetensors")


@contextmanager
def opened(
    plan: TwoStagePlan, preset: str, arguments: Arguments, device: torch.device
) -> Iterator[tuple[Run, jlebm.TrainedModel, Learned]]:
    """Open a run's folder for a preset's kept weights, beside that of a training, and load them.

    Args:
        plan: configuration of the row, with the dataset's name.
        preset: name of the preset, before anything was set.
        arguments: command-line options.
        device: where to put the model.

    Raises:
        UserError: there are no such weights, they are of another configuration, or an option of a training is given.
    """
    for name in TRAINS:
        if getattr(arguments.variation, name) is not None:
            raise UserError(f"--{name.replace('_', '-')} is for a training, and kept weights are trained: leave it out")
    path = file_of(arguments.results, plan.energies.dataset, preset)
    if not path.exists():
        raise UserError(
            f"the weights of {plan.energies.dataset} {preset} are not kept: there is no {path}; leave --kept-weights "
            "out, and they are trained"
        )
    kept = jlebm.load(path, device)
    energies, seed = kept.experiment, int(kept.header.get("seed", 1))
    if not isinstance(energies, TwoStageExperiment) or plan.energies != dataclasses.replace(energies, backbone=""):
        raise UserError(f"the weights in {path} are of another configuration; leave --set, --budget or the weights out")
    if seed != arguments.variation.training_seed:
        raise UserError(f"the weights in {path} are of training seed {seed}; leave --training-seed out")
    step = int(kept.header["step"])
    learned = Learned(step, step >= energies.training.steps, str(kept.header["weights"]), kept=sha256_of_file(path))
    with open_run(arguments.runs / FOLDER, energies, seed) as run:
        yield run, kept, learned
