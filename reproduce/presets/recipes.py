"""A recipe as data: one dataset of the paper and its presets by model and name."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from jlebm.backbones.conv import ConvConfig
from jlebm.experiment import Experiment
from reproduce.presets.extents import SOURCES
from reproduce.presets.ladder_sizes import LadderPreset
from reproduce.presets.staged import TwoStagePreset


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
    """Of the two-layer generator; empty where the paper has none of it."""
    fallback: str
    """The embedded dataset that the tiny preset takes where the recipe's own cannot be had."""
    two_stage: Mapping[str, TwoStagePreset] = field(default_factory=dict)
    """Of the deep hierarchy."""
    ladder: Mapping[str, LadderPreset] = field(default_factory=dict)
    """Of the ladder of vector latents."""


def recipes() -> dict[str, Recipe]:
    """Return every recipe by its module's name: the files at the top of `reproduce` that say a `RECIPE`."""
    top = Path(__file__).resolve().parents[1]
    said = [path.stem for path in sorted(top.glob("*.py")) if re.search("^RECIPE = ", path.read_text(), re.MULTILINE)]
    return {name: import_module(f"reproduce.{name}").RECIPE for name in said}


def with_inference_network(experiment: Experiment) -> Experiment:
    """Return what variational learning makes of an experiment on the two-layer generator."""
    model = experiment.model
    assert isinstance(model, ConvConfig)  # a ladder has one always
    return dataclasses.replace(
        experiment, learning="variational", model=dataclasses.replace(model, inference_network=True)
    )
