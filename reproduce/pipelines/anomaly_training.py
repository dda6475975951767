"""One detector of one held-out digit: its training, stage by stage, and the best of its checkpoints."""

import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from jlebm.backbones.nvae import digest_of
from jlebm.choices import GENERATOR, Scheme
from jlebm.data import Dataset
from jlebm.errors import UserError
from jlebm.experiment import Experiment
from jlebm.files import read_bytes, write_text
from jlebm.learning.two_stage import TwoStageExperiment
from jlebm.model import JointModel
from jlebm.progress import Reporter
from jlebm.run import Run, open_run
from jlebm.training import TrainState
from reproduce.pipelines.energies_on_backbone import record_backbone
from reproduce.pipelines.fitting import Given, fitted, milestone_steps, milestones
from reproduce.pipelines.plans import refuse_names
from reproduce.presets.anomaly_sizes import Plan
from reproduce.results.identity import noise_suffix

CHECKPOINTS = 10  # evenly spaced checkpoints of the last stage; the oracle takes the best


@dataclass(frozen=True)
class Trained:
    """A detector after its last stage."""

    run: Run
    experiment: Experiment | TwoStageExperiment
    """Configuration of the last stage."""
    state: TrainState
    seconds: float
    """Wall-clock time of all stages."""
    best: float | None
    """The highest AUPRC on the test set among the checkpoints; None if not all of them were judged."""

    @property
    def model(self) -> JointModel:
        """The trained model."""
        return self.state.evaluated_model()


@dataclass(frozen=True)
class Oracle:
    """How checkpoints are judged on the test set."""

    auprc: Callable[[JointModel], float]
    """Returns a model's AUPRC."""
    test: str
    """Digest of the test images and of which of them are judged, hexadecimal."""
    noise: Scheme = GENERATOR
    """Scheme of the noise of its posterior samples."""


def without_digit(plan: Plan, train: Dataset, development: bool, assignments: tuple[str, ...]) -> Plan:
    """Return the plan for these training images: their name, which says the digit, is part of the configuration.

    Raises:
        UserError: an assignment's key is unknown or names the rows, or a value does not fit.
    """
    refuse_names(assignments)
    words = " --development" if development else ""
    height, width = train.images.shape[2:]
    model = dataclasses.replace(plan.experiment.model, image_shape=(1, height, width))
    named = {"preset": plan.experiment.preset + words, "dataset": train.name, "model": model}
    experiment = dataclasses.replace(plan.experiment, **named).override(assignments)
    energies = plan.energies
    if energies is not None:
        energies = dataclasses.replace(energies, preset=experiment.preset, dataset=train.name, model=experiment.model)
    return dataclasses.replace(plan, experiment=experiment, energies=energies)


@contextmanager
def trained(
    plan: Plan,
    seed: int,
    runs: Path,
    given: Given,
    report: Reporter,
    oracle: Oracle | None,
) -> Iterator[Trained]:
    """Train every stage that is not trained yet, and hold the last one's folder open.

    Args:
        plan: of one digit (`without_digit`).
        seed: of all stages.
        runs: where the folders lie.
        given: the training images and the device.
        report: receives the stages.
        oracle: judges each checkpoint, whose AUPRC is kept beside the run; None if no oracle is asked for.

    Raises:
        Stopped: as in `fitted`.
        UserError: a checkpoint does not fit, or the disk is full.
    """
    with ExitStack() as stack:
        run = stack.enter_context(open_run(runs, plan.experiment, seed))
        experiment, seconds = plan.experiment, 0.0
        if plan.energies is not None:
            first = fitted(run, given.images, given.device, report)
            seconds = first.seconds
            backbone = first.evaluated_model().backbone.eval().requires_grad_(False)
            name = f"{plan.experiment.digest()}, seed {seed}, {first.step} steps"
            experiment = dataclasses.replace(plan.energies, backbone=name)
            run = stack.enter_context(open_run(runs, experiment, seed))
            record_backbone(run, digest_of(backbone))
            given = dataclasses.replace(given, backbone=backbone)
        if oracle is None:
            state = fitted(run, given.images, given.device, report, given.backbone)
            yield Trained(run, experiment, state, seconds + state.seconds, None)
            return
        judged = _Checkpoints(run.folder / f"checkpoints{noise_suffix(oracle.noise)}.json", oracle.test)
        state = None
        for state in milestones(run, given, CHECKPOINTS, report):
            judged.judge(state, oracle.auprc)
        assert state is not None  # the last milestone is always yielded
        found = judged.best(experiment.training.steps, state.step)
        if found is None:
            report.line("not every checkpoint of this training was judged on these images, so there is no oracle")
        yield Trained(run, experiment, state, seconds + state.seconds, found)


class _Checkpoints:
    """The AUPRC of each judged checkpoint on one set of test images, in a file beside the run.

    Args:
        path: of the file, JSON: the AUPRC by step, by the digest of the test images.
        test: that digest.

    Raises:
        UserError: the file is damaged.
    """

    def __init__(self, path: Path, test: str):
        self.path = path
        self.of_all: dict[str, dict[str, float]] = _read_checkpoints(path) if path.exists() else {}
        self.found = self.of_all.setdefault(test, {})

    def judge(self, state: TrainState, judged: Callable[[JointModel], float]) -> None:
        if str(state.step) not in self.found:
            with torch.random.fork_rng(devices=[]):
                self.found[str(state.step)] = judged(state.evaluated_model())
            write_text(self.path, json.dumps(self.of_all, indent=1) + "\n")

    def best(self, steps: int, last: int) -> float | None:
        """Return the highest; None if one was not judged: the training went on without, for other images or noise."""
        due = {step for step in milestone_steps(steps, CHECKPOINTS) if step < last} | {last}
        found = [self.found.get(str(step)) for step in due]
        known = [auprc for auprc in found if auprc is not None]
        return max(known) if len(known) == len(found) else None


def _read_checkpoints(path: Path) -> dict[str, dict[str, float]]:
    said = f"{path} is damaged, or older than this program; delete it, and there is no oracle of that run"
    try:
        found = json.loads(read_bytes(path))
        whole = all(math.isfinite(auprc) for of_one in found.values() for auprc in of_one.values())
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(said) from error
    if not whole:
        raise UserError(said)
    return found
