"""The command of a recipe: its options, its processes, then the work."""

from collections.abc import Sequence

from jlebm.devices import resolve_device
from jlebm.engines import parallel
from jlebm.progress import SILENT
from reproduce.pipelines.arguments import Arguments
from reproduce.presets.recipes import Recipe
from reproduce.terminal.parsing import parse


def run_recipe(recipe: Recipe, argv: Sequence[str] | None, description: str) -> int:
    """Parse the arguments, do the work in each process that torchrun started, and return the exit code."""
    arguments = parse(Arguments, argv, description)
    from reproduce.pipelines.run_seeds import run_seeds  # here: --help needs no pipeline and no progress bar
    from reproduce.terminal.console import ConsoleReporter

    device = resolve_device(arguments.device)
    with parallel.world(device):
        run_seeds(recipe, arguments, device, ConsoleReporter() if parallel.first() else SILENT)
    return 0
