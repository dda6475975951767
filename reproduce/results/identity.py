"""Identity of a row: the value behind a run's folder, a label in a table, and the command that measures it."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

Option: TypeAlias = str | int | float | bool
DETECTIONS = {"anomaly": "anomaly", "anomaly-80-20": "anomaly", "ood": "ood"}  # recipes of one target and one score
TABLE, PRIORS = "table", "priors"
FIRST_NOISE = "generator/1"  # scheme of the noise of rows that name none


def recipe_of(protocol: str, learning: str) -> tuple[str, str]:
    """Return recipe and model from the name of a protocol: "cifar10-two-stage/1", "mnist-ladder/1".

    Only this function reads such names, for runs and rows stored before they had a recipe of their own.

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
    """Format one option as typed: `chain_noise` = False is "--no-chain-noise"."""
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    return f"--{flag} {value:g}" if isinstance(value, float) else f"--{flag} {shlex.quote(str(value))}"


def options(variation: Mapping[str, Option]) -> list[str]:
    """Return the options of a variation as typed."""
    return [option(name, value) for name, value in variation.items()]


def noise_of(variation: Mapping[str, Option]) -> str:
    """Return the scheme of the noise of a variation's samples."""
    return str(variation.get("noise", FIRST_NOISE))


def noise_option(scheme: str) -> dict[str, Option]:
    """Return the option that names a scheme of noise; empty for the first scheme."""
    return {} if scheme == FIRST_NOISE else {"noise": scheme}


def noise_suffix(scheme: str) -> str:
    """Return the suffix of files of samples: empty for the first scheme, "-philox-1" for another."""
    return "" if scheme == FIRST_NOISE else f"-{scheme.replace('/', '-')}"


class Of(NamedTuple):
    """What a number describes: samples of a source, one layer of their latents, or a detection."""

    source: str
    layer: str = ""
    """Name of a single layer, "z3"."""
    target: str = ""
    """Held-out digit or outside dataset of a detection."""
    score: str = ""
    """Detection score, "L>0"."""

    @property
    def name(self) -> str:
        """Name in a table: "ebm-prior/z3", "anomaly/1/L>0"."""
        return "/".join(filter(None, self))


class Labelled:
    """Base class of what has a preset and a variation."""

    preset: str
    variation: Any
    """Options by name: a mapping, or the dictionary that a stored record has."""

    @property
    def label(self) -> str:
        """Preset with its variation, as in a table: "cpu --chain-steps 100"."""
        return " ".join([self.preset, *options(self.variation)])


class Described(Labelled):
    """Base class of a number, stored or expected."""

    model: str
    learning: str
    source: str
    layer: str
    target: str
    score: str

    @property
    def trained(self) -> str:
        """Model and scheme, as in a table: "two-layer joint-mle", "two-stage", "ddpm"; "" if nothing was learned."""
        return " ".join(dict.fromkeys((self.model, self.learning))) if self.learning else ""

    @property
    def of(self) -> Of:
        """Samples, layer or detection that the number describes."""
        return Of(self.source, self.layer, self.target, self.score)


@dataclass(frozen=True)
class Identity(Labelled):
    """A training, and how its samples are drawn if not as in the preset.

    Attributes:
        recipe: module of `reproduce` that is run, "cifar10", "anomaly", "priors", "table".
        model: "two-layer", "one-layer", "two-stage" or "ladder"; in the recipe `table`, the system's name, and in
            `priors`, the prior's.
        learning: the scheme, as `Measurement.learning`.
        dataset: of the training images.
        preset: the size, "tiny", "cpu", "long", "budget" or "paper", or "custom".
        variation: options beside the preset by field name, in the order on the command line.
        seed: of the run; for a two-stage row, of its samples.
    """

    recipe: str
    model: str
    learning: str
    dataset: str
    preset: str
    variation: Mapping[str, Option] = field(default_factory=dict)
    seed: int = 1

    @property
    def artifact(self) -> str:
        """Name in its artifacts: the model; for a two-layer model, the learning."""
        return self.learning if self.model == "two-layer" else self.model

    @property
    def own_dataset(self) -> str:
        """Default dataset of the recipe."""
        return {"anomaly": "mnist", TABLE: "cifar10", PRIORS: "cifar10"}.get(self.recipe, self.recipe.replace("_", "-"))

    def folder(self, digest: str) -> str:
        """Return the name of the run's folder.

        Args:
            digest: digest of the training's configuration.
        """
        return f"{self.dataset}-{self.learning}-{self.preset}-{digest[:10]}-seed{self.seed}"

    def command(self, seeds: tuple[int, ...] = (), target: str = "", digest: str = "") -> str:
        """Return the command that measures it; "" for `custom`, whose settings a row does not have.

        Args:
            seeds: seeds in the command; by default the identity's own.
            target: held-out digit or outside dataset of a detection.
            digest: digest of the training's configuration, for the run's folder of an out-of-distribution detection.
        """
        if self.preset == "custom":
            return ""
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
        elif self.recipe != PRIORS:  # whose variation names the prior
            words.append(f"--model {self.model}")
            # A ladder trains its twin too, and a two-stage model has one way of learning.
            words += [f"--learning {self.learning}"] if self.model == "two-layer" else []
        words.append(f"--preset {shlex.quote(self.preset)}")
        words += options(self.variation)
        if self.dataset != self.own_dataset and self.recipe != "anomaly":  # which has one dataset and its fallback
            words.append(f"--dataset {shlex.quote(self.dataset)}")
        words.append("--seeds " + " ".join(map(str, seeds or (self.seed,))))
        return " ".join(words)


class OfTraining:
    """Base class of what is said of one training, stored or about to be."""

    recipe: str
    model: str
    learning: str
    dataset: str
    preset: str
    variation: Any
    seed: int

    @property
    def identity(self) -> Identity:
        """The training, and how its samples are drawn."""
        return Identity(self.recipe, self.model, self.learning, self.dataset, self.preset, self.variation, self.seed)
