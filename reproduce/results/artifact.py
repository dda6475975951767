"""Artifacts: npz files with the arrays of a figure and the run that made them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jlebm.archives import Damaged
from jlebm.errors import UserError
from jlebm.files import atomic_write, open_regular
from jlebm.npz import read_arrays
from reproduce.results.measurement import Measurement

LARGEST = 2**28  # bytes of all arrays of an artifact; a figure's have a few million
RUN = ("protocol", "dataset", "preset", "learning", "seed", "config_digest", "commit")


def write_artifact(path: Path, arrays: Mapping[str, np.ndarray], run: Mapping[str, Any]) -> None:
    """Store arrays with the run that made them.

    Args:
        path: `results/artifacts/<name>.npz`.
        arrays: by name; "provenance" is reserved.
        run: at least protocol, dataset, preset, learning, seed, config_digest and commit, as in `Measurement`.

    Raises:
        UserError: `run` lacks one of these, the arrays are larger than an artifact may be, or the disk is full.
    """
    if (size := sum(array.nbytes for array in arrays.values())) > LARGEST:
        raise UserError(f"the arrays of {path} have {size / 1e6:.0f} MB, and an artifact holds {LARGEST / 1e6:.0f} MB")
    for name in RUN:
        if name not in run:
            raise UserError(f"an artifact names the {name!r} of the run that made it")
    provenance = json.dumps({**run, "arrays_digest": _digest(arrays)}, sort_keys=True)
    with atomic_write(path) as file:
        # allow_pickle is named because a dictionary of arrays could also hold an argument's name.
        np.savez_compressed(file, allow_pickle=False, **arrays, provenance=np.array(provenance))


def read_artifact(
    path: Path, names: Sequence[str], measured: Sequence[Measurement]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays of an artifact and its provenance.

    Args:
        path: the npz file.
        names: arrays that it must have.
        measured: all stored rows; of those with the artifact's protocol, dataset, preset, learning and seed, if any,
            one must have its configuration.

    Raises:
        UserError: the file cannot be read, is damaged, lacks an array, was changed since it was written, or has
            another configuration than the stored rows.
    """
    again = "make it again with its recipe"
    with open_regular(path, "artifact") as file:
        try:
            arrays = read_arrays(file, LARGEST)
            run = json.loads(str(arrays.pop("provenance", "")))
        except (Damaged, ValueError, RecursionError) as error:
            reason = error if isinstance(error, Damaged) else "it has no provenance"
            raise UserError(f"{path} is not a whole artifact with its provenance ({reason}); {again}") from error
    kinds = {name: int if name == "seed" else str for name in (*RUN, "arrays_digest")}
    if not isinstance(run, dict) or any(not isinstance(run.get(name), kind) for name, kind in kinds.items()):
        raise UserError(f"{path}: the provenance does not name the run; {again}")
    for name in names:
        if name not in arrays:
            raise UserError(f"{path} has no array {name!r}; {again}")
    if run["arrays_digest"] != _digest(arrays):
        raise UserError(f"{path}: the arrays are not those that its provenance was written for; {again}")
    same = ("protocol", "dataset", "preset", "learning", "seed")
    varied = run.get("variation", {})
    digests = {
        row.config_digest
        for row in measured
        if row.variation == varied and all(getattr(row, name) == run[name] for name in same)
    }
    if digests and run["config_digest"] not in digests:
        raise UserError(
            f"{path} is of configuration {str(run['config_digest'])[:12]}, and the stored rows of {run['dataset']} "
            f"{run['preset']} seed {run['seed']} are of {', '.join(sorted(digest[:12] for digest in digests))}; {again}"
        )
    return arrays, run


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
