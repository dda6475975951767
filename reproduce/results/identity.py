"""What a row is of: one value that gives a run's folder, a label in a table, and the command that measures it."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

Option: TypeAlias = str | int | float | bool
MODELS = ("two-layer", "two-stage", "ladder")
DETECTIONS = {"anomaly": "anomaly", "anomaly-80-20": "anomaly", "ood": "ood"}  # recipes of one target and one score
TABLE = "table"
FIRST_NOISE = "generator/1"  # the scheme of the noise of a row that names none


def recipe_of(protocol: str, learning: str) -> tuple[str, str]:
    """Return recipe and model of a protocol, which is named after both: "cifar10-two-stage/1", "mnist-ladder/1".

    This is the one place that reads such a name: of runs and rows from before they said their recipe themselves.

    Args:
        protocol: of a configuration or a row, with its version.
        learning: the scheme; in the recipe `table` it names the system.
    """
    name = protocol.partition("/")[0]
    if name == TABLE:
        return name, learning
    if name in DETECTIONS:
        return DETECTIONS[name], "ladder"
    for model in ("two-stage", "ladder"):
        if name.endswith(f"-{model}"):
            return name.removesuffix(f"-{model}").replace("-", "_"), model
    return name.replace("-", "_"), "two-layer"


def option(name: str, value: Option) -> str:
    """Write one option as it is typed: `chain_noise` = False is "--no-chain-noise"."""
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    return f"--{flag} {value:g}" if isinstance(value, float) else f"--{flag} {shlex.quote(str(value))}"


def options(variation: Mapping[str, Option]) -> list[str]:
    """Return the options of a variation as they are typed."""
    return [option(name, value) for name, value in variation.items()]


def label(preset: str, variation: Mapping[str, Option]) -> str:
    """Return a preset with its variation, as a table names it: "cpu --chain-steps 100"."""
    return " ".join([preset, *options(variation)])


def noise_of(variation: Mapping[str, Option]) -> str:
    """Return the scheme of the noise of a variation's samples."""
    return str(variation.get("noise", FIRST_NOISE))


def noise_option(scheme: str) -> dict[str, Option]:
    """Return the option of a variation that names a scheme of noise; none for that of rows that name none."""
    return {} if scheme == FIRST_NOISE else {"noise": scheme}


def noise_suffix(scheme: str) -> str:
    """Return what the names of files of samples end in: nothing for the first scheme, "-philox-1" for another."""
    return "" if scheme == FIRST_NOISE else f"-{scheme.replace('/', '-')}"


class Of(NamedTuple):
    """What a number is of: samples of a source, one layer of their latents, or what a score detects."""

    source: str
    layer: str = ""
    """ "z3", for a number of one layer alone."""
    target: str = ""
    """Of a detection: the digit held out, or the dataset outside."""
    score: str = ""
    """By which it is detected, "L>0"."""

    @property
    def name(self) -> str:
        """All of it as a table names it: "ebm-prior/z3", "anomaly/1/L>0"."""
        return "/".join(filter(None, self))


@dataclass(frozen=True)
class Identity:
    """Which training, and how its samples are drawn where that is not as the preset says.

    Attributes:
        recipe: the module of `reproduce` that a person runs, "cifar10", "anomaly", "table".
        model: "two-layer", "one-layer", "two-stage" or "ladder"; of the recipe `table` the system's name.
        learning: the scheme, as `Measurement.learning`.
        dataset: whose images it learned from.
        preset: the size, "tiny", "cpu", "budget" or "paper", or "custom".
        variation: options beside the preset, by the name of their field, in the order in which they are typed.
        seed: of the run; of a two-stage row, of its samples.
    """

    recipe: str
    model: str
    learning: str
    dataset: str
    preset: str
    variation: Mapping[str, Option] = field(default_factory=dict)
    seed: int = 1

    @property
    def label(self) -> str:
        """The preset with its variation, as a table names it: "cpu --chain-steps 100"."""
        return label(self.preset, self.variation)

    @property
    def artifact(self) -> str:
        """What its artifacts are named after: the model, or of a two-layer model the learning."""
        return self.learning if self.model == "two-layer" else self.model

    @property
    def own_dataset(self) -> str:
        """The dataset that the recipe takes where none is named."""
        return {"anomaly": "mnist", TABLE: "cifar10"}.get(self.recipe, self.recipe.replace("_", "-"))

    def folder(self, digest: str) -> str:
        """Return the name of the run's folder.

        Args:
            digest: of the training's configuration.
        """
        return f"{self.dataset}-{self.learning}-{self.preset}-{digest[:10]}-seed{self.seed}"

    def command(self, seeds: tuple[int, ...] = (), target: str = "", digest: str = "") -> str:
        """Return the command that measures it.

        Args:
            seeds: to name; by default the identity's own.
            target: of a detection: the digit held out, or the dataset outside.
            digest: of the training's configuration; out-of-distribution detection names its run's folder by it.
        """
        session = f"nox -s reproduce_{self.recipe} --"
        if self.recipe == "ood":
            folder = shlex.quote("runs/" + self.folder(digest))
            return " ".join([session, f"--run {folder} --outside {shlex.quote(target)}", *options(self.variation)])
        words = [session]
        if self.recipe == TABLE:
            words.append(f"--systems {self.model}")
        elif self.recipe == "anomaly":
            words += [f"--digits {target}"] if target else []
            words += [f"--model {self.model}"] if self.model not in ("ladder", "two-layer") else []
            words += [f"--learning {self.learning}"] if self.learning != "variational" else []
        else:
            words.append(f"--model {self.model}")
            # A ladder trains its twin too, and a two-stage model has one way of learning.
            words += [f"--learning {self.learning}"] if self.model == "two-layer" else []
        words.append(f"--preset {shlex.quote(self.preset)}")
        words += options(self.variation)
        if self.dataset != self.own_dataset:
            words.append(f"--dataset {shlex.quote(self.dataset)}")
        words.append("--seeds " + " ".join(map(str, seeds or (self.seed,))))
        return " ".join(words)
