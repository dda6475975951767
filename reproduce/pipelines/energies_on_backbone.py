"""Two-stage model: train or load a backbone, train energies on it, measure both priors.

The order is that of docs/facts, "Two-stage training". Both priors, the decoded posterior samples and every variation of
the sampling use the same weights.
"""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from jlebm import sampling
from jlebm.backbones.nvae import NVAE, digest_of, frozen_copy, load_nvae, re_estimated, save_nvae
from jlebm.energies import no_energy
from jlebm.engines import parallel
from jlebm.errors import UserError
from jlebm.experiment import Experiment
from jlebm.langevin import Chain
from jlebm.latents import Latents
from jlebm.learning.backbone import BackboneExperiment
from jlebm.learning.two_stage import TwoStageExperiment, frozen
from jlebm.model import JointModel
from jlebm.randomness import GENERATOR, Scheme, image_noise
from jlebm.run import Run, open_run
from jlebm.sampling import Sampler
from jlebm.training import TrainState
from jlebm.weights import save_model
from reproduce.measuring.data_root import unseen
from reproduce.measuring.judged_latents import judged_latents
from reproduce.measuring.row_store import Rows, Subject, stored
from reproduce.measuring.sample_sets import Draw, SampleSets, latents_kept, posterior_indices
from reproduce.measuring.sampled import SampleMetrics
from reproduce.measuring.session import Session
from reproduce.pipelines import layer_panels, pictures
from reproduce.pipelines.arguments import Arguments, Variation
from reproduce.pipelines.copied_pictures import draw_nearest
from reproduce.pipelines.fitting import fitted
from reproduce.pipelines.plans import planned, touched
from reproduce.pipelines.run_page import leave_page
from reproduce.presets.extents import PRIORS, SOURCES, Extent
from reproduce.presets.staged import Sampled, TwoStagePlan, TwoStagePreset
from reproduce.results.identity import Option

PLAIN = str.maketrans({" ": "", ":": "-", "/": "-"})  # a label as the name of a folder
RE_ESTIMATION = 50  # passes of 100 samples that re-estimate batch statistics


class Trained(NamedTuple):
    """A backbone in eval mode, and what rows record of its training."""

    network: Any
    """The backbone, a module with the configuration it was made from."""
    name: str
    """Name in the energies' configuration."""
    complete: bool = True
    """Whether its training, if it was trained here, ran to the end."""
    seconds: float = 0.0
    """Wall-clock time of that training."""


def run_two_stage(
    plan: TwoStagePlan, variation: dict[str, Option], preset: TwoStagePreset, arguments: Arguments, session: Session
) -> list[Subject]:
    """Train both stages if needed, measure every seed of samples, and return the subjects of the rows.

    Args:
        plan: configuration of the row.
        variation: options that differ from the preset.
        preset: extent of the figures and batch size of the samples.
        arguments: command-line options.
        session: what it is measured with.

    Raises:
        UserError: the given backbone cannot be read or makes other images than the dataset's; a full disk; a stored row
            that cannot be read.
    """
    for stage in (plan.backbone, plan.energies):  # refused before the first stage trains for hours
        parallel.share(stage.training.batch_size, f"the batch of {stage.learning}")
    size = dataclasses.replace(session.size, judged=touched(arguments, session.size.judged))
    session = dataclasses.replace(session, size=size)
    varied = arguments.variation
    trained = trained_backbone(plan.backbone, varied.training_seed, arguments.runs, session, varied.backbone_checkpoint)
    backbone, name = trained.network, trained.name
    if varied.backbone_checkpoint is not None:
        variation = variation | {"backbone_checkpoint": name[:17]}
    energies = dataclasses.replace(plan.energies, model=backbone.config, backbone=name)
    stored: list[Rows] = []
    energies_seed = varied.training_seed if varied.energies_seed is None else varied.energies_seed
    with open_run(arguments.runs, energies, energies_seed) as run:
        record_backbone(run, digest_of(backbone))
        held = frozen(backbone).to(session.device)
        state = fitted(run, session.dataset.images, session.device, session.report, held)
        plain = dataclasses.replace(arguments, variation=Variation(), noise=GENERATOR)
        unvaried, _ = planned(preset.plan, plain, plan.energies.dataset, session.device)
        _keep_weights(run, _sampled(backbone, state, unvaried.sampler), state, unvaried.sampler, preset.batch_size)
        stage = _StageTwo(run, energies, state, trained, variation)
        drawn = _Drawn(_sampled(backbone, state, plan.sampler), plan.sampler, preset.batch_size)
        for seed in arguments.seeds:
            rows = Rows(stage.subject(plan, session.recipe, seed), session, arguments.results)
            _measure(stage, drawn, rows)
            stored.append(rows)
        if arguments.seeds[0] == 1:
            _draw_layers(run, drawn, preset.extent, stored[0], arguments)
        leave_page(run, session, arguments.results)
    return [rows.subject for rows in stored]


@dataclass(frozen=True)
class _StageTwo:
    """Trained energies, and what their rows record of the training."""

    run: Run
    energies: TwoStageExperiment
    state: TrainState
    trained: Trained
    variation: dict[str, Option]

    def subject(self, plan: TwoStagePlan, recipe: str, seed: int) -> Subject:
        """Return the subject of the rows of one seed of samples."""
        energies, state, sampler = self.energies, self.state, plan.sampler
        alone = sampler.describe(chain=False)
        decoded = dataclasses.replace(sampler, temperature=1.0).describe(chain=False)  # q(z|x) has no temperature
        chains = {"ebm-prior": sampler.describe(chain=True), "gaussian-prior": alone, "posterior": decoded}
        # Its weights are the energies'; the configuration tells the backbone's.
        own = Subject.of_training(self.run, state, recipe, "two-stage", chains, self.variation)
        return dataclasses.replace(
            own,
            preset=plan.preset,
            seed=seed,
            complete=self.trained.complete and own.complete,
            config_digest=Sampled(energies, sampler, self.run.seed).digest(),
            train_seconds=self.trained.seconds + state.seconds,
            shared=("training-halves", "posterior"),
            run=(energies.digest(), self.run.seed),
        )


class _Drawn(NamedTuple):
    """Model, sampler and batch size of the samples."""

    model: JointModel
    sampler: sampling.Sampler
    batch_size: int


def _sampled(backbone: nn.Module, state: TrainState, sampler: sampling.Sampler) -> JointModel:
    """Return the trained model, with re-estimated batch statistics if the sampler asks for them."""
    model = state.evaluated_model()
    if sampler.batch_norm == "trained" or not isinstance(backbone, NVAE):
        return model
    device = next(model.energy.parameters()).device
    network = frozen_copy(re_estimated(backbone.to(device), _noises(model, sampler.noise), sampler.temperature))
    network.precision = model.backbone.precision
    return JointModel(network, model.energy)


def _keep_weights(run: Run, model: JointModel, state: TrainState, sampler: sampling.Sampler, batch_size: int) -> None:
    """Write the whole model into the run's folder, with the sampler of the recipe, not of a variation."""
    if parallel.first():
        header = run.header() | {"step": state.step, "weights": "raw" if state.ema is None else "ema"}
        save_model(run.weights, model, header, sampler, batch_size)


def record_backbone(run: Run, digest: str) -> None:
    """Record the backbone's digest in the run's folder; refuse to resume on another backbone.

    Raises:
        UserError: the run's energies were trained on another backbone, which has been trained anew since.
    """
    otherwise = f"the energies in {run.folder} were trained on another backbone; choose another --runs"
    parallel.after_first(lambda: run.record("backbone.sha256", digest, otherwise))


def trained_backbone(
    experiment: BackboneExperiment | Experiment, seed: int, runs: Path, session: Session, given: Path | None = None
) -> Trained:
    """Train a backbone, or load the given one.

    Raises:
        UserError: the given one cannot be read or makes other images than the dataset's.
    """
    if given is not None:
        backbone = load_nvae(given)
        wanted, found = session.dataset.images.shape[1:], backbone.config.image_shape
        if tuple(wanted) != found:
            raise UserError(f"the backbone {given} makes images of {found}, and those of the dataset are {wanted}")
        return Trained(backbone, f"sha256:{digest_of(backbone)}")
    with open_run(runs, experiment, seed) as run:
        state = fitted(run, session.dataset.images, session.device, session.report)
        model = state.evaluated_model().cpu().eval()
        backbone = model.backbone
        if parallel.first():
            if isinstance(backbone, NVAE):
                save_nvae(run.folder / "backbone.safetensors", backbone)
            else:
                header = run.header() | {"step": state.step, "weights": "raw" if state.ema is None else "ema"}
                save_model(run.weights, model, header, Sampler(experiment.prior_sampling_chain() or Chain(0, 1.0)))
    name = f"{experiment.digest()}, seed {seed}, {state.step} steps"
    return Trained(backbone, name, state.step >= experiment.training.steps, state.seconds)


def _noises(model: JointModel, scheme: Scheme) -> Iterator[Latents]:
    for index in range(RE_ESTIMATION):
        yield model.noise(100, image_noise("re-estimation", range(100 * index, 100 * (index + 1)), scheme))


def _measure(stage: _StageTwo, drawn: _Drawn, rows: Rows) -> None:
    """Measure one seed of samples of trained weights; image i of seed s has noise number (s - 1) N + i."""
    run, trained, session, subject = stage.run, stage.trained, rows.session, rows.subject
    (model, sampler, batch_size), images, seed = drawn, session.dataset.images, subject.seed
    numbers = range((seed - 1) * session.images, seed * session.images)
    chosen = posterior_indices(len(images), session.images)

    def reconstructions() -> Iterator[sampling.Samples]:
        return sampling.reconstruct(model, images, chosen, None, batch_size, sampler.drawing)

    draws = {"posterior": Draw(reconstructions, len(chosen))}
    for prior in PRIORS:

        def draw(prior: sampling.Prior = prior) -> Iterator[sampling.Samples]:
            return sampling.generate(model, prior, numbers, sampler, batch_size)

        draws[prior] = Draw(draw, session.images)
    folder = run.folder / f"{subject.identity.label.translate(PLAIN)}-seed{seed}"
    samples = SampleSets(draws, folder, session.report, latents_kept(dimensions(model)))
    metrics = SampleMetrics(rows, samples)
    metrics.measure()
    rows.fill([metrics.parameters("gaussian-prior", trained.network, trained_in=trained.seconds)])
    rows.fill([metrics.parameters("ebm-prior", trained.network, model.energy)])
    rows.fill(metrics.layers_told_apart(model.backbone.latent_shapes))
    rows.fill(judged_latents(rows, samples, model.backbone.latent_shapes))
    draw_nearest(rows, samples, folder)
    there = pictures.there([run.weights, *samples.paths, *pictures.left(rows, folder)])
    if parallel.agreed(rows.added == 0 and there):
        session.report.line(f"everything in {folder} was measured before; its rows are kept")
        return
    shown = {source: samples[source].images for source in SOURCES}
    if parallel.first():
        shown["data"] = images[np.array(chosen[: pictures.SHOWN]) % len(images)]
        traced = pictures.Traced(model, sampler.chain)
        traced = dataclasses.replace(traced, count=min(traced.count, batch_size))
        pictures.draw(run, traced, shown, rows, folder)
        session.report.line(f"{stored(rows)}; pictures and samples are in {folder}")


def _draw_layers(run: Run, drawn: _Drawn, extent: Extent, rows: Rows, arguments: Arguments) -> None:
    """Draw the figures of the hierarchy, once for all seeds of samples.

    A single group, chains in latents and variations of the sampling have no such figure.
    """
    plain = {"backbone_checkpoint": None, "training_seed": 1, "energies_seed": None}
    varied = arguments.noise != GENERATOR or dataclasses.replace(arguments.variation, **plain) != Variation()
    model, chain = drawn.model, drawn.sampler.chain
    layers = len(model.backbone.latent_shapes)
    if varied or layers < 2 or chain.space != "noise":
        return
    if parallel.agreed(pictures.there(layer_panels.left(rows, run.folder))):
        return
    twin = JointModel(model.backbone, no_energy(layers))
    pair = layer_panels.Pair(model, chain, twin, drawn.batch_size)
    images = unseen(arguments.root(rows.session.report), rows.session.dataset)
    layer_panels.draw(pair, extent, images, rows, run.folder)


def dimensions(model: JointModel) -> int:
    """Return the number of latents of an image."""
    return sum(math.prod(shape) for shape in model.backbone.latent_shapes)
