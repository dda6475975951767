"""README tables that answer one question each, as cells computed from stored rows.

They use complete runs only. Each number is a mean over the newest row of each seed, among rows that may be averaged;
of several such groups, the one with the most images.
"""

from collections.abc import Iterable, Mapping, Sequence

from figures.means import Mean, cell, gap_closed, mean_of
from reproduce.results import Measurement, Reported, Verdict
from reproduce.results.cited import Cells, Cited
from reproduce.results.comparison import NOT_RUN, comparison
from reproduce.results.identity import Of, Option, option
from reproduce.results.metrics import EBM, GAUSSIAN, POSTERIOR, SAMPLES
from reproduce.results.rendering import judged
from reproduce.results.timing import NOT_MEASURED
from reproduce.results.verdicts import judged_by

DATASET, PRESET = "cifar10", "cpu"
OURS = ("ours, joint EBM prior", "two-stage", EBM)
PRIORS = (
    ("NVAE, Gaussian prior", "two-stage", GAUSSIAN),
    ("NCP-VAE", "ncp-vae", SAMPLES),
    ("VAEBM", "vaebm", SAMPLES),
    OURS,
    ("decoded posterior samples", "two-stage", POSTERIOR),
)
AN_HOUR = ("long", "long-path", "long-chains")  # presets of one backbone, trained for an hour, with other energies
LONGER = (DATASET, "celeba64")
RETRAINED = "ours, each seed a training"
ANEW = ("energies_seed",)  # the variation that is another training; other options change the sampling
MODELS = {"two-stage": 0, "two layers, joint-mle": 1, "two layers, variational": 1, "ladder": 2, "Gaussian twin": 3}
"""The place of each model in the order of the lines."""

PRIORS_HEADER = ("prior", "fid768", "seeds", "images", "gap closed")
LONGER_HEADER = ("data", "preset", "Gaussian prior", "EBM prior", "gap closed", "posterior", "seeds", "images")
HEADLINE_HEADER = (
    "data", "model", "Gaussian prior", "EBM prior", "posterior", "gap closed", "seeds", "images", "verdict"
)  # fmt: skip
VARIATIONS_HEADER = ("preset", "Gaussian prior", "EBM prior", "posterior", "latent AUC, EBM prior", "seeds", "images")
LAYERS_HEADER = (
    "data, model", "layer", "KL (nats)", "AUC, Gaussian prior", "AUC, EBM prior", "AUC, twin", "linear accuracy (%)",
    "pixel change", "pixel change, twin", "seeds", "images of the AUC",
)  # fmt: skip


def priors(rows: Sequence[Measurement]) -> list[Cells]:
    """Return a line for each prior of one backbone, in the order of `PRIORS_HEADER`: by `fid768`, as ours is judged.

    A prior judged only in another way, for example on fewer images, is shown below with the others judged that way.
    """
    asked = [row for row in rows if (row.dataset, row.label, row.metric) == (DATASET, PRESET, "fid768")]
    backbone = _current([row for row in asked if row.learning == "two-stage"])
    asked = [*backbone, *(row for row in asked if row.learning != "two-stage")]
    anew = [row for row in rows if row.dataset == DATASET and row.preset == PRESET and tuple(row.variation) == ANEW]
    ours = mean_of(backbone, "fid768", EBM)
    ways = [] if ours is None else [judged_by(ours.row)]
    for _, learning, source in PRIORS:
        own = [row for row in asked if (row.learning, row.of) == (learning, Of(source))]
        mean = mean_of(own, "fid768", source)
        if mean is not None and not any(judged_by(row) in ways for row in own):
            ways.append(judged_by(mean.row))
    lines = []
    for place, way in enumerate(ways or [()]):
        judged_so = [row for row in asked if judged_by(row) == way]
        found = [mean_of(judged_so, "fid768", source, learning=learning) for _, learning, source in PRIORS]
        shown = list(zip((title for title, _, _ in PRIORS), found, strict=True))
        if (retrained := _trainings([*backbone, *anew], way)) is not None:
            shown.insert(1 + PRIORS.index(OURS), (RETRAINED, retrained))
        for title, mean in shown:
            if mean is not None:
                lines.append((title, mean.cell, *mean.counts, gap_closed(found[0], mean, found[-1])))
            elif place == 0:
                lines.append((title, NOT_MEASURED, "-", "-", "-"))
    return lines


def longer(rows: Sequence[Measurement]) -> list[Cells]:
    """Return a line for each preset of the hierarchies that are trained for an hour, in the order of `LONGER_HEADER`.

    Where a preset's weights were sampled in several ways, the line is of the way with the most images, and names it.
    The presets of a dataset have one backbone: its Gaussian prior and its posterior are those of whichever was measured
    over as many images.
    """
    lines: list[Cells] = []
    for dataset in LONGER:
        asked = [row for row in rows if (row.dataset, row.learning, row.metric) == (dataset, "two-stage", "fid768")]
        asked = [row for row in asked if row.preset in AN_HOUR and not row.variation.keys() & {"training_seed", *ANEW}]
        labels = dict.fromkeys(row.label for row in sorted(asked, key=lambda row: (bool(row.variation), row.label)))
        ways = {label: _current([row for row in asked if row.label == label]) for label in labels}
        priors = {label: mean for label, way in ways.items() if (mean := mean_of(way, "fid768", EBM)) is not None}
        own = [[label for label in priors if label.split()[0] == preset] for preset in AN_HOUR]
        shown = [max(found, key=lambda label: priors[label].row.images) for found in own if found]
        for label in shown:
            ours = priors[label]
            candidates = ways[label], *ways.values()
            gaussian, posterior = (_over_as_many(candidates, end, ours.row.images) for end in (GAUSSIAN, POSTERIOR))
            values = cell(gaussian), ours.cell, gap_closed(gaussian, ours, posterior), cell(posterior)
            told = label.replace(" --kept-weights", "")  # weights of the same training
            lines.append((dataset, told, *values, *ours.counts))
        if not shown:
            lines.append((dataset, "-", "-", NOT_MEASURED, "-", "-", "-", "-"))
    return lines


def _over_as_many(presets: Iterable[Sequence[Measurement]], source: str, images: int) -> Mean | None:
    means = (mean_of(preset, "fid768", source, images=images) for preset in presets)
    return next((mean for mean in means if mean is not None), None)


def _trainings(rows: Iterable[Measurement], way: tuple[object, ...]) -> Mean | None:
    """Return the mean over trainings of the energies, each with its first set of samples; None with a single one.

    Args:
        rows: of the preset, whose energies have seed 1, and of its `--energies-seed` N.
        way: how they must have been judged.
    """
    asked = [row for row in rows if (row.metric, row.of, row.seed) == ("fid768", Of(EBM), 1) and judged_by(row) == way]
    trained: dict[int, Measurement] = {}
    for row in sorted(asked, key=lambda row: row.time):
        trained[int(row.variation.get("energies_seed", 1))] = row
    plain = trained.get(1)
    if plain is None:
        return None
    alike = {seed: row for seed, row in trained.items() if _drawn(row) == _drawn(plain)}
    if len(alike) < 2:
        return None
    return Mean(tuple(alike.values()))


def _drawn(row: Measurement) -> tuple[object, ...]:
    return row.protocol, row.weights, row.chain


def headline(rows: Sequence[Measurement], verdicts: Sequence[Verdict]) -> list[Cells]:
    """Return a line for each dataset and model with `fid768` of both priors, in the order of `HEADLINE_HEADER`.

    A ladder's twin with a Gaussian prior has a line of its own.
    """
    lines = []
    for (dataset, model), group in _models([row for row in rows if row.metric == "fid768"]).items():
        sources = (GAUSSIAN,) if "twin" in model else (GAUSSIAN, EBM)
        counts = set.intersection(*({row.images for row in group if row.of == Of(source)} for source in sources))
        if not counts:
            continue
        images = max(counts)
        gaussian, ebm, posterior = (
            mean_of(group, "fid768", source, images=images) for source in (GAUSSIAN, EBM, POSTERIOR)
        )
        shown = ebm or gaussian
        assert shown is not None  # one of the counted rows
        means = (cell(gaussian), cell(ebm), cell(posterior), gap_closed(gaussian, ebm, posterior))
        lines.append((dataset, model, *means, *shown.counts, _verdict(shown, verdicts)))
    return lines


def systems(rows: Sequence[Measurement], paper: Mapping[str, Reported]) -> list[Cells]:
    """Return the paper's Table 2 with the values measured here, in the order of `comparison.HEADER`.

    Raises:
        UserError: a row was changed since it was stored.
    """
    lines = comparison(rows, paper, DATASET, PRESET)
    return [tuple(NOT_MEASURED if cell == NOT_RUN else cell for cell in line) for line in lines]


def variations(rows: Sequence[Measurement]) -> list[Cells]:
    """Return a line for each preset with a flag, in the order of `VARIATIONS_HEADER`, below that of the plain preset.

    The plain preset's line has the same number of images and the seeds at which its variations were measured. Lines of
    other data than the table's follow, with the data's name.
    """
    family = [row for row in rows if row.learning == "two-stage"]
    varied: dict[tuple[str, str, int], dict[str, Mapping[str, Option]]] = {}
    for row in sorted(family, key=lambda row: (row.dataset != DATASET, row.dataset)):
        of_samples = row.metric == "fid768" and row.source in (GAUSSIAN, EBM, POSTERIOR)  # and not of the training set
        if of_samples and row.variation and next(iter(row.variation)) != "energies_seed":
            varied.setdefault((row.dataset, row.preset, row.images), {})[row.label] = row.variation
    lines = []
    for (dataset, plain, images), labels in varied.items():
        asked = [row for row in family if (row.dataset, row.images) == (dataset, images)]
        seeds = {row.seed for row in asked if row.label in labels}
        for preset in (plain, *sorted(labels, key=lambda label: _by_option(labels[label]))):
            one = _current([row for row in asked if row.label == preset and row.seed in seeds])
            found = [mean_of(one, "fid768", source) for source in (GAUSSIAN, EBM, POSTERIOR)]
            found.append(mean_of(one, "latent_auc", EBM))
            told = sorted({row.seed for mean in found if mean for row in mean.rows})
            name = preset if dataset == DATASET else f"{dataset}, {preset}"
            lines.append((name, *map(cell, found), ", ".join(map(str, told)) or "-", str(images)))
    return lines


def layers(rows: Sequence[Measurement]) -> list[Cells]:
    """Return a line for each layer of each hierarchy, top first, in the order of `LAYERS_HEADER`; then one for all."""
    lines = []
    groups = _models([row for row in rows if row.metric in ("kl", "latent_auc", "latent_accuracy", "pixel_change")])
    for (dataset, model), ours in groups.items():
        names = {row.layer for row in ours} - {""}
        if not names or "twin" in model:
            continue
        twin = groups.get((dataset, "Gaussian twin"), []) if model == "ladder" else []
        for name in (*sorted(names, key=lambda name: -int(name.removeprefix("z"))), ""):
            auc = mean_of(ours, "latent_auc", Of(EBM, name))
            found = (
                mean_of(ours, "kl", Of(POSTERIOR, name)),
                mean_of(ours, "latent_auc", Of(GAUSSIAN, name)),
                auc,
                mean_of(twin, "latent_auc", Of(GAUSSIAN, name)),
                mean_of(ours, "latent_accuracy", Of(POSTERIOR, name)),
                mean_of(ours, "pixel_change", Of(EBM, name)),
                mean_of(twin, "pixel_change", Of(GAUSSIAN, name)),
            )
            counts = auc.counts if auc else ("-", "-")
            lines.append((f"{dataset}, {model}", name or "all", *map(cell, found), *counts))
    return lines


def _models(rows: Iterable[Measurement]) -> dict[tuple[str, str], list[Measurement]]:
    """Return the rows at the preset by dataset and model, of the newest configuration, in the order of MODELS."""
    groups: dict[tuple[str, str], list[Measurement]] = {}
    for row in rows:
        if row.label == PRESET and (model := _model(row)):
            groups.setdefault((row.dataset, model), []).append(row)
    order = sorted(groups, key=lambda key: (MODELS[key[1]], key))
    return {key: _current(groups[key]) for key in order}


def _model(row: Measurement) -> str:
    if row.learning not in ("two-stage", "joint-mle", "variational", "gaussian"):
        return ""
    if row.learning in ("two-stage", "gaussian"):
        return {"two-stage": "two-stage", "gaussian": "Gaussian twin"}[row.learning]
    return "ladder" if row.model == "ladder" else f"two layers, {row.learning}"


def _current(rows: Sequence[Measurement]) -> list[Measurement]:
    """Return the rows of the protocol and configuration that were measured last."""
    last = max(rows, key=lambda row: row.time, default=None)
    return [row for row in rows if last and (row.protocol, row.config_digest) == (last.protocol, last.config_digest)]


def _by_option(variation: Mapping[str, Option]) -> tuple[str, float, str]:
    """Return the sort key of a line: its first option as typed, with numbers by size; kept weights among their like."""
    name, value = next((one for one in variation.items() if one[0] != "kept_weights"), ("kept_weights", True))
    number = 0.0 if isinstance(value, bool | str) else float(value)
    return option(name, value).split()[0], number, str(value)


def _verdict(mean: Mean, verdicts: Sequence[Verdict]) -> str:
    row = mean.row
    for verdict in verdicts:
        one = verdict.expectation
        about = one.protocol == row.protocol and one.asks(row) and verdict.images == row.images
        if about and one.config_digest in ("", row.config_digest):
            return Cited(judged(verdict), mean.rows, verdict)
    return "-"
