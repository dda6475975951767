"""Read numpy's array files (npz) after checking every byte, and sizes against their headers."""

import io
import math
import tokenize
import warnings

import numpy as np

from jlebm.archives import Damaged, Readable, open_archive, safe_name

PLAIN_KINDS = "biufcSU"  # numpy's kinds of numbers and text
MOST_AXES, MOST_PLACES = 32, 2**60  # limits of an array; an empty one could have more places than numpy counts
# Errors that numpy raises for a damaged header.
UNREADABLE = (
    EOFError,
    KeyError,
    MemoryError,
    OverflowError,
    RecursionError,
    SyntaxError,
    TypeError,
    ValueError,
    tokenize.TokenError,
)


def read_arrays(file: Readable, room: int) -> dict[str, np.ndarray]:
    """Return the arrays of an npz file.

    Args:
        file: seekable, from its start; it stays open.
        room: the most bytes that all arrays may have together.

    Raises:
        Damaged: a byte was altered, it is larger than `room`, or something in it is not an array of numbers or text.
    """
    archive = open_archive(file, packed=room)
    if any(not name.endswith(".npy") for name in archive.members):
        raise Damaged("it holds something other than arrays")
    return {name.removesuffix(".npy"): _array(name, archive.read(name)) for name in archive.members}


def _array(name: str, content: bytes) -> np.ndarray:
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):  # version 2.0 is for longer headers, 3.0 for column names in Unicode
            raise Damaged(f"its array {safe_name(name)} is of a format that is not written here")
        with warnings.catch_warnings(action="ignore"):  # a header of Python 2 is damage here
            shape, fortran, kind = np.lib.format.read_array_header_1_0(stream)
    except UNREADABLE as error:
        raise Damaged(f"the header of its array {safe_name(name)} is damaged") from error
    if kind.kind not in PLAIN_KINDS or not kind.itemsize:
        raise Damaged(f"its array {safe_name(name)} holds something other than numbers or text")
    count, largest = math.prod(shape), math.prod(max(side, 1) for side in shape)
    fits = min(shape, default=0) >= 0 and count * kind.itemsize == len(content) - stream.tell()
    if not fits or len(shape) > MOST_AXES or largest > MOST_PLACES:
        raise Damaged(f"its array {safe_name(name)} has another size than its header says")
    flat = np.frombuffer(content, kind, count, stream.tell()) if count else np.zeros(0, kind)
    return flat.reshape(shape, order="F" if fortran else "C").copy()
