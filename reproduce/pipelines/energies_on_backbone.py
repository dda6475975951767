"""Two-stage model: train or load a backbone, train energies on it, measure both priors.

The order is that of docs/facts, "Two-stage training". Both priors, the decoded posterior samples and every variation of
the sampling use the same weights.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from jlebm import sampling
from jlebm.backbones.nvae import NVAE, digest_of, frozen_copy, load_nvae, re_estimated, save_nvae
from jlebm.engines import parallel
from jlebm.errors import UserError
from jlebm.experiment import Experiment
from jlebm.langevin import Chain
from jlebm.latents import Latents
from jlebm.learning.backbone import BackboneExperiment
from jlebm.learning.two_stage import frozen
from jlebm.model import JointModel
from jlebm.randomness import GENERATOR, Scheme, image_noise
from jlebm.run import Run, open_run
from jlebm.sampling import Sampler
from jlebm.training import TrainState
from jlebm.weights import save_model
from reproduce.measuring.row_store import Subject
from reproduce.measuring.session import Session
from reproduce.pipelines.arguments import Arguments, Variation
from reproduce.pipelines.fitting import fitted
from reproduce.pipelines.kept_weights import opened
from reproduce.pipelines.plans import affected, planned
from reproduce.pipelines.two_stage_rows import Drawn, Learned, StageTwo, measure_seeds
from reproduce.presets.staged import TwoStagePlan, TwoStagePreset, name_of_backbone
from reproduce.results.identity import Option

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
        UserError: the given backbone cannot be read or makes other images than the dataset's; there are no kept weights
            where they are asked for; a full disk; a stored row that cannot be read.
    """
    size = dataclasses.replace(session.size, judged=affected(variation, session.size.judged))
    session = dataclasses.replace(session, size=size)
    varied = arguments.variation
    if varied.kept_weights:
        with opened(plan, preset.plan.preset, arguments, session.device) as kept:
            stage = StageTwo(kept.run, kept.learned, plan.preset, variation)
            drawn = Drawn(kept.model, plan.sampler, preset.batch_size, kept.backbone)
            return measure_seeds(stage, drawn, preset.extent, arguments, session)
    for stage in (plan.backbone, plan.energies):  # refused before the first stage trains for hours
        parallel.share(stage.training.batch_size, f"the batch of {stage.learning}")
    trained = trained_backbone(plan.backbone, varied.training_seed, arguments.runs, session, varied.backbone_checkpoint)
    backbone, name = trained.network, trained.name
    if varied.backbone_checkpoint is not None:
        variation = variation | {"backbone_checkpoint": name[:17]}
    energies = dataclasses.replace(plan.energies, model=backbone.config, backbone=name)
    energies_seed = varied.training_seed if varied.energies_seed is None else varied.energies_seed
    with open_run(arguments.runs, energies, energies_seed) as run:
        record_backbone(run, digest_of(backbone))
        held = frozen(backbone).to(session.device)
        state = fitted(run, session.dataset.images, session.device, session.report, held)
        plain = dataclasses.replace(arguments, variation=Variation(), noise=GENERATOR)
        unvaried, _ = planned(preset.plan, plain, plan.energies.dataset, session.device)
        _keep_weights(run, _sampled(backbone, state, unvaried.sampler), state, unvaried.sampler, preset.batch_size)
        complete = trained.complete and state.step >= energies.training.steps
        weights = "raw" if state.ema is None else "ema"
        learned = Learned(state.step, complete, weights, state.seconds, trained.seconds)
        stage = StageTwo(run, learned, plan.preset, variation)
        drawn = Drawn(_sampled(backbone, state, plan.sampler), plan.sampler, preset.batch_size, trained.network)
        return measure_seeds(stage, drawn, preset.extent, arguments, session)


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
    name = name_of_backbone(experiment, seed, state.step)
    return Trained(backbone, name, state.step >= experiment.training.steps, state.seconds)


def _noises(model: JointModel, scheme: Scheme) -> Iterator[Latents]:
    for index in range(RE_ESTIMATION):
        yield model.noise(100, image_noise("re-estimation", range(100 * index, 100 * (index + 1)), scheme))
