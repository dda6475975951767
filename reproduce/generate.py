"""Sample images of a trained model into a file: image i from seed i, as its recipe samples them.

    python -m reproduce.generate --run runs/cifar10-joint-mle-cpu-... --seeds 0-49999 --out samples.npz
    python -m reproduce.generate --run weights.safetensors --seeds 0-15 --out samples --prior gaussian-prior
    python -m reproduce.generate --run weights.safetensors --seeds 0-9999 --out samples.zip --set chain.steps=100

The suffix chooses the output: an .npz file (`arr_0`, uint8 (N, C, H, W)), a .zip in StyleGAN's and EDM's layout, or a
folder of PNG files. Memory does not grow with the number of images. A command that was stopped or killed continues
when it is given again; a finished one draws nothing. `reproduce.evaluate --images` reads all three.
"""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jlebm
from jlebm.choices import Prior, Scheme
from jlebm.errors import UserError, exit_on_user_error
from jlebm.files import sha256_of_file
from reproduce.pipelines.image_output import Output, check_format
from reproduce.terminal.console import ConsoleReporter
from reproduce.terminal.parsing import parse

if TYPE_CHECKING:
    from jlebm import TrainedModel

MOST_SEEDS = 10_000_000  # in one command
LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True)
class Arguments:
    """Command-line options of generation: model, seeds, output."""

    run: Path
    """The folder of a finished run, or a weights file."""
    seeds: str
    """Ascending numbers and ranges, such as 0-49999 or 0-9,20,30-39; one image per seed."""
    out: Path
    """NAME.npz, NAME.zip, or NAME for a folder of PNG files."""
    prior: Prior = "ebm-prior"
    """The EBM prior, sampled by the recipe's chain, or the Gaussian prior."""
    noise: Scheme | None = None
    """Scheme of the noise, generator/1 or philox/1 (docs/noise); by default the recipe's."""
    device: str = "auto"
    """auto, cpu, cuda, or cuda:1 for another GPU of several."""
    batch: int | None = None
    """Images drawn at a time; by default the recipe's number, which gives its images to the bit."""
    backbone: Path | None = None
    """The NVAE file that two-stage energies were trained on, if an earlier version stored the energies alone."""
    set: tuple[str, ...] = ()
    """Keys of the sampler to set, such as chain.steps=100 or temperature=0.8."""


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> int:
    """Draw the missing images; return the exit code."""
    arguments = parse(Arguments, argv, __doc__)
    report = ConsoleReporter()
    seeds = parse_seeds(arguments.seeds)
    check_format(arguments.out)
    model = _loaded(arguments)
    size = model.drawn_at_a_time(arguments.batch)
    output = Output(arguments.out, seeds, model.image_shape, _request(arguments, model, seeds, size))
    model.draw([], arguments.prior)  # refuses a prior that the model lacks, before anything is written
    if output.is_there():
        report.line(f"{output.path} holds these {len(seeds)} images already")
        return 0
    with output.held():
        done = output.drawn(size)
        if done:
            report.line(f"continuing after {done} of {len(seeds)} images in {output.partial}")
        batches = model.draw(seeds[done:], arguments.prior, batch_size=size)
        with report.task("generating", len(seeds)) as task:
            task.advance(done)
            for count in output.append(batch.images.cpu().numpy() for batch in batches):
                task.advance(count)
        output.finish()
    report.line(f"{len(seeds)} images are in {output.path}")
    return 0


def parse_seeds(text: str) -> list[int]:
    """Return the seeds of "0-49999" or "0-9,20,30-39".

    Raises:
        UserError: it is no such list, seeds repeat or do not ascend, or there are too many.
    """
    seeds: list[int] = []
    for part in text.replace(" ", "").split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part, re.ASCII)
        if match is None:
            raise UserError(f"--seeds {text!r} is not a list of numbers and ranges such as 0-49999 or 0-9,20,30-39")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or (seeds and first <= seeds[-1]):
            raise UserError(f"--seeds {text!r} must ascend, each seed only once; {part!r} does not")
        if last > LARGEST_SEED:
            raise UserError(f"--seeds {text!r} goes beyond the largest seed, {LARGEST_SEED}")
        if len(seeds) + last - first >= MOST_SEEDS:
            raise UserError(f"--seeds {text!r} asks for more than {MOST_SEEDS} images; draw them in several files")
        seeds.extend(range(first, last + 1))
    return seeds


def _loaded(arguments: Arguments) -> "TrainedModel":
    from jlebm.devices import resolve_device  # here: --help needs no torch

    device = resolve_device(arguments.device)
    model = jlebm.load(arguments.run, device, arguments.backbone)
    changes = [*arguments.set, *([] if arguments.noise is None else [f"noise={arguments.noise}"])]
    if not changes:
        return model
    sampler = model.sampler
    if sampler is None:
        raise UserError(f"{arguments.run} keeps no sampler that --set or --noise could change")
    model.sampler = sampler.override(changes)
    if model.sampler.batch_norm != sampler.batch_norm:
        raise UserError("--set does not change batch_norm, whose statistics are in the weights; leave it out")
    return model


def _request(arguments: Arguments, model: "TrainedModel", seeds: Sequence[int], size: int) -> dict[str, Any]:
    """Return everything that the images depend on."""
    from jlebm.devices import device_class  # here: --help needs no torch
    from jlebm.weights import weights_file

    return {
        "weights": sha256_of_file(weights_file(arguments.run)),
        "backbone": None if arguments.backbone is None else sha256_of_file(arguments.backbone),
        "prior": arguments.prior,
        "sampler": None if model.sampler is None else model.sampler.to_json(),
        "seeds": arguments.seeds.replace(" ", ""),
        "images": len(seeds),
        "shape": list(model.image_shape),
        "batch": size,
        "device": device_class(next(model.model.parameters()).device),
    }


if __name__ == "__main__":
    sys.exit(main())
