"""Save a trained model in one file; load it in one line from a run's folder or from that file.

    model = jlebm.load("runs/cifar10-joint-mle-cpu-...")
    images = model.sample(range(16))

A weights file holds the whole model; its header holds the configuration, the learning scheme's name and the sampler.
Files of two-stage energies alone, which earlier versions wrote, need their backbone as well.
"""

import os
from pathlib import Path
from typing import Any

import torch

from jlebm import checkpoints
from jlebm.backbones.nvae import NVAE, digest_of, frozen_copy, load_nvae
from jlebm.energies import no_energy
from jlebm.engines.gradients import outside_inference_mode
from jlebm.errors import UserError, nearest
from jlebm.experiment import Experiment
from jlebm.learning.trainable import Trainable
from jlebm.learning.two_stage import TwoStageExperiment
from jlebm.model import JointModel
from jlebm.sampling import Sampler
from jlebm.trained import TrainedModel

# File names in a run's folder.
WEIGHTS = "weights.safetensors"
BACKBONE = "backbone.safetensors"
BACKBONE_DIGEST = "backbone.sha256"

# The configuration class that `load` reads for each learning scheme, by name. Add your own: a subclass of `Trainable`
# that builds a `JointModel`.
CONFIGURATIONS: dict[str, type[Trainable]] = {
    "joint-mle": Experiment,
    "variational": Experiment,
    "gaussian": Experiment,
    "two-stage": TwoStageExperiment,
}


def save_model(
    path: str | os.PathLike[str],
    model: JointModel,
    header: dict[str, Any],
    sampler: Sampler,
    batch_size: int | None = None,
) -> None:
    """Write a trained model as safetensors so that `load` needs nothing else.

    Args:
        path: the file to write.
        model: the model with the weights to sample from.
        header: `Run.header()`, which has the configuration, and further entries of your own.
        sampler: how its samples are drawn.
        batch_size: images per batch of sampling; None for the size that fills the device.

    Raises:
        UserError: there is no space or no permission to write the file, or the header has no configuration.
    """
    if "config" not in header:
        raise UserError(
            "the header has no configuration, without which `load` cannot build the model; give Run.header(), or keep "
            "a model of your own with torch.save(model.state_dict(), path)"
        )
    drawn = {"sampler": sampler.to_json()} | ({} if batch_size is None else {"batch_size": batch_size})
    checkpoints.save_weights(Path(path), model, header | drawn)


def load(
    path: str | os.PathLike[str],
    device: str | torch.device = "cpu",
    backbone: str | os.PathLike[str] | None = None,
    sampler: Sampler | None = None,
) -> TrainedModel:
    """Load a trained model from its run's folder or from its weights file alone.

    Args:
        path: a run's folder, or a .safetensors file: a model's weights, or an NVAE as `save_nvae` writes it.
        device: where to put the model; names are those of `jlebm.devices.resolve_device`.
        backbone: for two-stage energies that earlier versions stored alone, the file of the NVAE that they were learned
            on; by default backbone.safetensors beside them.
        sampler: how to draw its samples, in place of the recipe's sampler.

    Raises:
        UserError: there are no weights, they are damaged or of something else, or they lack their backbone.
    """
    with outside_inference_mode():  # weights made there could not enter the gradients of a chain
        return _loaded(weights_file(Path(path)), device, backbone, sampler)


def _loaded(
    file: Path, device: str | torch.device, backbone: str | os.PathLike[str] | None, sampler: Sampler | None
) -> TrainedModel:
    weights, header = checkpoints.load_weights(file)
    if "nvae" in header:
        _check_statistics(sampler, "trained", file)
        network = _frozen(load_nvae(file))
        model = JointModel(network, no_energy(len(network.latent_shapes)))
        return TrainedModel(model, header, network.config.image_shape, sampler=sampler).to(device)
    experiment = _configuration(header, file)
    whole = any(name.startswith("backbone.") for name in weights)
    network = None if whole else _backbone_of(file, None if backbone is None else Path(backbone))
    try:
        with torch.random.fork_rng(devices=[]):  # initial weights are drawn, then replaced
            model = experiment.restored(weights, network)
    except UserError as error:
        raise UserError(f"{file} cannot be loaded: {error}") from error
    kept = _kept_sampler(experiment, header)
    _check_statistics(sampler, "trained" if kept is None else kept.batch_norm, file)
    shape = experiment.model.image_shape
    return TrainedModel(model, header, shape, experiment, sampler or kept, header.get("batch_size")).to(device)


def _check_statistics(sampler: Sampler | None, statistics: str, file: Path) -> None:
    if sampler is not None and sampler.batch_norm != statistics:
        raise UserError(f"the statistics of batch norms in {file} are {statistics!r}; give a sampler with these")


def weights_file(path: Path) -> Path:
    """Return the weights file at a path: the file itself, or the one in a run's folder.

    Raises:
        UserError: there is none.
    """
    if not path.is_dir():
        if not path.exists() and not path.is_symlink():
            raise UserError(f"there is no run folder or weights file {path}")
        return path
    for name in (WEIGHTS, BACKBONE):
        if (path / name).exists():
            return path / name
    raise UserError(f"{path} holds no {WEIGHTS}; give the folder of a run whose training has ended, or a weights file")


def _configuration(header: dict[str, Any], file: Path) -> Trainable:
    values = header.get("config")
    if not isinstance(values, dict):
        raise UserError(f"the header of {file} does not say the configuration of its model")
    learning = str(values.get("learning"))
    if learning not in CONFIGURATIONS:
        raise UserError(f"{file} has the unknown learning {learning!r}{nearest(learning, CONFIGURATIONS)}")
    experiment = CONFIGURATIONS[learning].from_json(values)
    if experiment.digest() != header.get("digest"):
        raise UserError(f"the header of {file} was altered: its digest is not that of its configuration")
    return experiment


def _kept_sampler(experiment: Trainable, header: dict[str, Any]) -> Sampler | None:
    if "sampler" in header:
        return Sampler.from_json(header["sampler"])
    chain = experiment.prior_sampling_chain()
    return None if chain is None else Sampler(chain)


def _backbone_of(file: Path, given: Path | None) -> NVAE:
    """Load the frozen backbone that energies were learned on, from the given file or the one beside them."""
    path = file.with_name(BACKBONE) if given is None else given
    if given is None and not path.exists():
        raise UserError(
            f"{file} holds energies without their backbone, as earlier versions wrote them; put the {BACKBONE} that "
            "they were learned on beside them or give its path, or run their recipe's command again, which writes the "
            "whole model and does not train again"
        )
    network, noted = load_nvae(path), file.with_name(BACKBONE_DIGEST)
    if noted.exists() and noted.read_text().strip() != digest_of(network):
        raise UserError(f"the energies in {file} were learned on another backbone than {path}")
    return _frozen(network)


def _frozen(network: NVAE) -> NVAE:
    # Channels-last as in stage one: convolutions are then normalised to the same bits.
    return frozen_copy(network.to(memory_format=torch.channels_last))
