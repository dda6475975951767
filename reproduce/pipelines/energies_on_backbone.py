"""The two-stage model: a backbone that is trained or given, energies upon it, and rows of both priors on its weights.

The order is that of docs/facts, "Two-stage training". Both priors, the decoded posterior samples and every variation of
the sampling are of the same weights.
"""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jlebm import sampling
from jlebm.backbones.nvae import NVAE, digest_of, frozen_copy, load_nvae, re_estimated, save_nvae
from jlebm.energies import no_energy
from jlebm.engines import parallel
from jlebm.errors import UserError
from jlebm.files import read_bytes, write_text
from jlebm.latents import Latents
from jlebm.learning.backbone import BackboneExperiment
from jlebm.learning.two_stage import TwoStageExperiment
from jlebm.model import JointModel
from jlebm.randomness import GENERATOR, Scheme, image_noise
from jlebm.run import Run, open_run
from jlebm.training import TrainState
from jlebm.weights import save_model
from reproduce.measuring.sampled import (
    Draw,
    SampleSets,
    latents_kept,
    measure,
    measure_layers,
    measure_parameters,
    posterior_indices,
)
from reproduce.measuring.session import Rows, Session, Subject, unseen
from reproduce.pipelines import layer_panels, pictures
from reproduce.pipelines.arguments import Arguments, Variation
from reproduce.pipelines.fitting import fitted
from reproduce.pipelines.plans import planned, touched
from reproduce.presets.extents import PRIORS, SOURCES
from reproduce.presets.staged import Sampled, TwoStagePlan, TwoStagePreset
from reproduce.results.identity import Option

PLAIN = str.maketrans({" ": "", ":": "-", "/": "-"})  # a label as the name of a folder
RE_ESTIMATION = 50  # passes of 100 samples for the statistics of batch norms


class Trained(NamedTuple):
    """A backbone in eval mode, and what rows have to tell of it."""

    network: NVAE
    name: str
    """In the energies' configuration."""
    complete: bool = True
    """Whether its training, if it was trained here, went to its end."""
    seconds: float = 0.0
    """Wall-clock time of that training."""


def run_two_stage(
    plan: TwoStagePlan, variation: dict[str, Option], preset: TwoStagePreset, arguments: Arguments, session: Session
) -> list[Subject]:
    """Train what is not trained yet, measure every seed of samples, and return what the rows are about.

    Args:
        plan: the whole row.
        variation: the options that make it another one than the preset's.
        preset: how much is drawn, and at a time.
        arguments: what the person said.
        session: what it is measured with.

    Raises:
        UserError: the given backbone cannot be read or makes other images than the dataset's; a full disk; a stored row
            that cannot be read.
    """
    for stage in (plan.backbone, plan.energies):  # before the first of them trains for hours
        parallel.share(stage.training.batch_size, f"the batch of {stage.learning}")
    session = dataclasses.replace(session, judged=touched(arguments, session.judged))
    varied = arguments.variation
    trained = trained_backbone(plan.backbone, varied.training_seed, arguments.runs, session, varied.backbone_checkpoint)
    backbone, name = trained.network, trained.name
    if varied.backbone_checkpoint is not None:
        variation = variation | {"backbone_checkpoint": name[:17]}
    energies = dataclasses.replace(plan.energies, model=backbone.config, backbone=name)
    subjects = []
    energies_seed = varied.training_seed if varied.energies_seed is None else varied.energies_seed
    with open_run(arguments.runs, energies, energies_seed) as run:
        hold_to(run, digest_of(backbone))
        frozen = frozen_copy(backbone).to(session.device)
        state = fitted(run, session.dataset.images, session.device, session.report, frozen)
        plain = dataclasses.replace(arguments, variation=Variation(), noise=GENERATOR)
        unvaried, _ = planned(preset.plan, plain, plan.energies.dataset)
        _keep_weights(run, _sampled(backbone, state, unvaried.sampler), state, unvaried.sampler, preset.batch_size)
        stage = _StageTwo(run, energies, state, trained, variation)
        model = _sampled(backbone, state, plan.sampler)
        for seed in arguments.seeds:
            subject = stage.subject(plan, seed)
            _measure(stage, subject, _Drawn(model, plan.sampler, preset.batch_size), arguments, session)
            subjects.append(subject)
        if arguments.seeds[0] == 1:
            _draw_layers(stage, subjects[0], _Drawn(model, plan.sampler, preset.batch_size), preset, arguments, session)
    return subjects


@dataclass(frozen=True)
class _StageTwo:
    """Trained energies, and what their rows say of their training."""

    run: Run
    energies: TwoStageExperiment
    state: TrainState
    trained: Trained
    variation: dict[str, Option]

    def subject(self, plan: TwoStagePlan, seed: int) -> Subject:
        """Return what the rows of one seed of samples are about."""
        energies, state, sampler = self.energies, self.state, plan.sampler
        alone = sampler.describe(chain=False)
        decoded = dataclasses.replace(sampler, temperature=1.0).describe(chain=False)  # q(z|x) has no temperature
        return Subject(
            protocol=energies.protocol,
            dataset=energies.dataset,
            preset=plan.preset,
            learning="two-stage",
            seed=seed,
            steps=state.step,
            complete=self.trained.complete and state.step >= energies.training.steps,
            weights="raw" if state.ema is None else "ema",  # the energies'; the configuration tells the backbone's
            config_digest=Sampled(energies, sampler, self.run.seed).digest(),
            chains={"ebm-prior": sampler.describe(chain=True), "gaussian-prior": alone, "posterior": decoded},
            train_seconds=self.trained.seconds + state.seconds,
            shared=("training-halves", "posterior"),
            run=(energies.digest(), self.run.seed),
            variation=self.variation,
        )


class _Drawn(NamedTuple):
    """How samples are drawn."""

    model: JointModel
    sampler: sampling.Sampler
    batch_size: int


def _sampled(backbone: NVAE, state: TrainState, sampler: sampling.Sampler) -> JointModel:
    """Return the trained model with the statistics of batch norms that a sampler says."""
    model = state.evaluated_model()
    if sampler.batch_norm == "trained":
        return model
    device = next(model.energy.parameters()).device
    network = frozen_copy(re_estimated(backbone.to(device), _noises(model, sampler.noise), sampler.temperature))
    network.precision = model.backbone.precision
    return JointModel(network, model.energy)


def _keep_weights(run: Run, model: JointModel, state: TrainState, sampler: sampling.Sampler, batch_size: int) -> None:
    """Write the whole model beside the run, with the sampler of the recipe and not that of a variation."""
    if parallel.first():
        header = run.header() | {"step": state.step, "weights": "raw" if state.ema is None else "ema"}
        save_model(run.weights, model, header, sampler, batch_size)


def hold_to(run: Run, digest: str) -> None:
    """Note which weights the energies of a run are learned upon, and hold a later call to them.

    Raises:
        UserError: the run's energies are upon other weights: the backbone was trained anew, elsewhere or otherwise.
    """
    path = run.folder / "backbone.sha256"
    if parallel.first() and not path.exists():
        write_text(path, digest + "\n")
    parallel.barrier()
    if read_bytes(path).strip() != digest.encode():
        raise UserError(f"the energies in {run.folder} were learned upon another backbone; choose another --runs")


def trained_backbone(
    experiment: BackboneExperiment, seed: int, runs: Path, session: Session, given: Path | None = None
) -> Trained:
    """Train a backbone to its end, or read the given one.

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
        backbone = state.evaluated_model().backbone.cpu().eval()
        if parallel.first():
            save_nvae(run.folder / "backbone.safetensors", backbone)
    name = f"{experiment.digest()}, seed {seed}, {state.step} steps"
    return Trained(backbone, name, state.step >= experiment.training.steps, state.seconds)


def _noises(model: JointModel, scheme: Scheme) -> Iterator[Latents]:
    for index in range(RE_ESTIMATION):
        yield model.noise(100, image_noise("re-estimation", range(100 * index, 100 * (index + 1)), scheme))


def _measure(stage: _StageTwo, subject: Subject, drawn: _Drawn, arguments: Arguments, session: Session) -> None:
    """Measure one seed of samples of trained weights; image i of seed s has the noise of number (s - 1) N + i."""
    run, trained = stage.run, stage.trained
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
    rows = Rows(subject, session, arguments.results)
    measure(rows, samples)
    measure_parameters(rows, samples, "gaussian-prior", trained.network, trained_in=trained.seconds)
    measure_parameters(rows, samples, "ebm-prior", trained.network, model.energy)
    measure_layers(rows, samples, model.backbone.latent_shapes)
    there = pictures.there([run.weights, *samples.paths, *pictures.left(subject, arguments.results, folder)])
    if parallel.agreed(rows.added == 0 and there):
        session.report.line(f"everything of {folder} was measured before; its rows stand")
        return
    shown = {source: samples[source].images for source in SOURCES}
    if parallel.first():
        shown["data"] = images[np.array(chosen[: pictures.SHOWN]) % len(images)]
        chains = min(pictures.TRACED, batch_size)
        pictures.draw(run, model, sampler.chain, shown, subject, session, arguments.results, folder, chains)
        session.report.line(f"stored {rows.added} rows in {rows.path}; pictures and samples are in {folder}")


def _draw_layers(
    stage: _StageTwo, subject: Subject, drawn: _Drawn, preset: TwoStagePreset, arguments: Arguments, session: Session
) -> None:
    """Draw the hierarchy, which no seed of samples changes.

    Of one group, of chains in latents and of varied sampling there is no figure.
    """
    plain = {"backbone_checkpoint": None, "training_seed": 1, "energies_seed": None}
    varied = arguments.noise != GENERATOR or dataclasses.replace(arguments.variation, **plain) != Variation()
    model, chain, folder = drawn.model, drawn.sampler.chain, stage.run.folder
    layers = len(model.backbone.latent_shapes)
    if varied or layers < 2 or chain.space != "noise":
        return
    if parallel.agreed(pictures.there(layer_panels.left(subject, arguments.results, folder))):
        return
    twin = JointModel(model.backbone, no_energy(layers))
    pair = layer_panels.Pair(model, chain, twin, drawn.batch_size)
    images = unseen(session.dataset, arguments.data_root, arguments.download, session.report)
    layer_panels.draw(pair, preset.extent, images, subject, session, arguments.results, folder)


def dimensions(model: JointModel) -> int:
    """Return how many latents an image has."""
    return sum(math.prod(shape) for shape in model.backbone.latent_shapes)
