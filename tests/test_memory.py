"""Memory does not grow with the number of steps, of samples or of chains' lengths: measured by the operating system."""

import subprocess
import sys
from pathlib import Path

import pytest

resource = pytest.importorskip("resource")

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = 24 * 2**20  # bytes of the allocator's own slack; what would be kept is several times that

# Each job keeps, if it kept everything, much more than ALLOWED: 12,000 images of 3 KB and their latents are 51 MB,
# 3,000 steps of 200 chains in 300 dimensions 720 MB.
JOBS = {
    "sampling": """
        batches = generate(model, "ebm-prior", range(size), Sampler(Chain(1, 0.01)), 200)
        write(Path(folder) / "samples.npy", batches, size)
    """,
    "chains": """
        model.sample_prior(200, Chain(size, 0.001), SharedNoise(torch.Generator().manual_seed(0)))
    """,
    "watched posterior chains": """
        x = torch.zeros(50, 3, 32, 32)
        seen = []
        watch = lambda index, position, info: seen.append(float(info.log_density.mean()))
        model.sample_posterior(x, Chain(size, 0.001), SharedNoise(torch.Generator().manual_seed(0)), watch)
    """,
}
SIZES = {"sampling": (400, 12_000), "chains": (50, 3000), "watched posterior chains": (10, 300)}

SCRIPT = """
import resource, sys, textwrap
from pathlib import Path
import torch
from jlebm.backbones.conv import ConvBackbone, ConvConfig
from jlebm.energies import mlp_energy
from jlebm.langevin import Chain
from jlebm.model import JointModel
from jlebm.randomness import SharedNoise
from jlebm.sampling import Sampler, generate, write

folder, job = sys.argv[1:3]
torch.manual_seed(0)
config = ConvConfig(latent_dims=(150, 150), channels=(8, 8, 8), conditional_hidden=(16,))
model = JointModel(ConvBackbone(config), mlp_energy((150, 150), ((16, 16), (16, 16))))
peaks = []
for size in map(int, sys.argv[3:]):
    exec(textwrap.dedent(job))
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
sys.stdout.write(str(peaks[1] - peaks[0]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS)
def test_memory_is_flat(job: str, tmp_path: Path) -> None:
    """The peak of a process hardly moves from a small job to one 30 to 60 times as large.

    A graph or a list that is kept from step to step, or samples that wait in memory for the file, break it.
    """
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), JOBS[job], *map(str, SIZES[job])]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) < ALLOWED
