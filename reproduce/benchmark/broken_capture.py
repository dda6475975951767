"""A recording that cannot be made, in a process of its own: the chain must be right, and the process still usable.

python -m reproduce.benchmark.broken_capture [--pretend]
"""

import sys
import warnings

import torch

from jlebm import langevin
from jlebm.backbones.conv import ConvBackbone
from jlebm.engines import graphs
from jlebm.latents import Latents
from reproduce.benchmark.device_checks import CHAIN, VECTORS, JointModel, mlp_energy, noise, prior

USABLE = "usable"


class Unrecordable(ConvBackbone):
    """A generator that reads a number on the host at each step, which no recording can repeat."""

    recordable = True

    def mlp_hierarchy(self) -> None:
        """Read a number on the host, then return None: no closed form."""
        float(next(self.parameters()).detach().sum())


def main(pretend: bool) -> None:
    """Break a recording, and use the device after it.

    Raises:
        AssertionError: there is no warning, or a chain is wrong.
    """
    if pretend:
        from tests import tape  # a CPU's stand-in for CUDA graphs, of the checkout

        graphs.recorder = lambda device: tape.record
    device = torch.device("cpu" if pretend else "cuda")
    torch.manual_seed(0)
    model = JointModel(Unrecordable(VECTORS), mlp_energy((3, 4), ((6,), (6, 6)))).to(device)

    def run() -> Latents:
        return langevin.run(model.noise(3, noise(1)), prior(model), CHAIN, noise(2))

    with graphs.step_by_step():
        right = run()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        found = run()
    assert any("step by step" in str(each.message) for each in seen), [str(each.message) for each in seen]
    assert all(torch.allclose(a, b) for a, b in zip(found, right, strict=True))
    if not pretend:
        torch.cuda.empty_cache()
        torch.randn(10, device=device)
        free, _ = torch.cuda.mem_get_info()
        large = torch.empty(int(free * 0.6), dtype=torch.uint8, device=device)
        del large
        torch.cuda.empty_cache()
        torch.cuda.synchronize()
    assert all(torch.allclose(a, b) for a, b in zip(run(), right, strict=True))
    sys.stdout.write(f"{USABLE}\n")


if __name__ == "__main__":
    main("--pretend" in sys.argv)
