import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jlebm.data.image_file import central_square, decode_image, is_image_name
from jlebm.errors import UserError

WHERE = Path("there")


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.png", True),
        ("00000/b.JPG", True),
        ("notes.txt", False),
        ("dataset.json", False),
        ("__MACOSX/._a.png", False),
        (".thumbnails/a.png", False),
    ],
)
def test_what_counts_as_an_image(name: str, expected: bool) -> None:
    """Breaks if notes are decoded, or if a Mac's resource forks spoil a zip that is otherwise sound."""
    assert is_image_name(name) is expected


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_png_is_decoded_exactly(mode: str) -> None:
    """Breaks if decoding changes a pixel or puts an axis elsewhere."""
    shape = (5, 9) if mode == "L" else (5, 9, 3)
    pixels = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    decoded = decode_image(encoded(Image.fromarray(pixels)), "a.png", WHERE)
    np.testing.assert_array_equal(decoded, pixels.reshape(5, 9, -1))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "1", "L", "CMYK"])
def test_other_channels_are_refused_by_name(mode: str) -> None:
    """Breaks if transparency is dropped, or grey is repeated to RGB."""
    kind = "TIFF" if mode == "CMYK" else "PNG"
    image = Image.new("RGB", (8, 8), (200, 10, 90)).convert(mode)
    if mode == "RGBA":
        image.putpixel((3, 3), (200, 10, 90, 254))
    data = encoded(image, kind)
    with pytest.raises(UserError, match=r"a\.png in there is .* and must be 8-bit RGB \(3 channels\)"):
        decode_image(data, "a.png", WHERE, (8, 8, 3))


def test_rgb_is_refused_where_grey_is_expected() -> None:
    """Breaks if a colour copy of a grey dataset is taken."""
    with pytest.raises(UserError, match=r"is 8-bit RGB \(3 channels\) and must be 8-bit grey \(1 channel\)"):
        decode_image(encoded(Image.new("RGB", (8, 8))), "a.png", WHERE, (8, 8, 1))


def test_16_bit_grey_is_refused() -> None:
    """Breaks if 16-bit levels are cut to 8."""
    image = Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000)
    with pytest.raises(UserError, match="with 16 bits per channel"):
        decode_image(encoded(image), "a.png", WHERE)


def test_16_bit_rgb_is_refused() -> None:
    """Breaks if Pillow's silent reduction of 16-bit RGB to 8 bits passes for lossless."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">2I5B", 2, 2, 16, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + bytes(12)) * 2)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    with pytest.raises(UserError, match="RGB with 16 bits per channel"):
        decode_image(data, "a.png", WHERE, (2, 2, 3))


def test_another_size_is_refused_with_both_sizes() -> None:
    """Breaks if an image of another size is taken, or the sentence leaves out what was found or expected."""
    with pytest.raises(UserError, match=r"a\.png in there is 16 x 24 pixels .* must be 32 x 32"):
        decode_image(encoded(Image.new("RGB", (24, 16))), "a.png", WHERE, (32, 32, 3))


@pytest.mark.parametrize("kept", [0, 10, 24, 40, 200, 2000])
def test_a_cut_png_is_refused_wherever_it_is_cut(kept: int) -> None:
    """Breaks if any way in which Pillow fails on a cut file leaves as something else than a sentence."""
    noise = np.random.default_rng(2).integers(0, 256, (32, 32, 3), np.uint8)
    with pytest.raises(UserError, match=r"a\.png in there is not a whole image"):
        decode_image(encoded(Image.fromarray(noise))[:kept], "a.png", WHERE)


def test_central_square() -> None:
    """Breaks if the crop is off centre: the middle third of a striped picture must remain alone."""
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 10:20] = 255
    square = np.asarray(central_square(Image.fromarray(pixels), 4))
    np.testing.assert_array_equal(square, np.full((4, 4, 3), 255))


@pytest.mark.parametrize("mode", ["RGBA", "P", "1", "LA"])
def test_what_is_grey_or_rgb_in_another_form_is_read_exactly(mode: str) -> None:
    """Breaks if an opaque RGBA, a palette or single bits are refused, or change a pixel."""
    pixels = np.random.default_rng(1).integers(0, 256, (6, 9, 3), np.uint8)
    grey = mode in ("1", "LA")
    image = (
        Image.fromarray(pixels).convert("L" if grey else "RGB").quantize(16) if mode == "P" else Image.fromarray(pixels)
    )
    image = image if mode == "P" else image.convert("L" if grey else "RGB").convert(mode)
    expected = np.asarray(image.convert("L" if grey else "RGB")).reshape(6, 9, -1)
    assert mode != "RGBA" or (expected == pixels).all()
    np.testing.assert_array_equal(decode_image(encoded(image), "a.png", WHERE), expected)
    np.testing.assert_array_equal(decode_image(encoded(image), "a.png", WHERE, expected.shape), expected)


def test_a_grey_palette_is_grey_where_grey_is_wanted() -> None:
    """Breaks if an optimiser's palette of greys is refused, or one with a colour is taken for grey."""
    image = Image.new("P", (2, 1))
    image.putpalette([7, 7, 7, 200, 200, 200])
    image.putdata([0, 1])
    np.testing.assert_array_equal(decode_image(encoded(image), "a.png", WHERE, (1, 2, 1))[0, :, 0], [7, 200])
    image.putpalette([7, 7, 7, 200, 201, 200])
    with pytest.raises(UserError, match="must be 8-bit grey"):
        decode_image(encoded(image), "a.png", WHERE, (1, 2, 1))


@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
def test_a_transparent_colour_is_refused(mode: str) -> None:
    """Breaks if what is transparent by a colour, not by a channel, is dropped."""
    image = Image.new("RGB", (4, 4), (9, 9, 9)).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency={"RGB": (9, 9, 9), "L": 9, "P": image.getpixel((0, 0))}[mode])
    with pytest.raises(UserError, match="must be 8-bit"):
        decode_image(buffer.getvalue(), "a.png", WHERE)


def saved(kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(3).integers(0, 256, (16, 16, 3), np.uint8)).save(buffer, kind, **options)
    return buffer.getvalue()


LOSSY = {
    "JPEG": saved("JPEG"),
    "lossy WebP": saved("WEBP", quality=50),
    "TIFF with lossy compression": saved("TIFF", compression="jpeg"),
}


@pytest.mark.parametrize("kind", LOSSY)
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tiff", "a.bmp"])
def test_the_content_says_what_is_lossy(kind: str, name: str) -> None:
    """Breaks if a name is believed: lossy pixels under a lossless one's name, or any where none are wanted."""
    with pytest.raises(UserError, match=f"{name} in there is in a lossy format, {kind}"):
        decode_image(LOSSY[kind], name, WHERE, lossy=False)
    if name in ("a.png", "a.tiff", "a.bmp"):
        with pytest.raises(UserError, match=f"{name} in there is in a lossy format, {kind}, under a name in"):
            decode_image(LOSSY[kind], name, WHERE)
    else:
        assert decode_image(LOSSY[kind], name, WHERE).shape == (16, 16, 3)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_several_pictures_in_a_file_are_refused(kind: str) -> None:
    """Breaks if all pictures of an animation or of a TIFF's pages but the first are passed over."""
    frames = [Image.new("RGB", (8, 8), (index * 90, 0, 0)) for index in range(3)]
    buffer = io.BytesIO()
    frames[0].save(
        buffer, kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {})
    )
    with pytest.raises(UserError, match="holds several pictures"):
        decode_image(buffer.getvalue(), f"a.{kind.lower()}", WHERE)


@pytest.mark.parametrize("head", [b"P6 2 1 65535\n", b"P6 2 1 15\n", b"P5 2 1 15\n", b"P5 2 1 65535\n"])
def test_levels_that_would_be_stretched_are_refused(head: bytes) -> None:
    """Breaks if a PPM of another largest level than 255 is brought to 256 levels without a word."""
    with pytest.raises(UserError, match="must be 8-bit"):
        decode_image(head + bytes(12), "a.ppm", WHERE)
