import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jlebm.errors import UserError
from jlebm.evaluation.sample_files import open_images

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
        (PIXELS.astype(np.int64), "must be uint8 and are int64"),
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
    with pytest.raises(UserError, match=r"is none of a \.npy"):
        open_images(tmp_path / "x.tar")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no images"):
        open_images(tmp_path / "empty")
