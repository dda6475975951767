"""The other systems of Table 2: one module each, named after the system, with its `PRESETS`."""

import pkgutil
from importlib import import_module

from reproduce.presets.extents import Size
from reproduce.results.table_lines import BASELINES
from reproduce.systems.system import BaselineExperiment

SIZES = {
    "tiny": Size(images=768, reference_images=768, kept=False),  # the fewest that fid768 can be measured on
    "cpu": Size(images=10_000, reference_images=10_000),
    "long": Size(images=10_000, reference_images=10_000),
    "budget": Size(images=50_000),
    "paper": Size(images=50_000),
}
"""How the presets of every system are measured."""


def built() -> tuple[str, ...]:
    """Return the names of the systems that have presets, in the table's order."""
    here = {module.name for module in pkgutil.iter_modules(__path__)}
    return tuple(system.name for system in BASELINES if _module(system.name) in here)


def presets_of(name: str) -> dict[str, BaselineExperiment]:
    """Return the presets of one of the systems that are `built`, by their names."""
    return import_module(f"{__name__}.{_module(name)}").PRESETS


def _module(name: str) -> str:
    return name.replace("-", "_")
