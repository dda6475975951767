"""The two-stage model: a backbone that is trained or given, energies upon it, and rows of both priors on its weights.

The order is that of facts, section 1.6. Both priors, the decoded posterior samples and every variation of the sampling
are of the same weights.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from jlebm import checkpoints, parallel, sampling
from jlebm.backbones.nvae import NVAE, digest_of, frozen_copy, load_nvae, re_estimated, save_nvae
from jlebm.errors import UserError
from jlebm.evaluation import latent
from jlebm.langevin import Chain
from jlebm.latents import Latents, layer_names
from jlebm.model import JointModel
from jlebm.randomness import PerImageNoise, derive_seed
from jlebm.run import Run, open_run
from jlebm.staged import Sampled, Sampler, TwoStageExperiment, TwoStagePlan
from jlebm.training import TrainState
from reproduce import pictures
from reproduce.arguments import Arguments, parse_duration
from reproduce.bench import SOURCES, Bench, Rows, Subject
from reproduce.fitting import fitted
from reproduce.measure import LATENTS, PRIORS, Draw, Samples, measure, posterior_indices

SHARE_OF_BACKBONE = 0.8  # of a wall-clock budget
SAID = {"temperature": "--temperature {:g}", "batch_norm": "--batch-norm {}", "decoding": "--decoding {}"}
PLAIN = Sampler(Chain.from_two_stage_paper(0, 1.0))  # its chain apart, how samples are drawn without a variation
RE_ESTIMATION = 50  # passes of 100 samples for the statistics of batch norms


@dataclass(frozen=True)
class TwoStagePreset:
    """One size of the two-stage recipe: what is trained, and how many images it is measured on."""

    plan: TwoStagePlan
    images: int
    """Sampled from each prior."""
    reference_images: int | None = None
    """Training images that the samples are held against; None for all."""
    judged: tuple[str, ...] = SOURCES
    """The sources whose images go through Inception."""


def planned(plan: TwoStagePlan, arguments: Arguments, dataset: str) -> TwoStagePlan:
    """Return the plan as the arguments change it; the preset of a variation of the sampling has its flags in the name.

    Raises:
        UserError: a key is unknown or a value does not fit.
    """
    changes = list(arguments.set)
    for assignment in changes:
        if assignment.partition("=")[0].rpartition(".")[2] in ("protocol", "preset", "dataset", "learning"):
            raise UserError(f"--set does not change {assignment!r}, which names the rows; use the recipe's own options")
    if arguments.budget is not None:
        seconds = parse_duration(arguments.budget)
        changes.append(f"backbone.training.budget_seconds={SHARE_OF_BACKBONE * seconds}")
        changes.append(f"energies.training.budget_seconds={(1 - SHARE_OF_BACKBONE) * seconds}")
    plan = plan.override(changes)
    said, sampler, varied = [plan.preset], plan.sampler, arguments.variation
    chain = sampler.chain
    if varied.chain_steps is not None:
        chain = dataclasses.replace(chain, steps=varied.chain_steps)
        said.append(f"--chain-steps {varied.chain_steps}")
    if varied.drift not in (None, chain.drift):
        chain = dataclasses.replace(chain, drift=varied.drift)
        said.append(f"--drift {varied.drift}")
    if not varied.chain_noise:
        chain = dataclasses.replace(chain, temperature=0.0)
        said.append("--no-chain-noise")
    sampler = dataclasses.replace(sampler, chain=chain)
    for name, words in (
        ("temperature", "temperature {:g}"),
        ("batch_norm", "batch norm {}"),
        ("decoding", "decoder's {}"),
    ):
        value = getattr(varied, name)
        if value not in (None, getattr(sampler, name)):
            sampler = dataclasses.replace(sampler, **{name: value})
            said.append(words.format(value))
    named = {"preset": plan.preset, "dataset": dataset}
    return TwoStagePlan(
        preset=" ".join(said),
        backbone=dataclasses.replace(plan.backbone, **named),
        energies=dataclasses.replace(plan.energies, **named),
        sampler=sampler,
    )


def touched(plan: TwoStagePlan, judged: tuple[str, ...]) -> tuple[str, ...]:
    """Return the judged sources that a variation of the sampling changes; all of them where it is none."""
    if plan.preset == plan.energies.preset:
        return judged
    priors = ("ebm-prior",) if dataclasses.replace(plan.sampler, chain=PLAIN.chain) == PLAIN else PRIORS
    return tuple(source for source in judged if source in priors)


def run_two_stage(plan: TwoStagePlan, arguments: Arguments, bench: Bench) -> list[Subject]:
    """Train what is not trained yet, measure every seed of samples, and return what the rows are about."""
    bench = dataclasses.replace(bench, judged=touched(plan, bench.judged))
    backbone, name = _backbone(plan, arguments, bench)
    energies = dataclasses.replace(plan.energies, model=backbone.config, backbone=name)
    subjects = []
    with open_run(arguments.runs, energies, arguments.variation.training_seed) as run:
        frozen = frozen_copy(backbone).to(bench.device)
        state = fitted(run, bench.dataset.images, bench.device, bench.report, frozen)
        model = state.evaluated_model()
        if plan.sampler.batch_norm == "re-estimated":
            network = frozen_copy(re_estimated(backbone.to(bench.device), _noises(model), plan.sampler.temperature))
            model = JointModel(network, model.energy)
        for seed in arguments.seeds:
            subjects.append(_measured(run, energies, plan, state, model, seed, arguments, bench))
    return subjects


def _backbone(plan: TwoStagePlan, arguments: Arguments, bench: Bench) -> tuple[NVAE, str]:
    """Return the backbone in eval mode and what names it in the energies' configuration."""
    given = arguments.variation.backbone_checkpoint
    if given is not None:
        backbone = load_nvae(given)
        wanted, found = bench.dataset.images.shape[1:], backbone.config.image_shape
        if tuple(wanted) != found:
            raise UserError(f"the backbone {given} makes images of {found}, and those of the dataset are {wanted}")
        return backbone, f"sha256:{digest_of(backbone)}"
    seed = arguments.variation.training_seed
    with open_run(arguments.runs, plan.backbone, seed) as run:
        state = fitted(run, bench.dataset.images, bench.device, bench.report)
        backbone = state.evaluated_model().backbone.cpu().eval()
        if parallel.first():
            save_nvae(run.folder / "backbone.safetensors", backbone)
    return backbone, f"{plan.backbone.digest()}, seed {seed}, {state.step} steps"


def _noises(model: JointModel) -> Iterator[Latents]:
    for index in range(RE_ESTIMATION):
        yield model.noise(100, PerImageNoise("evaluation", range(100 * index, 100 * (index + 1))))


def _measured(
    run: Run,
    energies: TwoStageExperiment,
    plan: TwoStagePlan,
    state: TrainState,
    model: JointModel,
    seed: int,
    arguments: Arguments,
    bench: Bench,
) -> Subject:
    """Measure one seed of samples of trained weights; image i of seed s has the noise of number (s - 1) N + i."""
    sampler, images = plan.sampler, bench.dataset.images
    subject = Subject(
        protocol=energies.protocol,
        dataset=energies.dataset,
        preset=plan.preset,
        learning="two-stage",
        seed=seed,
        steps=state.step,
        complete=state.step >= energies.training.steps,
        weights="raw" if state.ema is None else "ema",
        config_digest=Sampled(energies, sampler).digest(),
        chains={
            "ebm-prior": sampler.describe(chain=True),
            "gaussian-prior": sampler.describe(chain=False),
            "posterior": "decoder's mean",
        },
        train_seconds=state.seconds,
        shared=("training-halves", "posterior"),
    )
    numbers = range((seed - 1) * bench.images, seed * bench.images)
    chosen = posterior_indices(len(images), bench.images)
    draws = {"posterior": Draw(lambda: sampling.reconstruct(model, images, chosen, None), len(chosen))}
    for prior in PRIORS:

        def draw(prior: sampling.Prior = prior) -> Iterator[sampling.Samples]:
            rest = {"batch_size": 100, "temperature": sampler.temperature, "decoding": sampler.decoding}
            return sampling.generate(model, prior, numbers, sampler.chain, **rest)

        draws[prior] = Draw(draw, bench.images)
    folder = run.folder / f"{plan.preset.replace(' ', '')}-seed{seed}"
    samples = Samples(draws, folder, bench.report)
    rows = Rows(subject, bench, arguments.results)
    measure(rows, samples)
    measure_layers(rows, samples, model)
    if rows.added and parallel.first() and plan.preset == energies.preset and seed == arguments.seeds[0]:
        header = run.header() | {"step": state.step, "weights": subject.weights}
        checkpoints.save_weights(run.weights, model.energy, header)
        shown = {source: samples[source].images for source in SOURCES}
        shown["data"] = images[chosen[: pictures.SHOWN]]
        pictures.draw(run, model, sampler.chain, shown, subject, bench, arguments.results)
    return subject


def measure_layers(rows: Rows, samples: Samples, model: JointModel) -> None:
    """Store how well posterior and prior latents of each group alone can be told apart."""
    sizes = [int(np.prod(shape)) for shape in model.backbone.latent_shapes]
    ends = np.cumsum(sizes)
    for prior in PRIORS:
        used = min(LATENTS, samples.count("posterior"))
        for name, size, end in zip(layer_names(len(sizes)), sizes, ends, strict=True):
            source = f"{prior}/{name}"
            if rows.find("latent_auc", source, used, judged=False) is None:
                auc = latent.two_sample_auc(
                    np.asarray(samples["posterior"].latents[:used, end - size : end]),
                    np.asarray(samples[prior].latents[:used, end - size : end]),
                    seed=derive_seed("evaluation", rows.subject.seed) % 2**32,
                )
                rows.add("latent_auc", source, auc, used, {})
