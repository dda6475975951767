"""Files of weights that claim more than they hold: refused from their headers, in little memory and little time."""

import json
import subprocess
import sys

import pytest

LARGEST_PEAK, LONGEST = 2**30, 5.0  # bytes and seconds of any of them

# Two processes: what it takes to write such files is no part of the peak of reading them.
WRITE = """
import dataclasses, io, json, pickle, sys, zipfile
from argparse import Namespace
from pathlib import Path
import numpy as np, torch
from jlebm.backbones.nvae import NVAE, NVAEConfig

folder = Path(sys.argv[1])
CONFIG = NVAEConfig(16, 4, 4, 1, 2, 3, num_preprocess_blocks=1, num_postprocess_blocks=1)
SIZES = {name: size for name, size in dataclasses.asdict(CONFIG).items() if not name.startswith("image_")}
network = NVAE(CONFIG)
files = {}

def published(name, state=None, dataset="pictures_16", **sizes):
    state = network.state_dict() if state is None else state
    torch.save({"state_dict": state, "args": Namespace(**{**SIZES, **sizes}, dataset=dataset)}, folder / name)
    files[name] = "published"

published("groups.pt", num_groups_per_scale=10**6)
published("groups-and-scales.pt", num_groups_per_scale=10**18, num_latent_scales=3)
published("scales.pt", num_latent_scales=10**9)
published("blocks.pt", num_preprocess_blocks=10**9, num_postprocess_blocks=10**9)
published("cells.pt", num_preprocess_cells=10**8, num_cell_per_cond_dec=10**8)
published("flows.pt", num_nf=10**9)
published("mixture.pt", num_mixture_dec=10**12)
published("latents.pt", num_latent_per_group=10**10)
published("channels.pt", num_channels_enc=10**9, num_channels_dec=10**9)
published("channels-that-overflow.pt", num_channels_enc=10**30)
published("pixels.pt", dataset="pictures_98304")
published("digits.pt", dataset="pictures_" + "9" * 5000)
one = torch.zeros(())
wide = NVAEConfig.of({**SIZES, "image_size": 16, "num_channels_enc": 40000, "num_channels_dec": 40000})
with torch.device("meta"):
    shapes = {name: tuple(value.shape) for name, value in NVAE(wide).state_dict().items()}
published("expanded.pt", {name: one.expand(shape) for name, shape in shapes.items()},
          num_channels_enc=40000, num_channels_dec=40000)

def own(name, sizes, rest=0):
    about = json.dumps({"nvae": sizes})
    header = json.dumps({"__metadata__": {"jlebm": about},
                         "a": {"dtype": "F32", "shape": [rest // 4], "data_offsets": [0, rest]}}).encode()
    with (folder / name).open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + rest)  # a file with a hole: it takes no space, and reading it would
    files[name] = "published"

own("groups.safetensors", dataclasses.asdict(CONFIG) | {"num_groups_per_scale": 10**6})
own("hole.safetensors", dataclasses.asdict(CONFIG), 2**35)

def safetensors(name, length, header):
    (folder / name).write_bytes(length.to_bytes(8, "little") + header)
    files[name] = "weights"

safetensors("header.safetensors", 2**62, b"{}")
huge = b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}'
safetensors("shape.safetensors", len(huge), huge)

def archive(name, members, kind=zipfile.ZIP_STORED, read="checkpoint"):
    with zipfile.ZipFile(folder / name, "w", kind, compresslevel=1) as file:
        for inside, content in members.items():
            with file.open(inside, "w") as handle:
                for piece in content:
                    handle.write(piece)
    files[name] = read

zeros = [bytes(2**20)] * 1100
archive("packed.pt", {"x/data.pkl": zeros, "x/version": [b"3"]}, zipfile.ZIP_DEFLATED)
files["packed-nvae.pt"] = "published"
(folder / "packed-nvae.pt").write_bytes((folder / "packed.pt").read_bytes())
files["packed-inception.pt"] = "extractor"
(folder / "packed-inception.pt").write_bytes((folder / "packed.pt").read_bytes())
archive("bytes.pt", {"x/data.pkl": [b"\\x80\\x02c__builtin__\\nbytearray\\nJ\\xff\\xff\\xff\\x7f\\x85R."]})
archive("bytes3.pt", {"x/data.pkl": [b"\\x80\\x02cbuiltins\\nbytearray\\nJ\\xff\\xff\\xff\\x7f\\x85R."]})
archive("dictionaries.pt", {"x/data.pkl": [b"\\x80\\x02" + b"}" * 20_000_000 + b"."]})
archive("members.pt", {f"x/{number}": [] for number in range(70_000)})

def altered(name, numel, size):
    # a pickle that says how many numbers a tensor has, and of which shape
    text = io.BytesIO(); torch.save({"a": torch.zeros(2**20 + 3)}, text)
    with zipfile.ZipFile(text) as whole:
        content = {inside: whole.read(inside) for inside in whole.namelist()}
    key = next(inside for inside in content if inside.endswith("data.pkl"))
    count = (2**20 + 3).to_bytes(4, "little")
    parts = content[key].split(b"J" + count)
    assert len(parts) == 3, len(parts)
    number = lambda value: b"\\x8a\\x08" + value.to_bytes(8, "little")
    content[key] = parts[0] + number(numel) + parts[1] + number(size) + parts[2]
    archive(name, {inside: [value] for inside, value in content.items()})

altered("numel.pt", 10**12, 10**12)
altered("size.pt", 2**20 + 3, 10**12)
legacy = io.BytesIO(); torch.save({"a": torch.zeros(2**20 + 3)}, legacy, _use_new_zipfile_serialization=False)
count = b"J" + (2**20 + 3).to_bytes(4, "little")
(folder / "legacy.pt").write_bytes(legacy.getvalue().replace(count, b"\\x8a\\x08" + (10**13).to_bytes(8, "little")))
files["legacy.pt"] = "published"

archive("packed.npz", {"energy.npy": zeros}, zipfile.ZIP_DEFLATED, "arrays")
header = io.BytesIO(); np.lib.format.write_array_header_1_0(
    header, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)})
archive("shape.npz", {"energy.npy": [header.getvalue(), bytes(800)]}, zipfile.ZIP_DEFLATED, "arrays")
understated = bytearray((folder / "packed.npz").read_bytes())
at = understated.rindex(b"PK\\x01\\x02")
understated[at + 24 : at + 28] = (1000).to_bytes(4, "little")
(folder / "understated.npz").write_bytes(understated)
files["understated.npz"] = "arrays"

print(json.dumps(files))
"""

# Prints a line for each file: name, seconds, peak in bytes, sentence.
READ = """
import json, resource, sys, time
from pathlib import Path
from jlebm import checkpoints
from jlebm.backbones.nvae import load_nvae
from jlebm.errors import UserError
from jlebm.evaluation import open_extractor
from reproduce.results import read_artifact

READERS = {
    "arrays": lambda path: read_artifact(path, (), []),
    "checkpoint": lambda path: checkpoints.load(path, "digest", 1),
    "extractor": open_extractor,
    "published": load_nvae,
    "weights": checkpoints.load_weights,
}

def largest():
    # Of this program alone: what getrusage says begins with the memory of the process that started it.
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM:"))

for name, kind in json.loads(sys.argv[2]).items():
    start = time.monotonic()
    try:
        READERS[kind](Path(sys.argv[1]) / name)
        said = None
    except UserError as error:
        said = str(error)
    peak = largest() * 1024
    print(json.dumps([name, time.monotonic() - start, peak, said]))
"""


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, float, int, str | None]]:
    folder = tmp_path_factory.mktemp("bombs")
    files = printed(WRITE, str(folder))
    return [tuple(json.loads(line)) for line in printed(READ, str(folder), files).splitlines()]


def printed(script: str, *arguments: str) -> str:
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=140)
    assert not done.returncode, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_what_claims_more_than_it_holds_is_refused(tried: list[tuple[str, float, int, str | None]]) -> None:
    """Breaks if a size is believed before it is compared: with the file, with the tensors, with what there is room for.

    Every file is refused with a sentence, in the time and the memory that a small file takes.
    """
    assert len(tried) > 25
    for name, seconds, peak, sentence in tried:
        assert sentence is not None, f"{name} was read"
        assert seconds < LONGEST, f"{name} took {seconds:.1f} seconds"
        assert peak < LARGEST_PEAK, f"{name} took the memory to {peak / 1e6:.0f} MB"
        assert name in sentence
        assert len(sentence) < 600
