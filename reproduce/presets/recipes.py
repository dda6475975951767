"""A recipe as data: one dataset of the paper and its presets by model and name."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from jlebm.backbones.conv import ConvConfig
from jlebm.errors import exit_on_user_error
from jlebm.experiment import Experiment
from reproduce.presets.extents import Size
from reproduce.presets.ladder_sizes import LadderPreset
from reproduce.presets.staged import TwoStagePreset


@dataclass(frozen=True)
class Preset(Size):
    """One size of the two-layer generator: what is trained and how it is measured."""

    experiment: Experiment
    variational: Experiment | None = None
    """Configuration of variational learning, if its chains and rates differ from those of `experiment`."""


@dataclass(frozen=True)
class Recipe:
    """One dataset of the paper and its presets by name."""

    name: str
    """Name of the dataset."""
    presets: Mapping[str, Preset]
    """Presets of the two-layer generator; empty if the paper trains none on this dataset."""
    fallback: str
    """Embedded dataset that the tiny preset takes if the recipe's own cannot be found."""
    two_stage: Mapping[str, TwoStagePreset] = field(default_factory=dict)
    """Presets of the two-stage model."""
    ladder: Mapping[str, LadderPreset] = field(default_factory=dict)
    """Presets of the ladder of vector latents."""

    @property
    def module(self) -> str:
        """Module of `reproduce` that holds the recipe: "fashion_mnist" for the dataset "fashion-mnist"."""
        return self.name.replace("-", "_")


def recipes() -> dict[str, Recipe]:
    """Return every recipe by its module's name: the files at the top of `reproduce` that define a `RECIPE`."""
    top = Path(__file__).resolve().parents[1]
    defining = [
        path.stem for path in sorted(top.glob("*.py")) if re.search("^RECIPE = ", path.read_text(), re.MULTILINE)
    ]
    return {name: import_module(f"reproduce.{name}").RECIPE for name in defining}


def command(recipe: Recipe, description: str | None) -> Callable[..., int]:
    """Return the `main` of a recipe's module, which runs the recipe and returns the exit code.

    Args:
        recipe: what is run.
        description: the module's docstring, which `--help` shows.
    """

    @exit_on_user_error
    def main(argv: Sequence[str] | None = None) -> int:
        from reproduce.pipelines.recipe import run_recipe  # here, as importing a preset runs nothing

        return run_recipe(recipe, argv, description or "")

    return main


def kept(preset: str) -> bool:
    """Whether ladders of a preset keep their arrays; never one that `--set` has made "custom"."""
    return any(recipe.ladder[preset].kept for recipe in recipes().values() if preset in recipe.ladder)


def with_inference_network(experiment: Experiment) -> Experiment:
    """Return the experiment with variational learning and an inference network."""
    model = experiment.model
    assert isinstance(model, ConvConfig)  # a ladder always has one
    return dataclasses.replace(
        experiment, learning="variational", model=dataclasses.replace(model, inference_network=True)
    )
