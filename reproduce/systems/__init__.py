"""The presets of the other systems of the table: a module each, named as the system, with its `PRESETS`."""

import pkgutil
from importlib import import_module
from typing import NamedTuple

from reproduce.results.table_lines import BASELINES
from reproduce.systems.system import BaselineExperiment

PROTOCOL = "table/1"
DATASET = "cifar10"


class Size(NamedTuple):
    """How many images a preset is measured on, the same for every system."""

    images: int
    reference_images: int | None
    """Training images that they are held against; None for all."""


SIZES = {
    "tiny": Size(768, 768),  # the fewest that fid768 can be measured on
    "cpu": Size(10_000, 10_000),
    "budget": Size(50_000, None),
    "paper": Size(50_000, None),
}


def built() -> tuple[str, ...]:
    """Return the names of the systems that have presets, in the table's order."""
    here = {module.name for module in pkgutil.iter_modules(__path__)}
    return tuple(system.name for system in BASELINES if _module(system.name) in here)


def presets_of(name: str) -> dict[str, BaselineExperiment]:
    """Return the presets of one of the systems that are `built`, by their names."""
    return import_module(f"{__name__}.{_module(name)}").PRESETS


def _module(name: str) -> str:
    return name.replace("-", "_")
