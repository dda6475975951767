"""Read files of `torch.save` after checking their bytes and scanning their pickle.

torch's own reader executes nothing, but it trusts the file: it compares no CRC-32, and it lets a pickle build arrays of
any size. Here a pickle builds tensors and plain values alone.
"""

import io
import itertools
import pickle
import pickletools
import re
import struct
import warnings
from argparse import Namespace
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from jlebm.archives import MAGIC, Archive, Damaged, Readable, open_archive, safe_name

PROTOCOL = 2  # pickle protocol of torch.save
LEGACY_PICKLES = 5  # before the tensors' bytes: a mark, a version, a machine, the content, the tensors' keys
LARGEST_PICKLE = 2**25  # bytes; a deep hierarchy with its optimiser and its average has 3 MB
MOST_OPERATIONS = 2**21  # each makes an object; such a hierarchy has 600,000
# Errors that torch's reader raises for a damaged or hostile pickle.
UNREADABLE = (
    pickle.UnpicklingError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
PLAIN = re.compile(
    r"torch\._utils _rebuild_(tensor|tensor_v2|parameter)"
    r"|torch(\.cuda)? (Double|Float|Half|BFloat16|Long|Int|Short|Char|Byte|Bool)Storage"
    r"|torch (Size|float64|float32|float16|bfloat16|int64|int32|int16|int8|uint8|bool)"
    r"|torch\.nn\.parameter Parameter|collections OrderedDict|_codecs encode"
)
NUMPY_NUMBER = re.compile(r"[biuf][1248]")


class _NumpyType:
    """Stands for numpy's dtype in a pickled scalar; numpy's own would build types of any size."""

    def __init__(self, code: str, *_: object):
        self.code, self.order = code, "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = ">" if state[1] == ">" else "<"


def _number(kind: _NumpyType, content: bytes) -> bool | int | float:
    if not isinstance(kind.code, str) or not NUMPY_NUMBER.fullmatch(kind.code):
        raise ValueError("a numpy scalar that is not a number")
    return np.frombuffer(content, kind.order + kind.code, count=1)[0].item()


def _joined(*parts: str) -> str:
    return "/".join(parts).replace("//", "/")


# Further names in pickled `args`: each stands for a plain value.
INSTEAD: Mapping[str, Any] = {
    "argparse.Namespace": Namespace,
    "numpy.dtype": _NumpyType,
    "numpy.core.multiarray.scalar": _number,
    "numpy._core.multiarray.scalar": _number,
    **{
        f"{module}.{kind}Path": _joined
        for module in ("pathlib", "pathlib._local")
        for kind in ("", "Pure", "Posix", "PurePosix", "Windows", "PureWindows")
    },
}


def read(file: Readable, annotated: bool = False, unchecked: bool = False) -> Any:
    """Read a file of `torch.save` onto the CPU without executing anything in it.

    Every byte of a zip file is checked against the CRC-32, the sizes and the names that the file contains: one flipped
    bit is noticed. The format before torch 1.6 has no checksums: a bit that flips in it is not noticed, so that it is
    read only where other people's files may have it.

    Args:
        file: opened for reading in binary, with a descriptor; it stays open.
        annotated: whether `argparse.Namespace`, paths and numpy scalars are allowed; the latter two are returned as
            strings and as Python numbers.
        unchecked: whether the format before torch 1.6 is read too.

    Raises:
        Damaged: the file is not whole, or of the format before torch 1.6 and not `unchecked`, or holds something other
            than tensors and plain values.
    """
    file.seek(0)
    head = file.read(len(MAGIC))
    if head == MAGIC:
        archive = open_archive(file)
        _look_through(_pickle_of(archive), 1, annotated)
    elif head[:2] == bytes((0x80, PROTOCOL)):
        if not unchecked:
            raise Damaged("it is of the format before torch 1.6, whose bytes no checksum guards")
        file.seek(0)
        _look_through(file.read(LARGEST_PICKLE), LEGACY_PICKLES, annotated)
    else:
        raise Damaged("it is not a file written by torch.save" if head else "it is empty")
    file.seek(0)
    allowed: list[Any] = [(stand_in, name) for name, stand_in in INSTEAD.items()] if annotated else []
    try:
        with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals(allowed):
            return torch.load(file, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise Damaged("its pickle and its tensors do not belong together") from error


def _pickle_of(archive: Archive) -> bytes:
    sizes = archive.sizes
    tops = {name.partition("/")[0] for name in sizes}
    if len(tops) != 1 or (name := f"{tops.pop()}/data.pkl") not in sizes:
        raise Damaged("it is not an archive written by torch.save")
    if sizes[name] > LARGEST_PICKLE:
        raise Damaged(f"its pickle has {sizes[name] / 1e6:.0f} MB, and at most {LARGEST_PICKLE / 1e6:.0f} MB are read")
    return archive.read(name)


def _look_through(content: bytes, pickles: int, annotated: bool) -> None:
    """Scan a pickle's operations without executing them.

    Raises:
        Damaged: an operation names something other than a tensor or a plain value, or the bytes are not a pickle.
    """
    stream = io.BytesIO(content)
    with warnings.catch_warnings(action="ignore"):  # about escapes in texts
        _refuse_others(stream, pickles, annotated)


def _refuse_others(stream: io.BytesIO, pickles: int, annotated: bool) -> None:
    try:
        operations = itertools.chain.from_iterable(_operations(stream) for _ in range(pickles))
        for count, (name, argument) in enumerate(operations):
            if name == "PROTO" and argument != PROTOCOL:
                raise Damaged(f"its pickle has protocol {argument}; only torch.save's own, {PROTOCOL}, is read")
            if name in ("GLOBAL", "INST", "STACK_GLOBAL") and not _is_plain(str(argument), annotated):
                raise Damaged(f"it names {safe_name(str(argument).replace(' ', '.'))}")
            if count > MOST_OPERATIONS:
                raise Damaged(f"its pickle makes more than {MOST_OPERATIONS} objects")
    except UNREADABLE as error:
        if isinstance(error, Damaged):
            raise
        raise Damaged("its pickle is damaged") from error


def _operations(stream: io.BytesIO) -> Iterator[tuple[str, Any]]:
    return ((operation.name, argument) for operation, argument, _ in pickletools.genops(stream))


def _is_plain(name: str, annotated: bool) -> bool:
    return PLAIN.fullmatch(name) is not None or (annotated and name.replace(" ", ".") in INSTEAD)
