import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jlebm.errors import UserError
from jlebm.evaluation.sample_files import open_images
from tests.told import Told

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 10, 3), np.uint8)  # channels last
FIRST = PIXELS.transpose(0, 3, 1, 2)


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("pixels", [PIXELS, FIRST, PIXELS[..., :1], FIRST[:, :1]])
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_arrays_are_read_whichever_way_their_channels_lie(tmp_path: Path, pixels: np.ndarray, suffix: str) -> None:
    """Breaks if an axis is taken for another, or a value changes."""
    path = tmp_path / f"images{suffix}"
    (np.save if suffix == ".npy" else np.savez)(path, pixels)
    np.testing.assert_array_equal(open_images(path), FIRST[:, : min(pixels.shape[1], pixels.shape[3])])


def test_an_array_file_is_mapped_not_read(tmp_path: Path) -> None:
    """Breaks if 50,000 images are copied into memory."""
    np.save(tmp_path / "x.npy", PIXELS)
    images = open_images(tmp_path / "x.npy")
    assert isinstance(images, np.memmap)
    assert not images.flags.writeable


def test_the_array_without_a_name_is_taken_or_the_only_one(tmp_path: Path) -> None:
    """Breaks if guided-diffusion's samples with labels are refused, or one of several arrays is guessed."""
    np.savez(tmp_path / "labelled.npz", PIXELS, np.arange(6))
    np.testing.assert_array_equal(open_images(tmp_path / "labelled.npz"), FIRST)
    np.savez(tmp_path / "named.npz", samples=PIXELS)
    np.testing.assert_array_equal(open_images(tmp_path / "named.npz"), FIRST)
    np.savez(tmp_path / "two.npz", a=PIXELS, b=PIXELS)
    with pytest.raises(UserError, match="its arrays are: a, b"):
        open_images(tmp_path / "two.npz")


def test_a_folder_and_a_zip_of_png_files_are_read_in_the_order_of_names(tmp_path: Path) -> None:
    """Breaks if a pixel or the order changes."""
    files = {f"00000/img{index}.png": encoded(image) for index, image in enumerate(PIXELS)}
    np.testing.assert_array_equal(open_images(zipped(tmp_path / "x.zip", files)), FIRST)
    for name, data in files.items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(data)
    np.testing.assert_array_equal(open_images(tmp_path / "folder"), FIRST)


def test_jpeg_is_refused(tmp_path: Path) -> None:
    """Breaks if lossy copies, which shift FID, are measured."""
    files = {"a.png": encoded(PIXELS[0]), "b.jpg": encoded(PIXELS[1], "JPEG")}
    with pytest.raises(UserError, match=r"b.jpg in .* lossy format, .* save the samples as PNG"):
        open_images(zipped(tmp_path / "x.zip", files))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "b.JPEG").write_bytes(files["b.jpg"])
    with pytest.raises(UserError, match=r"b.JPEG in .* lossy"):
        open_images(tmp_path / "folder")


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".zip"])
@pytest.mark.parametrize("left", [0.0, 0.5, 0.95])
def test_a_file_cut_short_gets_a_sentence(tmp_path: Path, suffix: str, left: float) -> None:
    """Breaks if a broken copy ends in a traceback, or in fewer images."""
    path = tmp_path / f"x{suffix}"
    if suffix == ".zip":
        zipped(path, {f"{index}.png": encoded(image) for index, image in enumerate(PIXELS)})
    else:
        (np.save if suffix == ".npy" else np.savez)(path, PIXELS)
    path.write_bytes(path.read_bytes()[: int(left * path.stat().st_size)])
    with pytest.raises(UserError, match=r"is not a whole|cannot be unpacked"):
        open_images(path)


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    """Breaks if a stranger's samples can run code."""
    for suffix, save in ((".npy", np.save), (".npz", np.savez)):
        save(tmp_path / f"x{suffix}", np.array([{"a": 1}], object))
        with pytest.raises(UserError, match="not a whole file of numbers"):
            open_images(tmp_path / f"x{suffix}")


@pytest.mark.parametrize(
    ("pixels", "sentence"),
    [
        (PIXELS / np.float32(255), "must be uint8 and are float32; round them once"),
        (PIXELS.astype(np.int64) + 1, "are int64 and must be from 0 to 255; they hold . and 256"),
        (PIXELS.astype(np.int16) - 1, "are int16 and must be from 0 to 255; they hold -1"),
        (PIXELS[0], "is neither of"),
        (PIXELS[..., :2], "is neither of"),
        (PIXELS[:, :3], "could be either of"),
        (PIXELS[:0], "must have the shape"),
    ],
)
def test_arrays_that_are_not_images_get_a_sentence(tmp_path: Path, pixels: np.ndarray, sentence: str) -> None:
    """Breaks if values are rescaled or axes are guessed in silence."""
    np.savez(tmp_path / "x.npz", pixels)
    with pytest.raises(UserError, match=sentence):
        open_images(tmp_path / "x.npz")


def test_other_paths_get_a_sentence(tmp_path: Path) -> None:
    """Breaks if a missing or unknown file ends in a traceback."""
    with pytest.raises(UserError, match="there are no images at"):
        open_images(tmp_path / "nothing.npz")
    (tmp_path / "x.tar").touch()
    with pytest.raises(UserError, match=r"is neither a \.npy"):
        open_images(tmp_path / "x.tar")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no images"):
        open_images(tmp_path / "empty")


def told(path: Path) -> str:
    """Open images; return the lines that were told on the way."""
    report = Told()
    open_images(path, report)
    return report.text


@pytest.mark.parametrize("dtype", [np.int64, np.int16, np.uint16, ">i4"])
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_whole_numbers_of_any_width_are_read(tmp_path: Path, dtype: object, suffix: str) -> None:
    """Breaks if values within 0 to 255 are refused for the width of their type, or change."""
    (np.save if suffix == ".npy" else np.savez)(tmp_path / f"x{suffix}", PIXELS.astype(dtype))
    images = open_images(tmp_path / f"x{suffix}")
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, FIRST)


def test_grey_images_may_lack_the_axis_of_the_channels(tmp_path: Path) -> None:
    """Breaks if (count, height, width) is refused, or one RGB picture passes for three or eight grey ones."""
    np.save(tmp_path / "x.npy", PIXELS[..., 0])
    np.testing.assert_array_equal(open_images(tmp_path / "x.npy"), FIRST[:, :1])
    for single in (PIXELS[0], FIRST[0]):
        np.save(tmp_path / "x.npy", single)
        with pytest.raises(UserError, match=r"is neither of .* without any doubt"):
            open_images(tmp_path / "x.npy")


@pytest.mark.parametrize(("images", "labels"), [("images", "labels"), ("y", "x"), ("arr_1", "arr_0"), ("b", "arr_0")])
def test_images_are_found_beside_labels_whatever_their_names(tmp_path: Path, images: str, labels: str) -> None:
    """Breaks if the names matter, or what lies beside the images is passed over without a word."""
    np.savez(tmp_path / "x.npz", **{labels: np.arange(6), images: PIXELS})
    np.testing.assert_array_equal(open_images(tmp_path / "x.npz"), FIRST)
    assert f"read 6 images of {tmp_path / 'x.npz'}; left out: 1 array '{labels}'" in told(tmp_path / "x.npz")


def test_two_arrays_of_images_are_refused(tmp_path: Path) -> None:
    """Breaks if half of the images are taken for all because their array has numpy's own first name."""
    np.savez(tmp_path / "x.npz", PIXELS, PIXELS)
    with pytest.raises(UserError, match="one array of images; its arrays are: arr_0, arr_1"):
        open_images(tmp_path / "x.npz")


def test_a_folder_of_array_files_is_one_set(tmp_path: Path) -> None:
    """Breaks if shards of samples are refused, read in another order than their names', or some are passed over."""
    for index in range(3):
        np.savez(tmp_path / f"samples_{index}.npz", PIXELS[2 * index : 2 * index + 2], np.arange(2))
    np.save(tmp_path / "labels.npy", np.arange(6))
    (tmp_path / "log.txt").touch()
    np.testing.assert_array_equal(open_images(tmp_path), FIRST)
    assert "left out: 1 .txt, 3 array 'arr_1', 1 array files of labels" in told(tmp_path)
    np.save(tmp_path / "z.npy", FIRST[:, :, :4])
    with pytest.raises(UserError, match=r"z\.npy has images of the shape \(3, 4, 10\)"):
        open_images(tmp_path)


def test_the_content_says_what_a_file_is(tmp_path: Path) -> None:
    """Breaks if a suffix is believed."""
    np.save(tmp_path / "x.npy", PIXELS)
    np.savez(tmp_path / "x.npz", PIXELS)
    zipped(tmp_path / "x.zip", {f"{index}.png": encoded(image) for index, image in enumerate(PIXELS)})
    for name, other in (("x.npy", "a.npz"), ("x.npz", "b.npy"), ("x.npz", "c.zip"), ("x.zip", "d.npz"), ("x.zip", "e")):
        (tmp_path / other).write_bytes((tmp_path / name).read_bytes())
        np.testing.assert_array_equal(open_images(tmp_path / other), FIRST)


def test_jpeg_is_refused_under_any_name(tmp_path: Path) -> None:
    """Breaks if JPEG bytes in files called .png are measured."""
    jpeg = encoded(PIXELS[1], "JPEG")
    with pytest.raises(UserError, match=r"b\.png in .* lossy format, JPEG"):
        open_images(zipped(tmp_path / "x.zip", {"a.png": encoded(PIXELS[0]), "b.png": jpeg}))


def test_hidden_jpegs_are_no_reason_to_refuse(tmp_path: Path) -> None:
    """Breaks if thumbnails that a system leaves stop a measurement."""
    jpeg = encoded(PIXELS[1], "JPEG")
    files = {"a.png": encoded(PIXELS[0]), ".cache/a.jpg": jpeg, "__MACOSX/._a.jpg": jpeg, ".b.jpg": jpeg}
    assert "left out: 3 hidden" in told(zipped(tmp_path / "x.zip", files))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.png").write_bytes(files["a.png"])
    (tmp_path / "folder" / ".b.jpg").write_bytes(jpeg)
    assert "left out: 1 hidden" in told(tmp_path / "folder")


@pytest.mark.parametrize("labels", [b'{"labels": [["a.png", [0.5, 2]]]}', b'{"labels": [["a.png", 0.5]]}', b"not JSON"])
def test_labels_are_not_needed(tmp_path: Path, labels: bytes) -> None:
    """Breaks if images are refused for labels that no metric looks at."""
    path = zipped(tmp_path / "x.zip", {"a.png": encoded(PIXELS[0]), "dataset.json": labels})
    np.testing.assert_array_equal(open_images(path), FIRST[:1])


@pytest.mark.parametrize("form", ["npy", "npz", "int64", "png"])
def test_a_cast_of_unit_values_is_said_aloud(tmp_path: Path, form: str) -> None:
    """Breaks if all but black images, [0, 1] cast to whole numbers, are measured without a word."""
    cast = (PIXELS / 255).astype(np.uint8)
    cast[0, 0, 0] = 1
    path = tmp_path / f"x.{form}"
    if form == "png":
        path = zipped(tmp_path / "x.zip", {"a.png": encoded(cast[0])})
    elif form == "npy":
        np.save(path, cast)
    else:
        path = tmp_path / "x.npz"
        np.savez(path, cast if form == "npz" else cast.astype(np.int64))
    assert "is above 1, so the images are all but black" in told(path)
    np.save(tmp_path / "y.npy", PIXELS)
    assert "black" not in told(tmp_path / "y.npy")


def test_what_follows_an_array_is_not_passed_over(tmp_path: Path) -> None:
    """Breaks if a second array, saved into the same file, is left out."""
    with (tmp_path / "x.npy").open("wb") as file:
        np.save(file, PIXELS)
        np.save(file, PIXELS)
    with pytest.raises(UserError, match="it holds more than its header says"):
        open_images(tmp_path / "x.npy")


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '|O', 'fortran_order': False, 'shape': (2,)}",
        b"{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 8, 8, 3)}",
        b"{'descr': [('a', 'O')], 'fortran_order': False, 'shape': (1,)}",
        b"{'descr': '|u1', 'fortran_order': 3, 'shape': 7}",
        b"-" * 9000 + b"1",
        b"[" * 9000,
        b"{'descr': '|V0', 'fortran_order': False, 'shape': (1000000000000000000000, 8, 8, 3)}",
    ],
)
def test_odd_headers_are_sentences_of_this_project(tmp_path: Path, header: bytes) -> None:
    """Breaks if numpy's exceptions, or its advice to programmers, reach a user."""
    data = b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header + bytes(99)
    (tmp_path / "x.npy").write_bytes(data)
    zipped(tmp_path / "x.npz", {"arr_0.npy": data})
    for name in ("x.npy", "x.npz"):
        with pytest.raises(UserError, match="is not a whole file of numbers") as caught:
            open_images(tmp_path / name)
        assert not any(word in str(caught.value) for word in ("allow_pickle", "max_header_size", "trust", "array("))
