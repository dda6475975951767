"""What a recipe trains: a preset as the command line changes it."""

import dataclasses
from collections.abc import Mapping, Sequence

import torch

from jlebm.backbones.nvae import NVAEConfig
from jlebm.engines.precision import precision_of
from jlebm.errors import UserError
from jlebm.experiment import Experiment
from jlebm.langevin import Chain
from jlebm.randomness import GENERATOR
from reproduce.pipelines.arguments import Arguments, Timed, Variation
from reproduce.presets.ladder_sizes import LadderPreset
from reproduce.presets.recipes import Preset, with_inference_network
from reproduce.presets.staged import TwoStagePlan
from reproduce.results.identity import Option, noise_option
from reproduce.results.metrics import EBM, GAUSSIAN

SHARE_OF_BACKBONE = 0.8  # the backbone's share of a wall-clock budget
MIXTURES = {"gaussian": 1, "mixture": 10}  # components of the decoder; the mixture is CelebA-HQ's at `paper`
CHAIN = ("chain_steps", "chain_leapfrog", "drift", "chain_precision")  # options of the chain at test time
NAMES = ("protocol", "preset", "dataset", "learning")


def joint_planned(preset: Preset, arguments: Arguments, dataset: str, device: torch.device) -> Experiment:
    """Return the configuration of the two-layer generator with the arguments applied.

    Raises:
        UserError: a key is unknown or not for --set, a value does not fit, or an option of another model is given.
    """
    experiment = preset.experiment
    if arguments.learning == "variational":
        experiment = with_inference_network(preset.variational or experiment)
    return _overridden(experiment, arguments, dataset, device)


def ladder_planned(preset: LadderPreset, arguments: Arguments, dataset: str, device: torch.device) -> Experiment:
    """Return the configuration of the ladder with the arguments applied.

    Raises:
        UserError: a key is unknown or not for --set, a value does not fit, or an option of another model is given.
    """
    if arguments.learning is not None:
        raise UserError("--learning is that of the two-layer model; leave it out with --model ladder")
    return _overridden(preset.experiment, arguments, dataset, device)


def _overridden(experiment: Experiment, arguments: Arguments, dataset: str, device: torch.device) -> Experiment:
    if arguments.variation != Variation():
        raise UserError("the options of the two-stage model need --model two-stage")
    experiment = dataclasses.replace(experiment.override(changes_of_one_stage(arguments)), dataset=dataset)
    refuse_tf32(precision_of(experiment.model), "model.precision", device)
    return experiment


def changes_of_one_stage(arguments: Timed, *backbone: str) -> list[str]:
    """Return the assignments of --set and of --budget for a configuration that is trained in one stage.

    Raises:
        UserError: as in `refuse_names`, or the budget is not a time.
    """
    refuse_names(arguments.set, *backbone)
    seconds = arguments.budget_seconds
    return [*arguments.set, *([] if seconds is None else [f"training.budget_seconds={seconds}"])]


def refuse_names(assignments: Sequence[str], *backbone: str) -> None:
    """Refuse assignments of --set that would change what the rows are called.

    Args:
        assignments: KEY=VALUE each.
        backbone: the key of a backbone's name, where a configuration has one.

    Raises:
        UserError: one does.
    """
    for assignment in assignments:
        key = assignment.partition("=")[0]
        if key.rpartition(".")[2] in NAMES or key in backbone:
            raise UserError(f"--set does not change {key!r}, which names the rows; use the command's own options")


def refuse_tf32(precision: str, key: str, device: torch.device) -> None:
    """Refuse TF32 on a CPU: its rows would name an arithmetic that a CPU does not have.

    Raises:
        UserError: the precision is "tf32" and the device a CPU.
    """
    if precision == "tf32" and device.type == "cpu":
        raise UserError(f"{key}=tf32 is an arithmetic that a CPU does not have; add --set {key}=float32, or take a GPU")


def planned(
    plan: TwoStagePlan, arguments: Arguments, dataset: str, device: torch.device
) -> tuple[TwoStagePlan, dict[str, Option]]:
    """Return the plan of a two-stage row with the arguments applied, and the options of the variation that change it.

    Raises:
        UserError: a key is unknown or not for --set, a value does not fit, --learning of the two-layer model is given,
            the noise has no images of seed 0, TF32 is asked for on a CPU, or there is no such chain.
    """
    if arguments.learning is not None:
        raise UserError("--learning is that of the two-layer model; leave it out with --model two-stage")
    if arguments.noise != GENERATOR and 0 in arguments.seeds:
        raise UserError(f"seeds of samples begin at 1 with --noise {arguments.noise}, whose numbers are not negative")
    changes, varied = list(arguments.set), arguments.variation
    if varied.decoder is not None and varied.backbone_checkpoint is not None:
        raise UserError("--decoder trains a backbone of its own; leave it or --backbone-checkpoint out")
    for assignment in changes:
        key = assignment.partition("=")[0]
        if key.startswith("energies.model."):
            raise UserError(f"--set does not change {key!r}: energies follow the backbone; set backbone.model instead")
    refuse_names(changes, "energies.backbone")
    if (seconds := arguments.budget_seconds) is not None:
        share = SHARE_OF_BACKBONE if varied.backbone_checkpoint is None else 0.0
        if share:
            changes.append(f"backbone.training.budget_seconds={share * seconds}")
        changes.append(f"energies.training.budget_seconds={(1 - share) * seconds}")
    plan = plan.override(changes)
    refuse_tf32(plan.energies.precision, "energies.precision", device)
    said: dict[str, Option] = {}
    sampler = plan.sampler
    model = plan.backbone.model
    if not isinstance(model, NVAEConfig):
        _refuse_options_of_nvae(plan.preset, varied)
    elif varied.decoder is not None and (model.num_mixture_dec > 1) != (varied.decoder == "mixture"):
        model = dataclasses.replace(model, num_mixture_dec=MIXTURES[varied.decoder])
        said["decoder"] = varied.decoder
    if varied.kept_weights:
        said["kept_weights"] = True
    if varied.training_seed != 1:
        said["training_seed"] = varied.training_seed
    if varied.energies_seed not in (None, varied.training_seed):
        said["energies_seed"] = varied.energies_seed
    chain = _varied(sampler.chain, varied, said)
    sampler = dataclasses.replace(sampler, chain=chain)
    for name in ("temperature", "batch_norm", "decoding"):
        value = getattr(varied, name)
        if value not in (None, getattr(sampler, name)):
            sampler = dataclasses.replace(sampler, **{name: value})
            said[name] = value
    if arguments.noise != sampler.noise:
        sampler = dataclasses.replace(sampler, noise=arguments.noise)
        said |= noise_option(arguments.noise)
    named = {"dataset": dataset}  # and each stage keeps its preset, since two presets may share a backbone
    varied_plan = TwoStagePlan(
        preset=plan.preset,
        backbone=dataclasses.replace(plan.backbone, model=model, **named),
        energies=dataclasses.replace(plan.energies, model=model, **named),
        sampler=sampler,
    )
    return varied_plan, said


def _varied(chain: Chain, varied: Variation, said: dict[str, Option]) -> Chain:
    """Return the chain at test time as the options ask for it, and name those that change it.

    Raises:
        UserError: there is no such chain.
    """
    changes: dict[str, Option] = {}
    for name in CHAIN:
        value = getattr(varied, name)
        field = name.removeprefix("chain_")
        if value not in (None, getattr(chain, field)):
            changes[field] = said[name] = value
    if not varied.chain_noise:
        changes["temperature"] = 0.0
        said["chain_noise"] = False
    return dataclasses.replace(chain, **changes)  # pyright: ignore[reportArgumentType] # of the fields' own types


def _refuse_options_of_nvae(preset: str, varied: Variation) -> None:
    """Refuse options of an NVAE for a backbone that has one decoder and no batch norms."""
    for name, what in (("decoder", "other decoder"), ("batch_norm", "batch norms")):
        if getattr(varied, name) is not None:
            flag = name.replace("_", "-")
            raise UserError(f"the backbone of the preset {preset} is no NVAE and has no {what}; leave --{flag} out")


def affected(variation: Mapping[str, Option], judged: tuple[str, ...]) -> tuple[str, ...]:
    """Return the judged sources whose images a variation of the same backbone changes; all sources without one."""
    changed = variation.keys() - {"training_seed"}  # which is of another backbone, with a plain preset of its own
    # Kept weights may be rounded, which a hierarchy's own samples do not show; a chain that rejects goes another way.
    of_chain = {*CHAIN, "chain_noise", "kept_weights", "energies_seed"}
    of_priors = {*of_chain, "temperature"}
    if not changed or not changed <= of_priors:
        return judged
    return tuple(one for one in judged if one == EBM or (one == GAUSSIAN and "temperature" in changed))
