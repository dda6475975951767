"""EDM's `dataset.json`: which image is of which class."""

import json
import posixpath
from collections import Counter
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from jlebm.data.listing import LABELS_FILE, Listing, Place, plain_name
from jlebm.errors import UserError

BYTES_PER_IMAGE = 2**10  # of a dataset.json at most, beside the first ones; a vector of 25 numbers has half as many
FIRST_BYTES = 2**16
MOST_BYTES = 2**26
LARGEST_CLASS = 2**63 - 1


class Labels(Enum):
    """What the labels beside images are wanted for."""

    NEEDED = "classes"  # anything but class numbers is refused
    WELCOME = "classes, if they are"  # vectors and fractions are left out
    UNUSED = "nothing"  # the file is not even read


def labels_of(
    listing: Listing[Place], wanted: Labels, read: Callable[[Place, int], bytes]
) -> Int64[np.ndarray, " count"] | None:
    """Read the labels that lie beside images, at the top or beside the images' own top folder.

    Args:
        listing: of the zip or folder; what is not read is noted there.
        wanted: what for.
        read: reads a file of at most so many bytes.

    Returns:
        The class of each image in order; None where there are none or they are not wanted.

    Raises:
        UserError: there are several such files, or as `parse_labels` raises.
    """
    if not listing.labels or wanted is Labels.UNUSED:
        listing.left_out.update(
            {f"{LABELS_FILE} (no labels are needed)": len(listing.labels)} if listing.labels else {}
        )
        return None
    first, *others = sorted(listing.labels)
    if others:
        raise UserError(f"{listing.where} holds {first} and {others[0]}; keep the one that is meant")
    limit = min(FIRST_BYTES + BYTES_PER_IMAGE * len(listing.images), MOST_BYTES)
    text = read(listing.labels[first], limit)
    noted = listing.left_out if wanted is Labels.WELCOME else None
    return parse_labels(text, list(listing.images), listing.where, first, noted)


def parse_labels(
    text: bytes,
    names: Sequence[str],
    where: Path,
    file: str = LABELS_FILE,
    left_out: Counter[str] | None = None,
) -> Int64[np.ndarray, " count"] | None:
    """Read a `dataset.json`: {"labels": [[name, class], ...]}, or null where there are none.

    Args:
        text: the content of the file.
        names: the images in order; each must have exactly one label.
        where: the zip or the folder, for messages.
        file: the file's name in it; the images are named from its folder or from the top.
        left_out: labels that are no class numbers are noted there; None refuses them.

    Raises:
        UserError: it is not such a file, names an image that is not there, or leaves one out.
    """
    what = f"{file} in {where}"
    try:
        content: Any = json.loads(text)
    except RecursionError as error:
        raise UserError(f"{what} is nested too deeply to be one; make it anew, or remove it") from error
    except ValueError as error:
        raise UserError(f"{what} is not valid JSON ({error}); make it anew, or remove it") from error
    pairs = content.get("labels") if isinstance(content, dict) else content
    if pairs is None:
        return None
    if not isinstance(pairs, list) or not all(map(_is_pair, pairs)):
        raise UserError(_form(what))
    if not all(type(number) is int for _, number in pairs):
        if left_out is None:
            raise UserError(_form(what))
        left_out["labels that are no class numbers"] += len(pairs)
        return None
    top = posixpath.dirname(file)
    present = set(names)
    classes = {_found(name, top, present): number for name, number in pairs}
    missing = sorted(classes.keys() - present)
    if missing:
        raise UserError(f"{what} names {missing[0]!r}, which is not there; restore it or remove its entry")
    if len(pairs) != len(names) or len(classes) != len(names):
        raise UserError(f"{what} has {len(pairs)} labels for {len(names)} images; each must have exactly one")
    if not all(-LARGEST_CLASS <= number <= LARGEST_CLASS for number in classes.values()):
        raise UserError(f"{what} has a class number of more than 64 bits; number the classes from 0")
    return np.array([classes[name] for name in names], np.int64)


def _found(name: str, top: str, present: set[str]) -> str:
    """Write a label's name as its image's; images may be named from the folder of the labels."""
    name = plain_name(name)
    below = posixpath.join(top, name)
    return below if below in present else name


def _is_pair(pair: object) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)


def _form(what: str) -> str:
    return f'{what} must be {{"labels": [[file name, class number], ...]}}, or null for the labels'
