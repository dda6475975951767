"""What `pip install jlebm` promises, run where the method alone is installed; prints "bare" at the end.

Its name keeps pytest from collecting it: `nox -s wheel` runs it in an environment made for it, and
tests/test_packaging.py runs it with the suite's packages hidden.
"""

import importlib
import pkgutil
import sys
from importlib.resources import files

import torch

import jlebm
from jlebm.backbones.conv import ConvBackbone, ConvConfig
from jlebm.energies import mlp_energy
from jlebm.images import to_uint8
from jlebm.langevin import Chain
from jlebm.model import JointModel
from jlebm.randomness import PerImageNoise

SUITES_OWN = ("tyro", "rich", "matplotlib", "pandas", "reproduce", "figures")


def refuse_the_suite() -> None:
    """Raise if a package of the suite can be imported here."""
    for name in SUITES_OWN:
        try:
            importlib.import_module(name)
        except ImportError:
            continue
        raise AssertionError(f"{name} can be imported: this is no bare environment")


def sample() -> torch.Tensor:
    """Sample eight latents of two layers from a joint prior without training, image i from seed i."""
    backbone = ConvBackbone(
        ConvConfig(image_shape=(1, 8, 8), latent_dims=(2, 3), channels=(4,), conditional_hidden=(4,))
    )
    model = JointModel(backbone, mlp_energy(dims=(2, 3), hidden=((4,), (4,))))
    z = model.sample_prior(8, Chain.from_joint_paper(steps=2, s=0.3), PerImageNoise("sample", range(8)))
    return to_uint8(backbone.decode(z).mean.detach())


refuse_the_suite()
for module in pkgutil.walk_packages(jlebm.__path__, "jlebm."):
    importlib.import_module(module.name)
assert files("jlebm").joinpath("py.typed").is_file(), "the wheel leaves out py.typed"
torch.manual_seed(0)
assert sample().shape == (8, 1, 8, 8)
sys.stdout.write("bare\n")
