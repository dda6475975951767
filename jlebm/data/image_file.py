"""One image file: is it one by its name, what are its pixels, are they of the kind that is wanted."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jlebm.errors import UserError

Shape = tuple[int, int, int]  # (height, width, channels)

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
KINDS = {"L": "8-bit grey (1 channel)", "RGB": "8-bit RGB (3 channels)"}  # by Pillow's name of the mode
MODES = {1: "L", 3: "RGB"}  # by the number of channels

PNG_DEPTH = 24  # where a PNG's header has the bits of a channel: after signature, length, type, width and height

# What Pillow raises for bytes that are cut short or altered.
UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    zlib.error,
    struct.error,
    Image.DecompressionBombError,
)


def is_image_name(name: str) -> bool:
    """Tell whether a relative path is an image's: by its suffix, leaving out hidden files and `__MACOSX/`."""
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))
    return not hidden and name.lower().endswith(IMAGE_SUFFIXES)


def decode_image(
    data: bytes, name: str, where: Path, shape: Shape | None = None
) -> UInt8[np.ndarray, "height width channels"]:
    """Decode an image file's bytes.

    Args:
        data: the file's content.
        name: the file's name, for messages.
        where: the zip or the folder that it is in, for messages.
        shape: the (height, width, channels) it must have; None takes any 8-bit grey or RGB image.

    Raises:
        UserError: the bytes are no whole image, or it has another size, other channels or 16 bits a channel.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            mode = image.mode
            # Pillow reduces 16-bit RGB to 8 bits without a word, so the file's own header is asked.
            deep = image.format == "PNG" and data[PNG_DEPTH] == 16
            pixels = np.asarray(image)
    except UNREADABLE as error:
        raise UserError(f"{name} in {where} is not a whole image ({error}); replace the file") from error
    wanted = list(KINDS) if shape is None else [MODES[shape[2]]]
    if deep or mode not in wanted:
        found = f"{mode} with 16 bits a channel" if deep else KINDS.get(mode, f"of Pillow's mode {mode}")
        needed = " or ".join(KINDS[mode] for mode in wanted)
        raise UserError(f"{name} in {where} is {found} and must be {needed}; convert the images first")
    if shape is not None and pixels.shape[:2] != shape[:2]:
        height, width = pixels.shape[:2]
        raise UserError(
            f"{name} in {where} is {height} x {width} pixels (height x width) and must be "
            f"{shape[0]} x {shape[1]}; crop or resize the images first"
        )
    return pixels if pixels.ndim == 3 else pixels[:, :, np.newaxis]


def central_square(image: Image.Image, side: int) -> Image.Image:
    """Crop an image to its central square and resize that to `side` x `side` pixels (Lanczos)."""
    shorter = min(image.size)
    left, top = (image.width - shorter) // 2, (image.height - shorter) // 2
    square = image.crop((left, top, left + shorter, top + shorter))
    return square.resize((side, side), Image.Resampling.LANCZOS)
