"""From a trained state to rows: samples, metrics, pictures, all into the run's folder and `results/measured`."""

import datetime
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import jlebm
from jlebm import checkpoints, langevin, plotting, results, sampling
from jlebm.data import Dataset, data_root
from jlebm.data.cache import cache_folders
from jlebm.densities import PriorInLatents
from jlebm.evaluation import fidelity, inception, latent
from jlebm.files import write_atomically
from jlebm.langevin import StepInfo
from jlebm.latents import Latents
from jlebm.model import JointModel
from jlebm.progress import Reporter
from jlebm.randomness import PerImageNoise, derive_seed
from jlebm.run import Run, provenance
from jlebm.sampling import Prior, SampleFiles
from jlebm.training import TrainState

PRIORS: tuple[Prior, ...] = ("gaussian-prior", "ebm-prior")
SOURCES = (*PRIORS, "posterior")
METRICS = {
    "gaussian-prior": ("fid768", "fid"),
    "ebm-prior": ("fid768", "fid", "is", "kid", "precision", "recall"),
    "posterior": ("fid768", "fid"),
}
LATENTS = 10_000  # how many latents of each side the two-sample test is given at most
SHOWN = 32  # images of each source in the grid
TRACED = 100  # chains in the energy trace
CURVES = ("reconstruction", "energy_posterior/z2", "energy_prior/z2", "energy_posterior/z1", "energy_prior/z1")


@dataclass
class Bench:
    """What every seed is measured with: the same data, extractor, cache, device and provenance."""

    dataset: Dataset
    images: int
    """Images sampled from each prior, and training images whose posterior samples are decoded."""
    reference_images: int | None
    """How many training images the samples are held against, at even distances; None for all."""
    extractor: inception.Extractor | None
    cache: Path
    device: torch.device
    report: Reporter
    provenance: dict[str, Any]
    missing: dict[str, fidelity.NotMeasured] = field(default_factory=dict)

    @classmethod
    def prepare(
        cls,
        dataset: Dataset,
        images: int,
        reference_images: int | None,
        root: Path | None,
        download: bool,
        device: torch.device,
        report: Reporter,
    ) -> "Bench":
        """Find the extractor and check it before anything long begins."""
        folder = data_root(root)
        bench = cls(
            dataset, images, reference_images, None, cache_folders(folder)[0], device, report, provenance(device)
        )
        bench.provenance["versions"]["jlebm"] = jlebm.__version__
        try:
            bench.extractor = inception.find_extractor(folder, download)
        except inception.ExtractorNotFound as missing:
            report.line(f"{missing}")
        else:
            inception.self_check(bench.extractor, device)
        return bench

    def not_measured(self) -> list[fidelity.NotMeasured]:
        """Return what could not be measured, each metric once."""
        return list(self.missing.values())


def measure(run: Run, state: TrainState, bench: Bench, folder: Path) -> None:
    """Sample, evaluate, append the rows to `folder/measured`, draw into the run's folder; once for each training.

    Raises:
        UserError: the disk is full, or the extractor fails its check.
    """
    model = state.evaluated_model()
    experiment = run.experiment
    weights = "raw" if state.ema is None else "ema"
    checkpoints.save_weights(run.weights, model, run.header() | {"step": state.step, "weights": weights})
    marker = run.folder / "measured.json"
    done = {"step": state.step, "images": bench.images, "reference_images": bench.reference_images}
    if marker.exists() and json.loads(marker.read_text()) == done:
        bench.report.line(f"{run.folder} was measured before at this step; its rows stand")
        return
    seconds: dict[str, float] = {}
    samples = {}
    for source in SOURCES:
        started = time.monotonic()
        samples[source] = _sample(run, model, source, bench)
        seconds[source] = time.monotonic() - started
    count = len(samples["posterior"].images)

    def row(metric: str, source: str, value: float, images: int, evaluate: float, **rest: Any) -> results.Measurement:
        chains = {"ebm-prior": experiment.prior_chain, "posterior": experiment.posterior_chain}
        chained = source in chains and not (source == "posterior" and experiment.learning == "variational")
        fields = {
            "weights": weights,
            "spread": None,
            "reference": "",
            "extractor": "",
            "chain": chains[source].describe() if chained else "",
        }
        return results.Measurement(
            protocol=experiment.protocol,
            dataset=experiment.dataset,
            preset=experiment.preset,
            learning=experiment.learning,
            seed=run.seed,
            metric=metric,
            source=source,
            value=value,
            images=images,
            steps=state.step,
            complete=state.step >= experiment.training.steps,
            config_digest=experiment.digest(),
            wall_seconds={"train": state.seconds, "sample": seconds.get(source, 0.0), "evaluate": evaluate},
            date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            **bench.provenance,
            **(fields | rest),
        )

    rows = []
    truth = bench.dataset.images[posterior_indices(len(bench.dataset.images), count)]
    mse = _mean_squared_error(samples["posterior"].images, truth)
    rows.append(row("reconstruction_mse", "posterior", mse, count, 0.0))
    for prior in PRIORS:
        started = time.monotonic()
        auc = latent.two_sample_auc(
            np.asarray(samples["posterior"].latents[:LATENTS]),
            np.asarray(samples[prior].latents[:LATENTS]),
            seed=derive_seed("evaluation", run.seed) % 2**32,
        )
        rows.append(row("latent_auc", prior, auc, min(LATENTS, count), time.monotonic() - started))
    fid768 = {}
    for source, metrics in METRICS.items():
        started = time.monotonic()
        scores = fidelity.evaluate(
            samples[source].images,
            bench.dataset,
            bench.extractor,
            bench.cache,
            bench.device,
            metrics=metrics,
            reference_images=bench.reference_images,
            report=bench.report,
        )
        spent = time.monotonic() - started
        for score in scores:
            if isinstance(score, fidelity.NotMeasured):
                bench.missing.setdefault(score.metric, score)
                continue
            judged = _judged_by(bench)
            rows.append(row(score.metric, source, score.value, score.images, spent, spread=score.spread, **judged))
            if score.metric == "fid768":
                fid768[source] = score.value
    references = bench.reference_images or len(bench.dataset.images)
    if bench.extractor is not None and fid768 and references >= 2 * fidelity.NEEDS["fid768"].images:
        floor = fidelity.halves(
            bench.dataset,
            bench.extractor,
            bench.cache,
            bench.device,
            reference_images=bench.reference_images,
            report=bench.report,
        )
        judged = _judged_by(bench)
        rows.append(row(floor.metric, "training-halves", floor.value, floor.images, 0.0, weights="", **judged))
    if len(fid768) == len(SOURCES):
        gaussian, ebm, posterior = (fid768[source] for source in SOURCES)
        closed = (gaussian - ebm) / (gaussian - posterior)
        rows.append(row("prior_gap_closed", "all", closed, count, 0.0, **_judged_by(bench)))
    results.append(folder / "measured" / f"{experiment.dataset}.jsonl", rows)
    _draw(run, model, samples, bench, folder)
    write_atomically(marker, lambda part: part.write_text(json.dumps(done)))
    bench.report.line(f"wrote {len(rows)} rows, samples.png, energy.png, training.png and weights to {run.folder}")


def _sample(run: Run, model: JointModel, source: str, bench: Bench) -> SampleFiles:
    experiment = run.experiment
    count = bench.images
    if source == "posterior":
        chosen = posterior_indices(len(bench.dataset.images), count)
        chain = experiment.posterior_chain if experiment.learning == "joint-mle" else None
        batches = sampling.reconstruct(model, bench.dataset.images, chosen, chain)
        count = len(chosen)
    else:
        prior: Prior = "ebm-prior" if source == "ebm-prior" else "gaussian-prior"
        batches = sampling.generate(model, prior, range(count), experiment.prior_chain)
    path = run.folder / "samples" / f"{source}.npy"
    return sampling.write(path, batches, count, bench.report, name=f"sampling {source}")


def posterior_indices(total: int, count: int) -> list[int]:
    """Choose training images at even distances, between those of the reference where neither is all of them.

    A decoded posterior sample then never stands beside the very image that it was made from, as far as that is
    possible; at most all of them.
    """
    count = min(total, count)
    return [(2 * index + 1) * total // (2 * count) for index in range(count)]


def _mean_squared_error(decoded: np.ndarray, images: np.ndarray) -> float:
    """Return the mean squared error of pixels in [0, 1], a thousand images at a time."""
    total = 0.0
    for first in range(0, len(decoded), 1000):
        difference = decoded[first : first + 1000].astype(np.float64) - images[first : first + 1000]
        total += float(np.square(difference / 255).sum())
    return total / decoded.size


def _judged_by(bench: Bench) -> dict[str, str]:
    assert bench.extractor is not None
    count = bench.reference_images or len(bench.dataset.images)
    return {
        "reference": f"{bench.dataset.name}/{bench.dataset.split}, {count} images, sha256:{bench.dataset.digest[:12]}",
        "extractor": f"inception-2015-12-05, sha256:{bench.extractor.digest[:12]}",
    }


def _draw(run: Run, model: JointModel, samples: dict[str, SampleFiles], bench: Bench, folder: Path) -> None:
    """Draw the grid, the energies along the prior's chain and the training curves; store what figures need."""
    shown = {source.replace("-", "_"): np.array(files.images[:SHOWN]) for source, files in samples.items()}
    chosen = posterior_indices(len(bench.dataset.images), bench.images)[:SHOWN]
    shown["data"] = bench.dataset.images[chosen]
    energy = _energy_trace(run, model)
    identity = {
        "protocol": run.experiment.protocol,
        "dataset": run.experiment.dataset,
        "preset": run.experiment.preset,
        "learning": run.experiment.learning,
        "seed": run.seed,
        "config_digest": run.experiment.digest(),
        "commit": bench.provenance["commit"],
    }
    # What the repository keeps for its figures: the first seed of a recipe's full sizes, never of a first look.
    kept = run.experiment.preset in ("cpu", "budget", "paper") and run.seed == 1
    places = [run.folder / name for name in ("samples", "langevin")]
    if kept:
        stem = f"{run.experiment.dataset}_{run.experiment.learning}".replace("-", "_")
        places += [folder / "artifacts" / f"{stem}_{name}" for name in ("samples", "langevin")]
    for place in places:
        arrays = shown if place.name.endswith("samples") else {"energy": energy}
        results.write_artifact(place.with_suffix(".npz"), arrays, identity)
    plotting.save(plotting.image_rows(shown, columns=SHOWN // 2), run.folder / "samples")
    plotting.save(plotting.energy_trace(energy), run.folder / "energy")
    plotting.save(plotting.training_curves(run.events(), CURVES), run.folder / "training")


def _energy_trace(run: Run, model: JointModel) -> np.ndarray:
    """Return the energy of each layer before and after every step of some prior chains: (steps + 1, chains, layers)."""
    chain = run.experiment.prior_chain
    seeds = range(TRACED)
    noise = PerImageNoise("sample", seeds)
    start = model.start(len(seeds), chain, noise)
    trace = [model.energies(start)]

    def observe(index: int, position: Latents, info: StepInfo) -> None:
        trace.append(model.energies(position))

    langevin.run(start, PriorInLatents(model.backbone, model.energy), chain, noise, observe)
    return torch.stack(trace).cpu().numpy()
