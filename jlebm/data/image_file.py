"""Decode one image file and check its format, size and channels.

The content decides the format, never the name: JPEG bytes in a file called `.png` are JPEG.
"""

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from jlebm.errors import UserError

Shape = tuple[int, int, int]  # (height, width, channels)

# Suffixes of images. A file with one of them is read or refused by name, never ignored.
LOSSY_SUFFIXES = (".jfif", ".jpe", ".jpeg", ".jpg", ".webp")
IMAGE_SUFFIXES = tuple(
    sorted((*LOSSY_SUFFIXES, ".apng", ".bmp", ".dib", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff"))
)
OTHER_SUFFIXES = (
    *(".avif", ".exr", ".gif", ".hdr", ".heic", ".heif", ".ico", ".j2k", ".jp2", ".jpx", ".jxl", ".pcx", ".psd"),
    *(".qoi", ".sgi", ".tga"),
)
FORMATS = ("PNG", "BMP", "PPM", "TIFF", "WEBP", "JPEG")  # Pillow's names; no other format is tried
LOSSY_FORMATS = ("JPEG", "MPO")  # an MPO is a JPEG followed by more pictures
LOSSLESS_TIFF = frozenset(
    (
        *("group3", "group4", "lzma", "packbits", "raw", "zstd"),
        *("tiff_adobe_deflate", "tiff_ccitt", "tiff_deflate", "tiff_lzw"),
    )
)
KINDS = {"L": "8-bit grey (1 channel)", "RGB": "8-bit RGB (3 channels)"}  # by Pillow's name of the mode
MODES = {1: "L", 3: "RGB"}  # by the number of channels
LARGEST = 4096 * 4096  # pixels of one image
BITS_PER_SAMPLE = 258  # a TIFF's tag

# Errors that Pillow raises for bytes that are cut short or altered.
UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    zlib.error,
    struct.error,
    Image.DecompressionBombError,
)


def is_hidden(name: str) -> bool:
    """Tell whether a relative path is hidden, or is what macOS leaves in a zip."""
    return any((part.startswith(".") and part not in (".", "..")) or part == "__MACOSX" for part in name.split("/"))


def is_image_name(name: str) -> bool:
    """Tell whether a relative path is an image's by its suffix; hidden files and `__MACOSX/` are not."""
    return name.lower().endswith(IMAGE_SUFFIXES + OTHER_SUFFIXES) and not is_hidden(name)


def decode_image(
    data: bytes, name: str, where: Path, shape: Shape | None = None, lossy: bool = True
) -> UInt8[np.ndarray, "height width channels"]:
    """Decode an image file's bytes to exactly the pixels that it stores.

    Palettes, single bits and full opacity are converted to grey or RGB, which changes no pixel.

    Args:
        data: the file's content.
        name: the file's name, for messages.
        where: the zip or the folder that contains it, for messages.
        shape: the required (height, width, channels); None accepts any 8-bit grey or RGB image.
        lossy: whether lossy formats are accepted, under their own suffixes.

    Raises:
        UserError: the bytes are not a whole image; it is lossy and must not be, or has another format's suffix; or it
            has another size, other channels, transparent pixels, several pictures or 16 bits per channel.
    """
    what = f"{name} in {where}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow raises an error for what it cannot read
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _check_format(image, data, name, where, lossy)
                _check_size(image.size, what, shape)
                deep, mode = _is_deep(image), image.mode
                wanted = list(KINDS) if shape is None else [MODES[shape[2]]]
                pixels = None if deep else _pixels(image, wanted)
    except UnidentifiedImageError as error:
        read = ", ".join(FORMATS)
        raise UserError(f"{what} is not a whole image of a format that is read ({read}); replace the file") from error
    except UNREADABLE as error:
        raise UserError(f"{what} is not a whole image ({error}); replace the file") from error
    if pixels is None:
        found = f"{mode} with 16 bits per channel" if deep else KINDS.get(mode, f"of Pillow's mode {mode}")
        if mode in ("LA", "PA", "RGBA"):
            found += ", with transparent pixels"
        needed = " or ".join(KINDS[mode] for mode in wanted)
        raise UserError(f"{what} is {found} and must be {needed}; convert the images first")
    _check_size((pixels.shape[1], pixels.shape[0]), what, shape)
    return pixels if pixels.ndim == 3 else pixels[:, :, np.newaxis]


def decode_photograph(data: bytes, name: str, where: Path, side: int) -> UInt8[np.ndarray, "side side 3"]:
    """Decode a photograph of any size and format to RGB, cropped and reduced by `central_square`.

    Raises:
        UserError: the bytes are not a whole image, or the image is too large.
    """
    what = f"{name} in {where}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _check_size(image.size, what, None)
                return np.asarray(central_square(image.convert("RGB"), side))
    except UnidentifiedImageError as error:
        raise UserError(f"{what} is not a whole image of a format that is read; replace the database") from error
    except UNREADABLE as error:
        raise UserError(f"{what} is not a whole image ({error})") from error


def central_square(image: Image.Image, side: int) -> Image.Image:
    """Crop an image to its central square and resize that to `side` x `side` pixels (Lanczos)."""
    shorter = min(image.size)
    left, top = (image.width - shorter) // 2, (image.height - shorter) // 2
    square = image.crop((left, top, left + shorter, top + shorter))
    return square.resize((side, side), Image.Resampling.LANCZOS)


def _check_format(image: Image.Image, data: bytes, name: str, where: Path, lossy: bool) -> None:
    found = _lossy_format(image, data)
    if found is not None and not lossy:
        raise UserError(
            f"{name} in {where} is in a lossy format, {found}, which shifts every metric; save the samples as PNG, once"
        )
    if found is not None and not name.lower().endswith(LOSSY_SUFFIXES):
        suffix = Path(name).suffix
        raise UserError(
            f"{name} in {where} is in a lossy format, {found}, under a name in {suffix}, which says otherwise; use a "
            f"lossless copy, or rename it if lossy pixels are meant"
        )
    if getattr(image, "n_frames", 1) > 1:
        raise UserError(f"{name} in {where} holds several pictures; save each as a file of its own")


def _lossy_format(image: Image.Image, data: bytes) -> str | None:
    """Return the name of an image's lossy format; None if its pixels are stored exactly."""
    if image.format in LOSSY_FORMATS:
        return "JPEG"
    if image.format == "WEBP" and not _is_lossless_webp(data):
        return "lossy WebP"
    if image.format == "TIFF" and image.info.get("compression") not in LOSSLESS_TIFF:
        return "TIFF with lossy compression"
    return None


def _is_lossless_webp(data: bytes) -> bool:
    """Tell whether a WebP is lossless: look for the lossless chunk after the 12 bytes of the header."""
    start = 12
    while start + 8 <= len(data):
        kind, size = data[start : start + 4], int.from_bytes(data[start + 4 : start + 8], "little")
        if kind in (b"VP8L", b"VP8 "):
            return kind == b"VP8L"
        start += 8 + size + size % 2
    return False


def _check_size(size: tuple[int, int], what: str, shape: Shape | None) -> None:
    width, height = size
    if shape is not None and (height, width) != shape[:2]:
        raise UserError(
            f"{what} is {height} x {width} pixels (height x width) and must be "
            f"{shape[0]} x {shape[1]}; crop or resize the images first"
        )
    if width * height > LARGEST:
        raise UserError(f"{what} is {height} x {width} pixels, more than the 4096 x 4096 that are read of one image")


def _is_deep(image: Image.Image) -> bool:
    """Tell whether a file stores other levels than 0 to 255, which Pillow rescales silently."""
    if image.format == "TIFF":
        bits = image.tag_v2.get(BITS_PER_SAMPLE, (1,))  # pyright: ignore[reportAttributeAccessIssue]
        return any(bit > 8 for bit in (bits if isinstance(bits, tuple) else (bits,)))
    for _, _, _, raw in getattr(image, "tile", ()):
        if isinstance(raw, str) and "16" in raw and image.format == "PNG":
            return True
        # Pillow stretches a PPM whose largest level is not 255.
        if image.format == "PPM" and isinstance(raw, tuple) and raw[1] != 255 and image.mode != "1":
            return True
    return False


def _pixels(image: Image.Image, wanted: list[str]) -> np.ndarray | None:
    """Convert the pixels to one of the wanted modes; None if that would change or invent a pixel."""
    if image.has_transparency_data:
        if image.convert("RGBA").getchannel("A").getextrema()[0] < 255:  # pyright: ignore[reportOperatorIssue]
            return None
        image = image.convert({"LA": "L", "L": "L", "1": "L"}.get(image.mode, "RGB"))
    elif image.mode == "P":
        image = image.convert("RGB")
        if "RGB" not in wanted:
            colours = np.asarray(image)
            grey = bool((colours == colours[..., :1]).all())
            return colours[..., 0] if grey else None
    elif image.mode == "1":
        image = image.convert("L")
    return np.asarray(image) if image.mode in wanted else None
