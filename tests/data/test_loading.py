import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torchvision
from PIL import Image

from jlebm.data import DatasetNotFound, data_root, load
from jlebm.data.catalogue import CATALOGUE
from jlebm.data.formats import digest_in_any_order, read_image_folder
from jlebm.errors import UserError
from tests.told import Told


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


def test_data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if an explicit root does not win over the environment, or that over the user's cache."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("JLEBM_DATA", "~/named")
    assert data_root(Path("~/explicit")) == tmp_path / "explicit"
    assert data_root(None) == tmp_path / "named"
    monkeypatch.delenv("JLEBM_DATA")
    assert data_root(None).parts[-2:] == ("jlebm", "data")


def test_the_first_in_the_stated_order_wins(make, images, tmp_path: Path, any_pixels: None) -> None:
    """Breaks if a person who has two copies cannot tell from the documentation which one is taken."""
    make.folder(tmp_path / "cifar10", make.edm(images[:1], None))
    make.folder(tmp_path / "cifar10-32x32", make.edm(images[:2], None))
    make.zip(tmp_path / "cifar10.zip", make.edm(images[:3], None))
    make.zip(tmp_path / "cifar10-32x32.zip", make.edm(images[:4], None))
    counts = []
    for taken in ("cifar10-32x32.zip", "cifar10.zip", "cifar10-32x32", "cifar10"):
        dataset = load("cifar10", tmp_path, download=False)
        assert dataset.origin == f"{taken} in the data root {tmp_path}"
        counts.append(len(dataset.images))
        (tmp_path / taken).rename(tmp_path / f"set-aside-{taken}")
    assert counts == [4, 3, 2, 1]


def test_the_test_split_has_files_of_its_own(make, images, tmp_path: Path, any_pixels: None) -> None:
    """Breaks if training images are given for the test split."""
    make.zip(tmp_path / "celeba64.zip", make.edm(make.noise(3, 64, 64, 3), None))
    with pytest.raises(DatasetNotFound, match=r"put celeba64-test-64x64\.zip"):
        load("celeba64", tmp_path, split="test")
    make.zip(tmp_path / "celeba64-test.zip", make.edm(make.noise(2, 64, 64, 3), None))
    assert len(load("celeba64", tmp_path, split="test").images) == 2


def test_images_of_another_size_are_refused_and_nothing_is_kept(make, tmp_path: Path, any_pixels: None) -> None:
    """Breaks if a dataset of the wrong resolution is trained on under its name."""
    make.zip(tmp_path / "cifar10.zip", make.edm(make.noise(2, 64, 64, 3), None))
    with pytest.raises(UserError, match=r"img00000000\.png in .*cifar10\.zip is 64 x 64 .* must be 32 x 32"):
        load("cifar10", tmp_path)
    assert list((tmp_path / ".jlebm-cache").iterdir()) == []


def test_a_subset_is_refused(make, images, tmp_path: Path) -> None:
    """Breaks if a part of a dataset is measured under the whole one's name."""
    make.zip(tmp_path / "cifar10-32x32.zip", make.edm(images, None))
    with pytest.raises(UserError, match=r"has 7 images and cifar10 \(train\) has 50000"):
        load("cifar10", tmp_path)


def test_other_pixels_than_the_official_ones_are_refused(
    make, images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if a lossy or reordered CIFAR-10 passes, which shifts FID unnoticed."""
    monkeypatch.setitem(CATALOGUE, "cifar10", replace(CATALOGUE["cifar10"], counts={}))
    make.zip(tmp_path / "cifar10-32x32.zip", make.edm(images, None))
    with pytest.raises(UserError, match=r"not the official cifar10 \(train\) .* not 47af8b02cfcf"):
        load("cifar10", tmp_path)


@pytest.mark.parametrize(("name", "remedy"), [("cifar", "the nearest known one is 'cifar10'"), ("zzz", "known are:")])
def test_an_unknown_name_has_a_remedy(name: str, remedy: str) -> None:
    """Breaks if a misspelt dataset is searched for in the data root."""
    with pytest.raises(UserError, match=f"no dataset '{name}'.*{remedy}"):
        load(name)


def test_a_data_root_that_is_a_file(tmp_path: Path) -> None:
    """Breaks if a file in place of the data root leaves as a traceback."""
    (tmp_path / "root").touch()
    with pytest.raises(UserError, match="root is not a folder"):
        load("cifar10", tmp_path / "root")


def test_a_data_root_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if somebody else's folder leaves as a traceback, or a download into it is tried."""

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(UserError, match=f"{tmp_path} cannot be listed .Permission denied.; make it readable, or name"):
        load("cifar10", tmp_path)


@pytest.mark.parametrize(
    ("name", "put"),
    [
        ("cifar10", r"cifar10-32x32\.zip .* folder cifar10/ of 32x32 RGB .* cifar-10-batches-py/"),
        ("svhn", r"svhn-32x32\.zip .* train_32x32\.mat"),
        ("mnist", r"mnist-28x28\.zip .* 28x28 8-bit grey .* MNIST/raw/"),
        ("celebahq256", r"celebahq256-256x256\.zip .* folder celebahq256/"),
        ("church64", r"church64-64x64\.zip .* church_outdoor_train_lmdb/"),
    ],
)
def test_a_missing_dataset_says_what_to_put_where(tmp_path: Path, name: str, put: str) -> None:
    """Breaks if the sentence leaves out the root, a file name, or that another root can be named."""
    with pytest.raises(DatasetNotFound, match=f"not in the data root {tmp_path}; put {put}.* JLEBM_DATA"):
        load(name, tmp_path, download=False)


@pytest.mark.parametrize("name", ["cifar10", "svhn", "mnist", "fashion-mnist"])
def test_without_a_network_the_sentence_gives_the_reason(tmp_path: Path, no_network: None, name: str) -> None:
    """Breaks if a failed download leaves as torchvision's own error, or hides why it failed."""
    report = Told()
    with pytest.raises(DatasetNotFound, match=r"could not be downloaded \(.*not known>?\); put"):
        load(name, tmp_path / "new", report=report)
    assert report.text.startswith("downloading")


def test_a_root_that_cannot_be_made_is_a_sentence(tmp_path: Path, no_network: None) -> None:
    """Breaks if a download into an impossible place leaves as an OSError."""
    (tmp_path / "file").touch()
    with pytest.raises(DatasetNotFound, match="could not be downloaded"):
        load("mnist", tmp_path / "file" / "below")


def test_what_is_missing_is_downloaded_into_the_root(
    make, labels, tmp_path: Path, any_pixels: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if a download goes elsewhere, or is made again where the files are there."""
    pixels = make.noise(7, 28, 28, 1)
    downloads = []

    def download(self: torchvision.datasets.MNIST) -> None:
        downloads.append(self.root)
        make.mnist(Path(self.root), pixels, labels)

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", download)
    for _ in range(2):
        dataset = load("mnist", tmp_path)
        np.testing.assert_array_equal(dataset.images[:, 0], pixels[..., 0])
    assert downloads == [tmp_path]


def test_a_root_that_cannot_be_written_uses_the_users_cache(
    make, images, tmp_path: Path, any_pixels: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if a dataset on a read-only disk cannot be used."""
    root = tmp_path / "root"
    root.mkdir()
    (root / ".jlebm-cache").touch()  # no folder can be made here
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    make.zip(root / "cifar10.zip", make.edm(images, None))
    dataset = load("cifar10", root)
    assert Path(dataset.images.filename).is_relative_to(tmp_path / "user")


def test_a_second_start_does_without_torch(make, images, tmp_path: Path, any_pixels: None) -> None:
    """Breaks if an import that takes seconds creeps into the way to a dataset that is already decoded."""
    make.zip(tmp_path / "celeba64.zip", make.edm(make.noise(2, 64, 64, 3), None))
    load("celeba64", tmp_path)
    command = (
        "import sys; from pathlib import Path; from jlebm.data import load\n"
        "load('celeba64', Path(sys.argv[1]))\n"
        "print({'torch', 'torchvision', 'sklearn'} & set(sys.modules))"
    )
    arguments = [sys.executable, "-c", command, str(tmp_path)]
    assert subprocess.run(arguments, capture_output=True, text=True, check=True).stdout == "set()\n"


def test_the_official_images_in_another_order_are_taken(
    make, images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if class folders of the very images are refused, or a changed image passes for one of them."""
    source = read_image_folder(make.folder(tmp_path / "official", make.edm(images, None)))
    entry = replace(
        CATALOGUE["cifar10"], counts={}, digests={"train": "0" * 64}, sets={"train": digest_in_any_order(source)}
    )
    monkeypatch.setitem(CATALOGUE, "cifar10", entry)
    by_class = {f"{'cat' if index % 2 else 'dog'}/{index}.png": make.png(image) for index, image in enumerate(images)}
    make.folder(tmp_path / "cifar10", by_class)
    dataset = load("cifar10", tmp_path, download=False)
    order = [1, 3, 5, 0, 2, 4, 6]
    np.testing.assert_array_equal(dataset.images, images[order].transpose(0, 3, 1, 2))
    (tmp_path / "cifar10" / "dog" / "0.png").write_bytes(make.png(images[0] ^ 1))
    with pytest.raises(UserError, match=r"are not the official cifar10 .*, in whatever order"):
        load("cifar10", tmp_path, download=False)


def test_lossy_copies_are_refused_where_the_originals_are_not(make, tmp_path: Path, any_pixels: None) -> None:
    """Breaks if JPEG digits or, under the name of PNG, JPEG faces are trained on and measured against."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (200, 30, 30)).save(buffer, "JPEG")
    make.zip(tmp_path / "celeba64.zip", {"a.png": buffer.getvalue()})
    with pytest.raises(UserError, match=r"a\.png in .* is in a lossy format, JPEG, under a name in \.png"):
        load("celeba64", tmp_path)
    make.zip(tmp_path / "celeba64.zip", {"a.jpg": buffer.getvalue()})
    assert len(load("celeba64", tmp_path).images) == 1
    Image.new("RGB", (32, 32)).save(small := io.BytesIO(), "JPEG")
    make.zip(tmp_path / "cifar10.zip", {"a.jpg": small.getvalue()})
    with pytest.raises(UserError, match=r"a\.jpg in .* is in a lossy format, JPEG"):
        load("cifar10", tmp_path)


@pytest.mark.parametrize("name", ["celeba64", "celeba64.zip", "celeba64/a.png"])
def test_a_dangling_link_is_a_sentence(make, tmp_path: Path, name: str) -> None:
    """Breaks if a disk that is not mounted leaves as a traceback, or as the advice to put the data there."""
    make.folder(tmp_path / "celeba64", {"b.png": b""} if "/" in name else {})
    (tmp_path / name).symlink_to(tmp_path / "not-mounted")
    with pytest.raises(UserError, match=f"{name} is a link to a file that is not there"):
        load("celeba64", tmp_path, download=False)


def test_what_is_decoded_is_accounted_for(make, tmp_path: Path, any_pixels: None) -> None:
    """Breaks if the line about a dataset's images does not say what was left out beside them."""
    files = {"a.png": make.png(make.noise(1, 64, 64, 3)[0]), "notes.txt": b""}
    make.zip(tmp_path / "celeba64.zip", files)
    report = Told()
    load("celeba64", tmp_path, report=report)
    assert f"read 1 images of {tmp_path / 'celeba64.zip'}; left out: 1 .txt" in report.text


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR-10", "Cifar_10"])
def test_the_nearest_dataset_is_named_in_whatever_case(name: str) -> None:
    """Breaks if a name in capitals is far from every known one."""
    with pytest.raises(UserError, match=f"no dataset '{name}'; the nearest known one is 'cifar10'"):
        load(name)
