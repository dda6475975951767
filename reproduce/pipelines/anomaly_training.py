"""One detector of one held-out digit: its training, stage by stage, and the best of its checkpoints."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from jlebm.backbones.nvae import digest_of
from jlebm.choices import GENERATOR, Scheme
from jlebm.data import Dataset
from jlebm.experiment import Experiment
from jlebm.files import read_bytes, write_text
from jlebm.learning.two_stage import TwoStageExperiment
from jlebm.model import JointModel
from jlebm.progress import Reporter
from jlebm.run import Run, open_run
from jlebm.training import TrainState
from reproduce.pipelines.energies_on_backbone import record_backbone
from reproduce.pipelines.fitting import Given, fitted, milestones
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
        best = _Checkpoints(run.folder / f"checkpoints{noise_suffix(oracle.noise)}.json")
        state = None
        for state in milestones(run, given, CHECKPOINTS, report):
            best.judge(state, oracle.auprc)
        assert state is not None  # the last milestone is always yielded
        found = best.best(experiment.training.steps, state.step)
        if found is None:
            report.line(
                f"not every checkpoint of this training was judged with the noise {oracle.noise}, so there is no oracle"
            )
        yield Trained(run, experiment, state, seconds + state.seconds, found)


class _Checkpoints:
    """The AUPRC on the test set of each judged checkpoint, in a file beside the run."""

    def __init__(self, path: Path):
        self.path = path
        self.found: dict[str, float] = json.loads(read_bytes(path)) if path.exists() else {}

    def judge(self, state: TrainState, judged: Callable[[JointModel], float]) -> None:
        if str(state.step) not in self.found:
            with torch.random.fork_rng(devices=[]):
                self.found[str(state.step)] = judged(state.evaluated_model())
            write_text(self.path, json.dumps(self.found, indent=1) + "\n")

    def best(self, steps: int, last: int) -> float | None:
        """Return the highest; None if some were not judged: the training went on without, with other noise."""
        due = {max(steps * part // CHECKPOINTS, 1) for part in range(1, CHECKPOINTS + 1)}
        return max(self.found.values()) if len(self.found) >= len({step for step in due if step <= last}) else None
