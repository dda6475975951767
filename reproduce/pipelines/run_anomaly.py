"""Anomaly detection with a held-out digit: trained, scored, stored and printed for each digit and seed."""

import dataclasses
import functools
import hashlib
import time
from dataclasses import dataclass

import numpy as np

from jlebm import data
from jlebm.choices import Scheme
from jlebm.devices import resolve_device
from jlebm.engines.precision import precision_of
from jlebm.errors import UserError
from jlebm.evaluation import detection
from jlebm.hierarchy import posterior_terms
from jlebm.learning.two_stage import TwoStageExperiment
from jlebm.model import JointModel
from jlebm.progress import Reporter
from reproduce import results
from reproduce.measuring.anomaly_scores import Scorer, names_of, scores
from reproduce.measuring.anomaly_split import PROTOCOLS, Protocol, Split, describe
from reproduce.measuring.detection import METRICS, Question, judge, print_table, refuse_lost, session_of, stands
from reproduce.measuring.places import try_places
from reproduce.measuring.row_store import Rows, Subject
from reproduce.measuring.sample_sets import posterior_indices
from reproduce.measuring.session import Session
from reproduce.pipelines.anomaly_training import CHECKPOINTS, Oracle, Trained, trained, without_digit
from reproduce.pipelines.arguments import refuse_processes
from reproduce.pipelines.command_arguments import AnomalyArguments
from reproduce.pipelines.fitting import Given
from reproduce.pipelines.joint import subject_of
from reproduce.pipelines.plans import refuse_tf32
from reproduce.pipelines.run_page import leave_page
from reproduce.presets.anomaly_sizes import DATASET, Plan, plan_of
from reproduce.results.anomaly_names import ENERGIES, LITERAL, OFFICIAL
from reproduce.results.identity import Of, Option, noise_option, noise_suffix
from reproduce.terminal.console import ConsoleReporter

RECIPE_NAME = "anomaly"
FALLBACK = "digits"
ORACLE = "oracle"


def run_anomaly(arguments: AnomalyArguments) -> None:
    """Train and judge one model for each digit and seed."""
    report = ConsoleReporter()
    protocol = PROTOCOLS[arguments.protocol]
    digits = arguments.digits or protocol.digits(arguments.development)
    if len(set(digits)) != len(digits):
        raise UserError("--digits needs at least one number, each only once")
    refuse_processes("the models of held-out digits")
    model = arguments.model or ("ladder" if protocol.id == OFFICIAL else "two-layer")
    plan = plan_of(protocol.id, arguments.preset, model, arguments.learning)
    if protocol.id == OFFICIAL and not arguments.oracle:
        raise UserError("--no-oracle is for --protocol 80-20; the official protocol has no oracle")
    device, parts = resolve_device(arguments.device), _images(arguments, report)

    @functools.lru_cache(1)
    def split(digit: int) -> Split:
        return protocol.split(parts, digit, arguments.development)

    plans = {}
    for digit in digits:  # an unknown digit or a wrong setting is refused before the first training
        _chosen(arguments, plan, split(digit))
        plans[digit] = without_digit(plan, split(digit).train, arguments.development, arguments.set)
        refuse_tf32(precision_of(plans[digit].experiment.model), "model.precision", device)
    try_places(arguments.results, arguments.runs)
    subjects, asked = [], []
    for digit in digits:
        one = split(digit)
        report.line(f"digit {digit}: {len(one.train.images)} training and {len(one.test.images)} test images")
        chosen = _chosen(arguments, plan, one)
        detector = _Detector(one, plans[digit], chosen, protocol, arguments.noise, arguments.oracle)
        session = session_of(RECIPE_NAME, one.test, False, arguments.root(report), device, arguments.noise)
        for seed in arguments.seeds:
            given = Given(one.train.images, device)
            with trained(detector.plan, seed, arguments.runs, given, report, detector.oracle) as found:
                subject = _subject(found, detector, arguments, session)
                detector.judge(found, Rows(subject, session, arguments.results))
                leave_page(found.run, session, arguments.results)
                subjects.append(subject)
        asked += [of(digit, score) for score in detector.names]
    print_table(subjects, asked, arguments.results)


def of(digit: int, score: str) -> Of:
    """Return the detection that a row of a held-out digit and a score describes."""
    return Of("anomaly", target=str(digit), score=score)


def _chosen(arguments: AnomalyArguments, plan: Plan, split: Split) -> list[int]:
    """Return the indices of the test images that are judged.

    Raises:
        UserError: more are asked for than there are.
    """
    there = len(split.test.images)
    wanted = min(plan.images or there, there) if arguments.images is None else arguments.images
    if not 1 <= wanted <= there:
        raise UserError(f"--images must be between 1 and {there}, what {split.test.name} holds out, not {wanted}")
    return posterior_indices(there, wanted)


def _images(arguments: AnomalyArguments, report: Reporter) -> tuple[data.Dataset, data.Dataset]:
    try:
        train, test = data.held_out(DATASET, arguments.data_root, arguments.download, report)
    except data.DatasetNotFound as missing:
        if arguments.preset != "tiny":
            raise
        report.line(f"{missing}")
        report.line(f"{DATASET} was not found: this tiny run uses the embedded {FALLBACK!r}; rows carry that name")
        train, test = data.held_out(FALLBACK)
    report.line(f"data: {train.name}, {len(train.images)} training and {len(test.images)} test images, {test.origin}")
    return train, test


def _subject(found: Trained, detector: "_Detector", arguments: AnomalyArguments, session: Session) -> Subject:
    variation: dict[str, Option] = {}
    if detector.protocol.id != OFFICIAL:
        variation["protocol"] = detector.protocol.name
    if arguments.development:
        variation["development"] = True
    own = subject_of(session, found.run, found.experiment, found.state)
    if isinstance(
        found.experiment, TwoStageExperiment
    ):  # whose backbone's name has its seed, which rows have beside it
        alike = dataclasses.replace(found.experiment, backbone=detector.plan.experiment.digest())
        own = dataclasses.replace(own, config_digest=alike.digest(), run=(own.config_digest, found.run.seed))
    return dataclasses.replace(
        own,
        dataset=detector.split.test.name,
        preset="custom" if arguments.set else arguments.preset,
        variation=variation | noise_option(session.noise),
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
    noise: Scheme
    with_oracle: bool

    @property
    def scorer(self) -> Scorer:
        """How scores are drawn."""
        return Scorer(self.plan.draws, self.plan.experiment.posterior_sampling_chain(), self.plan.lower, self.noise)

    @property
    def names(self) -> tuple[str, ...]:
        """The scores, by name."""
        energies = self.plan.learning != "gaussian"
        if self.protocol.id == OFFICIAL:  # its rows have these two
            return (LITERAL, ENERGIES) if energies else (LITERAL,)
        names = names_of(len(self.plan.experiment.model.latent_shapes), energies)
        return (*names, ORACLE) if self.with_oracle else names

    @property
    def oracle(self) -> Oracle | None:
        """How checkpoints are judged on the test set; None if neither the protocol nor the command asks for it."""
        asked = self.with_oracle and self.protocol.id != OFFICIAL
        return Oracle(self._literal_auprc, self._test, self.noise) if asked else None

    @property
    def _test(self) -> str:
        """Digest of the judged test images, and of which of them are anomalies."""
        images = self.split.test.images[self.chosen]
        return hashlib.sha256(images.tobytes() + self.split.held_out[self.chosen].tobytes()).hexdigest()

    def _literal_auprc(self, model: JointModel) -> float:
        terms = posterior_terms(model, self.split.test.images, self.chosen, self.scorer.latents())
        held_out, score = self.split.held_out[self.chosen], -terms.log_joint
        refuse_lost({LITERAL: (score,)})
        return detection(score[held_out], score[~held_out], f"digit {self.split.digit}").auprc

    def questions(self) -> dict[str, Question]:
        """Return the detection task of each score, as its rows describe it."""
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
                ("auprc",) if name == ORACLE else METRICS,
            )
        return found

    def judge(self, found: Trained, rows: Rows) -> None:
        """Store the rows that the results lack, and the scores themselves, the higher ones those of anomalies."""
        session, questions = rows.session, self.questions()
        path = found.run.folder / f"scores{noise_suffix(self.noise)}.npz"
        due = [question for name, question in questions.items() if name != ORACLE or found.best is not None]
        if all(stands(rows, question) for question in due) and path.exists():
            session.report.line(f"digit {self.split.digit}, seed {found.run.seed}: measured before; its rows are kept")
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
