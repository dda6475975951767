"""Weights and backbones that the repository keeps: still read, and sampled as they were."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

import jlebm
from jlebm import checkpoints
from jlebm.backbones.nvae import load_nvae
from jlebm.errors import UserError

ARTIFACTS = Path(__file__).resolve().parents[2] / "results" / "artifacts"


def test_weights_from_before_the_digest_are_read() -> None:
    """Breaks if the committed weights can no longer be read."""
    tensors, header = checkpoints.load_weights(ARTIFACTS / "cifar10_joint_mle_cpu_weights.safetensors")
    assert tensors
    assert header["config"]
    assert load_nvae(ARTIFACTS / "cifar10_two_stage_cpu_backbone.safetensors").config.image_size == 32


def test_a_header_of_an_earlier_version() -> None:
    """Breaks if a weights file without a sampler, the kept one or a run's, cannot be loaded any more."""
    kept = jlebm.load(ARTIFACTS / "cifar10_joint_mle_cpu_weights.safetensors")
    assert kept.sampler is not None
    assert kept.sampler.chain == kept.experiment.prior_chain
    with np.load(ARTIFACTS / "cifar10_joint_mle_cpu_samples.npz") as stored:
        for name, prior in (("ebm_prior", "ebm-prior"), ("gaussian_prior", "gaussian-prior")):
            difference = np.abs(kept.sample(range(8), prior).astype(int) - stored[name][:8])
            assert difference.max() <= 1, "another machine and another batch may round otherwise"
            assert (difference > 0).mean() < 1e-3


def test_the_weights_of_an_hour() -> None:
    """Breaks if the claim's weights cannot be loaded, or their chains lose what they were trained with."""
    kept = jlebm.load(ARTIFACTS / "cifar10_two_stage_long_weights.safetensors")
    assert kept.sampler is not None
    chain = kept.sampler.chain
    assert (chain.steps, chain.metropolis, chain.discretisation, chain.sizes) == (60, True, "crank-nicolson", "adapted")
    sizes = kept.model.energy.step_sizes
    assert sizes is not None
    assert ((sizes > 0.05) & (sizes < 0.3)).all()
    assert kept.sample(range(2), chain=dataclasses.replace(chain, steps=2)).shape == (2, 3, 32, 32)


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("cifar10_two_stage_long_path", 32),
        ("cifar10_two_stage_long_chains", 32),
        ("celeba64_two_stage_long_chains", 64),
    ],
)
def test_weights_in_half_precision(name: str, side: int) -> None:
    """Breaks if the energies that see the layers above cannot be loaded from a rounded file, or a run's digest is lost.

    Such a file is read as float32, whose values are those of half precision.
    """
    path = ARTIFACTS / f"{name}_weights.safetensors"
    tensors, header = checkpoints.load_weights(path)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert all(torch.equal(tensor, tensor.half().float()) for tensor in tensors.values())
    assert path.stat().st_size < 2.2 * sum(tensor.numel() for tensor in tensors.values())
    kept = jlebm.load(path)
    assert kept.experiment.digest() == header["digest"]
    assert kept.sampler is not None
    images = kept.sample(range(2), chain=dataclasses.replace(kept.sampler.chain, steps=2))
    assert images.shape == (2, 3, side, side)
    assert not (images == kept.sample(range(2), "gaussian-prior")).all()


def test_every_kept_file_is_listed_with_its_digest() -> None:
    """Breaks if a file of weights had no line in the documentation, or a line named another configuration."""
    lines = (ARTIFACTS.parents[1] / "docs" / "library.md").read_text().splitlines()
    for path in ARTIFACTS.glob("*.safetensors"):
        (line,) = [line for line in lines if line.startswith(f"| `{path.name}`")]
        digest = "-" if path.name.endswith("_backbone.safetensors") else checkpoints.load_weights(path)[1]["digest"]
        assert line.split(" | ")[-1].strip(" |`") == digest[:10]


def test_a_kept_backbone_has_no_energies() -> None:
    """Breaks if the Gaussian hierarchy is sampled by a chain that nothing pulls, or cannot be loaded."""
    loaded = jlebm.load(ARTIFACTS / "cifar10_two_stage_cpu_backbone.safetensors")
    assert loaded.sample(range(2), "gaussian-prior").shape == (2, 3, 32, 32)
    assert loaded.reconstruct(loaded.sample([0], "gaussian-prior")).shape == (1, 3, 32, 32)
    with pytest.raises(UserError, match="no energies, and so no EBM prior"):
        loaded.sample(range(2))
