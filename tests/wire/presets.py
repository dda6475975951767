"""Every configuration that has a name: what `python -m tests.wire.presets` writes the pinned digests of."""

import dataclasses
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from jlebm.config import Config
from reproduce.presets import anomaly_sizes, prior_sizes
from reproduce.presets.ladder_sizes import twin_of
from reproduce.presets.recipes import recipes, with_inference_network
from reproduce.presets.staged import Sampled
from reproduce.results.anomaly_names import EIGHTY_TWENTY
from reproduce.results.prior_lines import LADDER
from reproduce.systems import built, presets_of
from reproduce.terminal.parsing import parse

PINNED = Path(__file__).with_name("digests.json")
BACKBONE = "the digest and the seed of a stage one"  # in place of what is known only when there is one


def named() -> Iterator[tuple[str, Config]]:
    """Yield every preset of every recipe and system, as it is before a command changes it."""
    for recipe in recipes().values():
        for size, preset in recipe.presets.items():
            yield f"{recipe.name} two-layer {size}", preset.experiment
            variational = with_inference_network(preset.variational or preset.experiment)
            yield f"{recipe.name} two-layer {size} variational", variational
        for size, preset in recipe.two_stage.items():
            energies = dataclasses.replace(preset.plan.energies, backbone=BACKBONE)
            yield f"{recipe.name} two-stage {size}, the plan", preset.plan
            yield f"{recipe.name} two-stage {size}, backbone", preset.plan.backbone
            yield f"{recipe.name} two-stage {size}, energies", energies
            yield f"{recipe.name} two-stage {size}, sampled", Sampled(energies, preset.plan.sampler)
            yield f"{recipe.name} two-stage {size}, sampled, seed 2", Sampled(energies, preset.plan.sampler, 2)
        for size, preset in recipe.ladder.items():
            yield f"{recipe.name} ladder {size}", preset.experiment
            yield f"{recipe.name} ladder {size}, twin", twin_of(preset.experiment)
    for size, preset in anomaly_sizes.PRESETS.items():
        yield f"anomaly {size}", preset.experiment
        yield f"anomaly {size}, twin", twin_of(preset.experiment)
    known = anomaly_sizes.KNOWN[EIGHTY_TWENTY]
    for asked in itertools.product(known["preset"], known["model"], known["learning"]):
        plan = anomaly_sizes.plan_of(EIGHTY_TWENTY, *asked)
        yield f"anomaly 80-20 {' '.join(asked)}", plan.experiment
        if plan.energies is not None:
            yield f"anomaly 80-20 {' '.join(asked)}, energies", dataclasses.replace(plan.energies, backbone=BACKBONE)
    for size in prior_sizes.SIZES.values():
        for dataset, side in (("cifar10", 32), ("celeba64", 64)):
            for line in LADDER:
                experiment = prior_sizes.experiment_of(line, size, dataset, (3, side, side))
                yield f"priors {dataset} {size.name} {line.name}", experiment
    for system in built():
        for size, experiment in presets_of(system).items():
            yield f"table {system} {size}", experiment


def found() -> dict[str, dict[str, object]]:
    """Return digest and JSON of each."""
    return {name: {"digest": config.digest(), "json": config.to_json()} for name, config in named()}


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Pin the digests of all presets."""


if __name__ == "__main__":
    parse(Arguments, None, __doc__)
    lines = (f"{json.dumps(name)}: {json.dumps(one, sort_keys=True)}" for name, one in found().items())
    PINNED.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    sys.stdout.write(f"{len(found())} configurations\n")
