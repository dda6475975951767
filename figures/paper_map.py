"""Every table and figure of the paper in one table: command, what was measured here, what the paper reports, status."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from figures.detection_tables import anomaly_means, outside_means, split_means
from figures.means import Mean
from figures.stored import Stored
from figures.summaries import DATASET, PRESET, headline
from reproduce.results import METRICS, Reported, Verdict
from reproduce.results.anomaly_names import LITERAL, REPORTED
from reproduce.results.comparison import mean_of_each
from reproduce.results.expectation import question
from reproduce.results.rendering import escape_markdown, judged, number
from reproduce.results.table_lines import BASELINES
from reproduce.results.timing import NOT_MEASURED, duration

HEADER = ("in the paper", "command", "measured here", "paper reports", "status")
NOT_RUN, DRAWN, NOT_DRAWN, ELSEWHERE = "not run", "drawn", "not drawn", "not part of this suite"
ANOMALY_SIZE = "long"  # of the detection that is shown for the paper's Table 4
SVHN = ("svhn", "svhn-first1083")
SHOWN_OUTSIDE = ("L>0", "L>1", "L>2", "LLR>2")
Said = tuple[str, str]  # what was measured, and its status


class Line(NamedTuple):
    """One line of the table."""

    place: str
    command: str
    said: Callable[[Stored], Said]
    """Returns what was measured, from the cells of the table that the line repeats or from the stored rows."""
    keys: tuple[str, ...] = ()
    """Keys of the reported numbers in `paper.toml`."""
    between: str = " → "
    """What stands between two numbers of one metric."""


def both_priors(dataset: str, model: str) -> Callable[[Stored], Said]:
    """Return a function that gives `fid768` of the Gaussian and the EBM prior, as in the table of results."""

    def said(stored: Stored) -> Said:
        for data, name, gaussian, ebm, *_, verdict in headline(stored.complete, stored.verdicts):
            if (data, name) == (dataset, model):
                return f"fid768 {gaussian} → {ebm}", verdict
        return NOT_MEASURED, NOT_RUN

    return said


def drawn(artifact: str, of: str) -> Callable[[Stored], Said]:
    """Return a function that tells whether the arrays of a figure are stored, and from which model."""

    def said(stored: Stored) -> Said:
        there = (stored.results / "artifacts" / f"{artifact}.npz").is_file()
        return (of, DRAWN) if there else ("-", NOT_DRAWN)

    return said


def _systems(stored: Stored) -> Said:
    others = [system for system in BASELINES if system.paper]  # the two of the row above are no baselines
    means = mean_of_each(stored.rows, DATASET, PRESET, "fid768")
    values = [means[system.name] for system in others if system.name in means]
    if not values:
        return NOT_MEASURED, NOT_RUN
    return f"fid768 {min(values):.4f} to {max(values):.4f}, {len(values)} of {len(others)} systems", "measured"


def _anomalies(stored: Stored) -> Said:
    means = [found[0] for found in anomaly_means(stored.complete, stored.paper).values()]
    if None in means:
        return NOT_MEASURED, NOT_RUN
    return f"AUPRC {', '.join(map(_alone, means))}", _status(stored.verdicts, means)


def _split(stored: Stored) -> Said:
    asked = ("two-layer", "two-stage", ANOMALY_SIZE, LITERAL)  # the paper's own score, beside its numbers
    literal = [one for one in split_means(stored.complete) if one[:4] == asked]
    if not literal:
        return NOT_MEASURED, NOT_RUN
    means = literal[0].means.values()
    missing = ", some digits not run" if None in means else ""
    return f"AUPRC {', '.join(map(_alone, means))}", f"measured, seeds: {literal[0].seeds}{missing}"


def _alone(mean: Mean | None) -> str:
    """Return a mean without its spread; "-" for None."""
    return "-" if mean is None else number(mean.value, mean.row.metric)


def _outside(stored: Stored) -> Said:
    means = [one for found in outside_means(stored.complete).values() for one in found]
    ours = [one for one in means if (one.size, one.dataset) == (PRESET, "cifar10") and one.of.target in SVHN]
    if not ours:
        return NOT_MEASURED, NOT_RUN
    shown = [one for one in ours if one.learning != "gaussian" and one.of.score in SHOWN_OUTSIDE]
    said = ", ".join(f"{one.of.score} {one.mean.cell}" for one in shown)
    return f"AUROC {said}", _status(stored.verdicts, [one.mean for one in shown])


def _iteration(stored: Stored) -> Said:
    for row in stored.timings:
        if row.kind == "speed" and row.metric == "training iteration" and "the paper's sizes" in row.setting:
            return (
                f"{duration(row.ours)}, batch 5, {row.threads} CPU thread{'' if row.threads == 1 else 's'}",
                "measured",
            )
    return NOT_MEASURED, NOT_RUN


def _elsewhere(stored: Stored) -> Said:
    return "-", ELSEWHERE


def _status(verdicts: Sequence[Verdict], means: Iterable[Mean | None]) -> str:
    """Return the verdicts on some means."""
    asked = {question(mean.row) for mean in means if mean}
    found = {judged(one) for one in verdicts if one.mean is not None and question(one.expectation) in asked}
    return ", ".join(sorted(found)) or "measured"


LINES = (
    Line(
        "Tables 1 and 5, SVHN",
        "nox -s reproduce_svhn -- --preset cpu",
        both_priors("svhn", "ladder"),
        ("table1.svhn.ours", "table5.svhn.variational.fid"),
        ", ",
    ),
    Line(
        "Tables 1 and 5, CelebA-64",
        "nox -s reproduce_celeba64 -- --model ladder --preset cpu",
        both_priors("celeba64", "ladder"),
        ("table1.celeba-64.ours", "table5.celeba-64.variational.fid"),
        ", ",
    ),
    Line(
        "Table 1, CIFAR-10 (own p0: no baseline)",
        "nox -s reproduce_cifar10 -- --preset cpu",
        both_priors("cifar10", "two layers, joint-mle"),
        ("table1.cifar10.ours",),
    ),
    Line(
        "Table 2, ours on NVAE",
        "nox -s reproduce_cifar10 -- --model two-stage --preset cpu",
        both_priors("cifar10", "two-stage"),
        ("table2.cifar10.nvae.fid", "table2.cifar10.ours.fid"),
    ),
    Line(
        "Table 2, twelve others",
        "nox -s reproduce_table -- --preset cpu",
        _systems,
        ("table2.cifar10.ddpm.fid", "table2.cifar10.pixelcnn.fid"),
        " to ",
    ),
    Line(
        "Table 3, CelebA-HQ-256",
        "nox -s reproduce_celebahq256 -- --preset paper",
        both_priors("celebahq256", "two-stage"),
        ("table3.celeba-hq-256.nvae", "table3.celeba-hq-256.ours"),
    ),
    Line(
        "Table 3, LSUN-Church-64",
        "nox -s reproduce_church64 -- --preset paper",
        both_priors("church64", "two-stage"),
        ("table3.lsun-church-64.nvae", "table3.lsun-church-64.ours"),
    ),
    Line(
        f"Table 4, digits {', '.join(map(str, REPORTED))}",
        "nox -s reproduce_anomaly -- --protocol 80-20 --learning two-stage --preset long",  # ANOMALY_SIZE
        _split,
        tuple(f"table4.mnist-{digit}.ours" for digit in REPORTED),
        ", ",
    ),
    Line("The same, official test images", "nox -s reproduce_anomaly -- --preset cpu", _anomalies),
    Line(
        "Table 5, CIFAR-10, inference model",
        "nox -s reproduce_cifar10 -- --learning variational --preset cpu",
        both_priors("cifar10", "two layers, variational"),
        ("table5.cifar10.variational.fid",),
    ),
    Line(
        "Table 5, time per iteration",
        "nox -s bench",
        _iteration,
        ("table5.cifar10.mcmc.seconds",),
    ),
    Line(
        "Tables 1, 3, 4, other systems",
        "",
        _elsewhere,
    ),
    Line(
        "Detection, CIFAR-10 against SVHN's first 1,083",
        "nox -s reproduce_ood -- --run RUN --outside svhn-first1083",
        _outside,
        tuple(f"ood.cifar10-svhn.{score}.auroc" for score in ("k0", "k3", "k6", "k9", "llr9")),
        ", ",
    ),
    Line(
        "Detection, histograms",
        "python -m figures.score_histograms",
        drawn("cifar10_ladder_cpu_ood_svhn_first1083", "ladder"),
    ),
    Line("Samples", "python -m figures.samples", drawn("cifar10_two_stage_cpu_samples", "two-stage")),
    Line(
        "Hierarchical sampling, CelebA-64",
        "python -m figures.hierarchical_sampling",
        drawn("celeba64_two_stage_cpu_layers", "two-stage"),
    ),
    Line(
        "The same, CelebA-HQ-256",
        "nox -s reproduce_celebahq256 -- --preset paper",
        drawn("celebahq256_two_stage_paper_layers", "two-stage"),
    ),
    Line(
        "Hierarchical reconstruction",
        "python -m figures.hierarchical_reconstruction",
        drawn("celeba64_ladder_cpu_reconstruction", "ladder"),
    ),
    Line(
        "Chains of 100 and 2,500 steps",
        "python -m figures.langevin_transition",
        drawn("celeba64_ladder_cpu_transition", "ladder"),
    ),
    Line(
        "Chains on NVAE, CIFAR-10",
        "python -m figures.langevin_transition",
        drawn("cifar10_two_stage_cpu_transition", "two-stage"),
    ),
    Line(
        "Chains on NVAE, Church",
        "nox -s reproduce_church64 -- --preset paper",
        drawn("church64_two_stage_paper_transition", "two-stage"),
    ),
)


def table(stored: Stored) -> str:
    """Return the Markdown table.

    Raises:
        KeyError: a line names a number that `paper.toml` does not have.
    """
    lines = [HEADER, ["---"] * len(HEADER)]
    for line in LINES:
        measured, status = line.said(stored)
        command = f"`{line.command}`" if line.command else "-"
        reported = _reported([stored.paper[key] for key in line.keys], line.between)
        lines.append([line.place, command, *map(escape_markdown, (measured, reported, status))])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _reported(found: Sequence[Reported], between: str) -> str:
    metrics = dict.fromkeys(one.metric for one in found)
    said = []
    for metric in metrics:
        values = between.join(number(one.value, metric) for one in found if one.metric == metric)
        said.append(f"{METRICS[metric].label} {values}")
    return ", ".join(said) or "-"
