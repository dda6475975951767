"""Read EDM's `dataset.json`, which gives the class of each image."""

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

BYTES_PER_IMAGE = 2**10  # size limit of a dataset.json per image, beside a fixed part; 25 numbers take half of it
FIRST_BYTES = 2**16
MOST_BYTES = 2**26
LARGEST_CLASS = 2**63 - 1


class Labels(Enum):
    """What the labels beside images are used for."""

    NEEDED = "classes"  # anything except class numbers is refused
    WELCOME = "classes, if they are"  # vectors and fractions are ignored
    UNUSED = "nothing"  # the file is not even read


def labels_of(
    listing: Listing[Place], wanted: Labels, read: Callable[[Place, int], bytes]
) -> Int64[np.ndarray, " count"] | None:
    """Read the labels beside images, at the top or beside the images' own top folder.

    Args:
        listing: listing of the zip or folder, which notes what is not read.
        wanted: what the labels are used for.
        read: reads a file of at most the given number of bytes.

    Returns:
        The class of each image in order; None if there are no labels or they are not used.

    Raises:
        UserError: there are several such files, or as `parse_labels`.
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
    """Read a `dataset.json`: {"labels": [[name, class], ...]}, or null instead of the list.

    Args:
        text: content of the file.
        names: names of the images in order; each must have exactly one label.
        where: the zip or the folder, for messages.
        file: the file's name in it; image names are relative to its folder or to the top.
        left_out: counts labels that are not class numbers; None refuses them.

    Raises:
        UserError: the file is invalid, names an image that does not exist, or lacks one.
    """
    what = f"{file} in {where}"
    try:
        content: Any = json.loads(text)
    except RecursionError as error:
        raise UserError(f"{what} is nested too deeply to be one; write it again, or remove it") from error
    except ValueError as error:
        raise UserError(f"{what} is not valid JSON ({error}); write it again, or remove it") from error
    pairs = content.get("labels") if isinstance(content, dict) else content
    if pairs is None:
        return None
    if not isinstance(pairs, list) or not all(map(_is_pair, pairs)):
        raise UserError(_form(what))
    if not all(type(number) is int for _, number in pairs):
        if left_out is None:
            raise UserError(_form(what))
        left_out["labels that are not class numbers"] += len(pairs)
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
    """Return the image name of a label, which may be relative to the folder of the labels."""
    name = plain_name(name)
    below = posixpath.join(top, name)
    return below if below in present else name


def _is_pair(pair: object) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)


def _form(what: str) -> str:
    return f'{what} must be {{"labels": [[file name, class number], ...]}}, or null for the labels'
