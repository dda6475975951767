"""What is in a folder or a zip: all of it is read, refused by name, or counted with the reason."""

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from jlebm.data.formats import ImageSource, account, read_image_folder, read_image_zip
from jlebm.errors import UserError


@pytest.fixture(params=["zip", "folder"])
def opened(request: pytest.FixtureRequest, make, tmp_path: Path):
    """Write files in one of the two formats and open them."""

    def open_files(files) -> ImageSource:
        if request.param == "zip":
            return read_image_zip(make.zip(tmp_path / "x.zip", files))
        return read_image_folder(make.folder(tmp_path / "x", files))

    return open_files


@pytest.mark.parametrize("suffix", ["bmp", "PPM", "tiff", "tif", "webp", "png"])
def test_lossless_images_of_any_format_are_read(opened, make, images, suffix: str) -> None:
    """Breaks if images beside PNG files are passed over because of their suffix."""
    import io

    from PIL import Image

    buffer = io.BytesIO()
    kind = {"tif": "TIFF"}.get(suffix, suffix.upper())
    Image.fromarray(images[1]).save(buffer, kind, **({"lossless": True} if suffix == "webp" else {}))
    source = opened({"a.png": make.png(images[0]), f"b.{suffix}": buffer.getvalue()})
    np.testing.assert_array_equal(source.array(), images[:2].transpose(0, 3, 1, 2))


@pytest.mark.parametrize("name", ["b.gif", "b.jp2", "b.avif", "b.HEIC", "b.tga", "sub/b.exr"])
def test_formats_that_are_not_read_are_refused_by_name(opened, make, images, name: str) -> None:
    """Breaks if an image is left out without a word because its format is not one of those that are read."""
    with pytest.raises(UserError, match=f"{name} in .* is not a whole image of a format that is read"):
        opened({"a.png": make.png(images[0]), name: b"\0\0\0\x18ftypavif"}).array()


def test_what_is_left_out_is_counted_by_its_kind(opened, make, images) -> None:
    """Breaks if the line that says how many images were read does not say what was not."""
    others = {
        "notes.txt": b"",
        "more/list.txt": b"",
        "LICENSE": b"",
        "statistics.npz": b"",
        ".DS_Store": b"",
        "__MACOSX/._a.jpg": b"",
        ".thumbnails/a.jpg": b"",
    }
    source = opened({"a.png": make.png(images[0]), **others})
    assert source.count == 1
    assert source.left_out == {"hidden": 3, ".txt": 2, "without a suffix": 1, ".npz": 1}
    assert account(1, "there", source.left_out) == (
        "read 1 images of there; left out: 1 .npz, 2 .txt, 3 hidden, 1 without a suffix"
    )


@pytest.mark.parametrize("form", ["./{}", "{}", "mine/{}", "./deep/er/{}", "backslashes"])
def test_names_are_one_however_they_were_stored(make, images, labels, tmp_path: Path, form: str) -> None:
    r"""Breaks if `./a.png` is hidden, `a\b.png` another file, or labels are only looked for at the top."""
    files = make.edm(images, labels)
    renamed = {
        name.replace("/", "\\") if form == "backslashes" else form.format(name): data for name, data in files.items()
    }
    source = read_image_zip(make.zip(tmp_path / "x.zip", renamed))
    np.testing.assert_array_equal(source.array(), images.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(source.labels, labels)
    assert not source.left_out


def test_two_files_of_labels_are_refused(opened, make, images, labels) -> None:
    """Breaks if one of two label files is taken by chance."""
    files = make.edm(images, labels)
    with pytest.raises(UserError, match=r"00000/dataset\.json and dataset\.json; keep the one"):
        opened(files | {"00000/dataset.json": files["dataset.json"]})


@pytest.mark.parametrize("second", ["a.png", "./a.png", ".\\a.png"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_twice_in_a_zip_is_refused(make, images, tmp_path: Path, second: str) -> None:
    """Breaks if the last of two images of one name is counted twice and the first one never."""
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.png", make.png(images[0]))
        archive.writestr(second, make.png(images[1]))
    with pytest.raises(UserError, match=r"a\.png is in .*x\.zip twice"):
        read_image_zip(tmp_path / "x.zip")


def test_linked_folders_and_files_are_read_once(make, images, tmp_path: Path) -> None:
    """Breaks if what a link leads to is passed over, read twice, or followed in a circle."""
    make.folder(tmp_path / "store", {"1.png": make.png(images[1]), "deep/2.png": make.png(images[2])})
    folder = make.folder(tmp_path / "x", {"a/0.png": make.png(images[0])})
    (folder / "b").symlink_to(tmp_path / "store")
    (folder / "c.png").symlink_to(tmp_path / "store" / "1.png")
    (folder / "a" / "up").symlink_to(folder)
    (folder / "again").symlink_to(folder / "a")
    source = read_image_folder(folder)
    assert [name for name, _ in source] == ["a/0.png", "b/1.png", "b/deep/2.png", "c.png"]
    assert source.left_out == {"linked folders that are there already": 2}


@pytest.mark.parametrize("name", ["b.png", "dataset.json"])
def test_what_is_named_as_a_file_must_be_one(make, images, tmp_path: Path, name: str) -> None:
    """Breaks if a dangling link or a pipe is a traceback, waited for, or passed over."""
    folder = make.folder(tmp_path / "x", {"a.png": make.png(images[0])})
    (folder / name).symlink_to(tmp_path / "nothing")
    with pytest.raises(UserError, match=f"{name} is a link to a file that is not there"):
        read_image_folder(folder)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(UserError, match=f"{name} is a pipe"):
        read_image_folder(folder)
    (folder / name).rename(folder / "pipe")
    assert read_image_folder(folder).left_out == {"neither files nor folders": 1}


READ_WITHOUT_RIGHTS = """
import os, sys
from pathlib import Path
import PIL.PngImagePlugin, torchvision.datasets, lmdb
from jlebm.data import load
from jlebm.errors import UserError
from jlebm.evaluation.sample_files import open_images
from PIL import Image; Image.init()
if os.getuid() == 0: os.setgid(65534); os.setuid(65534)
root = Path(sys.argv[1])
calls = [lambda path=path: open_images(root / path) for path in ("x", "y", "x.npz", "x.npy", "x.zip")]
calls += [lambda name=name: load(name, root, download=False) for name in ("celeba64", "mnist", "church64", "svhn")]
for call in calls:
    try: call(); print("read")
    except UserError as error: print(error)
"""


@pytest.mark.slow
def test_what_may_not_be_read_is_said_and_never_called_damaged(make, images, labels) -> None:
    """Breaks if images are passed over, or somebody is told to delete what is whole, for want of a permission."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        make.folder(root / "x", {"a/0.png": make.png(images[0]), "b/1.png": make.png(images[1])})
        make.folder(root / "y", {"0.png": make.png(images[0])})
        np.savez(root / "x.npz", images)
        np.save(root / "x.npy", images)
        make.zip(root / "x.zip", make.edm(images, None))
        make.zip(root / "celeba64.zip", make.edm(make.noise(1, 64, 64, 3), None))
        make.mnist(root, make.noise(7, 28, 28, 1), labels)
        (root / "church_outdoor_train_lmdb").mkdir()
        (root / "church_outdoor_train_lmdb" / "data.mdb").touch()
        (root / "train_32x32.mat").touch()
        locked = ["x/b", "y/0.png", "x.npz", "x.npy", "x.zip", "celeba64.zip", "MNIST/raw"]
        locked += ["church_outdoor_train_lmdb/data.mdb", "train_32x32.mat"]
        for one in locked:
            (root / one).chmod(0)
        root.chmod(0o777)  # where the cache is
        try:
            command = [sys.executable, "-c", READ_WITHOUT_RIGHTS, name]
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        finally:
            for one in locked:
                (root / one).chmod(0o755)
    for one, sentence in zip(locked, said, strict=True):
        assert f"{one} may not be read (Permission denied)" in sentence
        assert not any(word in sentence for word in ("whole", "damaged", "remove", "again", "download"))
