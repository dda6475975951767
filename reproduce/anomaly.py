"""Anomaly detection on MNIST, a digit held out: rows of the paper's Table 4, under its two test sets.

    python -m reproduce.anomaly                                     a first look, every held-out digit
    python -m reproduce.anomaly --preset cpu --seeds 1 2 3
    python -m reproduce.anomaly --protocol 80-20 --learning two-stage --preset long --seeds 1 2 3
    python -m reproduce.anomaly --protocol 80-20 --learning joint-mle --model one-layer --preset cpu

For each digit and seed a model learns from images of all other digits, and the held-out digit is the positive class
among the test images. `--protocol official` judges the official test images, of which a digit is about a tenth;
`80-20` is the split of BiGAN's, MEG's and DAMC's code, of which it is a third or more (docs/facts, "Two test sets in
Table 4"). The literal score is -L^{>0}, minus the unnormalised log posterior at posterior samples (docs/facts, "Scores
above a layer"). Without MNIST `tiny` takes the embedded digits, of which each fifth image is held out of all training.
"""

import dataclasses
import functools
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from jlebm import data
from jlebm.errors import UserError, exit_on_user_error
from jlebm.evaluation import detection
from jlebm.hierarchy import posterior_terms
from jlebm.model import JointModel
from jlebm.progress import Reporter
from jlebm.run import resolve_device
from reproduce import results
from reproduce.measuring.anomaly_scores import ENERGIES, LITERAL, Scorer, names_of, scores
from reproduce.measuring.anomaly_split import PROTOCOLS, Protocol, Split, describe
from reproduce.measuring.detection import Question, judge, print_table, refuse_lost, session_of, stands
from reproduce.measuring.places import try_places
from reproduce.measuring.sampled import posterior_indices
from reproduce.measuring.session import Rows, Subject
from reproduce.pipelines.anomaly_training import CHECKPOINTS, Trained, trained, without_digit
from reproduce.pipelines.arguments import RESULTS
from reproduce.pipelines.fitting import STOPPED, Given, Stopped
from reproduce.pipelines.joint import subject_of
from reproduce.presets.anomaly_sizes import DATASET, OFFICIAL, Plan, plan_of
from reproduce.results.identity import Of, Option
from reproduce.terminal.console import ConsoleReporter
from reproduce.terminal.parsing import parse

FALLBACK = "digits"
ORACLE = "oracle"


@dataclass(frozen=True)
class Arguments:
    """Command-line options of anomaly detection."""

    digits: tuple[int, ...] = ()
    """Held out, one after the other; by default the paper's five, with --development those that settings are for."""
    seeds: tuple[int, ...] = (1,)
    """One run and one set of rows for each, and for each digit."""
    preset: str = "tiny"
    """tiny: minutes for all digits; cpu: a few minutes of one core for each digit and seed; long: twenty."""
    protocol: Literal["official", "80-20"] = "official"
    """The official test images, or 20 % of the pooled images of the other digits and all of the held-out one's."""
    model: Literal["ladder", "two-layer", "one-layer"] | None = None
    """ladder is the official protocol's; by default two-layer for 80-20, whose one-layer model is LEBM."""
    learning: Literal["variational", "gaussian", "two-stage", "joint-mle"] = "variational"
    """With the joint EBM prior from the start; with a Gaussian prior, the twin; the twin, then energies on it; or by
    posterior chains."""
    images: int | None = None
    """Test images, at even distances; by default the preset's."""
    development: bool = False
    """Whether to judge a held-out part of the training images instead of the test images. For choosing settings."""
    data_root: Path | None = None
    """The folder with datasets; by default $JLEBM_DATA or the user's cache folder."""
    download: bool = True
    """Whether what the data root lacks may be downloaded into it."""
    device: str = "auto"
    """auto, cpu or cuda."""
    runs: Path = Path("runs")
    """Where the runs' folders lie; the same command goes on where it was stopped."""
    results: Path = RESULTS
    """The folder with paper.toml, expected.toml and measured/."""
    set: tuple[str, ...] = ()
    """Configuration keys of the first stage to set, such as training.steps=100; the preset is then called custom."""


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> int:
    """Train and judge one model for each digit and seed; return the exit code."""
    arguments = parse(Arguments, argv, __doc__)
    try:
        _run(arguments, ConsoleReporter())
    except Stopped:
        return STOPPED
    return 0


def _run(arguments: Arguments, report: Reporter) -> None:
    protocol = PROTOCOLS[arguments.protocol]
    digits = arguments.digits or protocol.digits(arguments.development)
    for name, values in (("--digits", digits), ("--seeds", arguments.seeds)):
        if not values or len(set(values)) != len(values):
            raise UserError(f"{name} needs at least one number, each only once")
    model = arguments.model or ("ladder" if protocol.id == OFFICIAL else "two-layer")
    plan = plan_of(protocol.id, arguments.preset, model, arguments.learning)
    device, parts = resolve_device(arguments.device), _images(arguments, report)

    @functools.lru_cache(1)
    def split(digit: int) -> Split:
        return protocol.split(parts, digit, arguments.development)

    plans = {}
    for digit in digits:  # a digit that is none, or a wrong setting, ends it before the first training
        _chosen(arguments, plan, split(digit))
        plans[digit] = without_digit(plan, split(digit).train, arguments.development, arguments.set)
    try_places(arguments.results, arguments.runs)
    subjects, asked = [], []
    for digit in digits:
        one = split(digit)
        report.line(f"digit {digit}: {len(one.train.images)} training and {len(one.test.images)} test images")
        detector = _Detector(one, plans[digit], _chosen(arguments, plan, one), protocol)
        session = session_of(one.test, arguments.data_root, device, report)
        for seed in arguments.seeds:
            given = Given(one.train.images, device)
            with trained(detector.plan, seed, arguments.runs, given, report, detector.oracle) as found:
                subject = _subject(found, detector, arguments)
                detector.judge(found, Rows(subject, session, arguments.results))
                subjects.append(subject)
        asked += [of(digit, score) for score in detector.names]
    print_table(subjects, asked, arguments.results)


def of(digit: int, score: str) -> Of:
    """Return what the rows of a held-out digit and a score are of."""
    return Of("anomaly", target=str(digit), score=score)


def _chosen(arguments: Arguments, plan: Plan, split: Split) -> list[int]:
    """Return the test images that are judged.

    Raises:
        UserError: more are asked for than there are.
    """
    there = len(split.test.images)
    wanted = min(plan.images or there, there) if arguments.images is None else arguments.images
    if not 1 <= wanted <= there:
        raise UserError(f"--images must be between 1 and {there}, what {split.test.name} holds out, not {wanted}")
    return posterior_indices(there, wanted)


def _images(arguments: Arguments, report: Reporter) -> tuple[data.Dataset, data.Dataset]:
    try:
        train, test = data.held_out(DATASET, arguments.data_root, arguments.download, report)
    except data.DatasetNotFound as missing:
        if arguments.preset != "tiny":
            raise
        report.line(f"{missing}")
        report.line(f"this tiny run is on the embedded {FALLBACK!r} and its rows are stored under that name")
        train, test = data.held_out(FALLBACK)
    report.line(f"data: {train.name}, {len(train.images)} training and {len(test.images)} test images, {test.origin}")
    return train, test


def _subject(found: Trained, detector: "_Detector", arguments: Arguments) -> Subject:
    variation: dict[str, Option] = {}
    if detector.protocol.id != OFFICIAL:
        variation["protocol"] = detector.protocol.name
    if arguments.development:
        variation["development"] = True
    return dataclasses.replace(
        subject_of(found.run, found.experiment, found.state),
        dataset=detector.split.test.name,
        preset="custom" if arguments.set else arguments.preset,
        variation=variation,
        model=detector.plan.model,
        train_seconds=found.seconds,
    )


@dataclass(frozen=True)
class _Detector:
    """How a trained model is judged on one held-out digit."""

    split: Split
    plan: Plan
    chosen: list[int]
    """Test images."""
    protocol: Protocol

    @property
    def scorer(self) -> Scorer:
        """How scores are drawn."""
        return Scorer(self.plan.draws, self.plan.experiment.posterior_sampling_chain(), self.plan.lower)

    @property
    def names(self) -> tuple[str, ...]:
        """The scores, by name."""
        energies = self.plan.learning != "gaussian"
        if self.protocol.id == OFFICIAL:  # whose rows have these
            return (LITERAL, ENERGIES) if energies else (LITERAL,)
        return (*names_of(len(self.plan.experiment.model.latent_dims), energies), ORACLE)

    @property
    def oracle(self) -> Callable[[JointModel], float] | None:
        """What judges checkpoints on the test set, where the protocol asks for it."""
        return None if self.protocol.id == OFFICIAL else self._literal_auprc

    def _literal_auprc(self, model: JointModel) -> float:
        terms = posterior_terms(model, self.split.test.images, self.chosen, self.scorer.posterior)
        held_out, score = self.split.held_out[self.chosen], -terms.log_joint
        refuse_lost({LITERAL: (score,)})
        return detection(score[held_out], score[~held_out], f"digit {self.split.digit}").auprc

    def questions(self) -> dict[str, Question]:
        """Return what the rows of each score are to say."""
        train = len(self.split.train.images)
        told, posterior = describe(self.split, np.array(self.chosen)), self.scorer.posterior
        found = {}
        for name in self.names:
            score = (
                f"score: -L>0, one posterior sample, of the best of {CHECKPOINTS} checkpoints on these very images; an "
                "oracle, as in the public code of this line, and no result"
                if name == ORACLE
                else self.scorer.describe(name, train)
            )
            found[name] = Question(
                of(self.split.digit, name),
                f"digit {self.split.digit}",
                f"{told}; {score}",
                len(self.chosen),
                "" if posterior is None else posterior.describe(),
            )
        return found

    def judge(self, found: Trained, rows: Rows) -> None:
        """Store the rows that the results lack, and the scores themselves, the higher ones those of anomalies."""
        session, questions, path = rows.session, self.questions(), found.run.folder / "scores.npz"
        if all(stands(rows, question) for question in questions.values()) and path.exists():
            session.report.line(f"digit {self.split.digit}, seed {found.run.seed}: measured before; its rows stand")
            return
        started = time.monotonic()
        names = [name for name in self.names if name != ORACLE]
        images = self.split.test.images, self.chosen, self.split.train.images
        kept = scores(found.model, self.scorer, names, *images)
        spent = (time.monotonic() - started) / len(kept)
        refuse_lost({name: (values,) for name, values in kept.items()})  # before the first row
        held_out = self.split.held_out[self.chosen]
        for name, values in kept.items():
            judge(rows, questions[name], values[held_out], values[~held_out], spent)
        if found.best is not None and not stands(rows, questions[ORACLE]):
            rows.add("auprc", questions[ORACLE].of, found.best, len(self.chosen), {}, **_said(questions[ORACLE]))
        whole = np.stack(list(kept.values())).astype(np.float32)
        arrays = {"positive": whole[:, held_out], "negative": whole[:, ~held_out], "names": np.array(list(kept))}
        results.write_artifact(path, arrays, rows.subject.provenance(session.provenance["commit"]))


def _said(question: Question) -> dict[str, str]:
    return {"reference": question.reference, "chain": question.chain}


if __name__ == "__main__":
    sys.exit(main())
