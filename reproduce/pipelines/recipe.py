"""The command of a recipe: its options, then the work."""

from collections.abc import Sequence

from reproduce.pipelines.arguments import Arguments
from reproduce.presets.recipes import Recipe
from reproduce.terminal.parsing import parse


def run_recipe(recipe: Recipe, argv: Sequence[str] | None, description: str) -> int:
    """Parse the arguments, do the work for each seed, print the table; return the exit code."""
    arguments = parse(Arguments, argv, description)
    from reproduce.pipelines.seeds_in_turn import run_seeds  # here: --help needs no pipeline

    return run_seeds(recipe, arguments)
