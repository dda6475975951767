import hashlib
import io
import pickle
import socket
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torchvision
from PIL import Image

from jlebm.data import load
from jlebm.data.image_file import central_square
from jlebm.data.layouts import DownloadError, Lsun, Torchvision
from jlebm.errors import UserError
from jlebm.progress import SILENT

pytestmark = pytest.mark.usefixtures("any_pixels")


def test_mnist_from_a_zip_a_folder_and_torchvision_is_the_same(make, labels, tmp_path: Path) -> None:
    """Breaks if pixels, order or labels depend on the format in which a person has them."""
    pixels = make.noise(7, 28, 28, 1)
    zipped, plain, layout = tmp_path / "zipped", tmp_path / "plain", tmp_path / "layout"
    zipped.mkdir()
    make.zip(zipped / "mnist-28x28.zip", make.edm(pixels, labels))
    make.folder(plain / "mnist", make.edm(pixels, labels))
    make.mnist(layout, pixels, labels)
    datasets = [load("mnist", root, download=False) for root in (zipped, plain, layout)]
    for dataset in datasets:
        np.testing.assert_array_equal(dataset.images, pixels.transpose(0, 3, 1, 2))
        np.testing.assert_array_equal(dataset.labels, labels)
        assert dataset.digest == hashlib.sha256(pixels.tobytes()).hexdigest()
    assert [dataset.origin.split(" in ")[0] for dataset in datasets] == ["mnist-28x28.zip", "mnist", "MNIST/raw"]


def test_fashion_mnist_is_not_mnist(make, labels, tmp_path: Path) -> None:
    """Breaks if the two layouts, alike but for their folder, are mixed up."""
    pixels = make.noise(7, 28, 28, 1)
    make.mnist(tmp_path, pixels, labels, "MNIST")
    make.mnist(tmp_path, 255 - pixels, labels, "FashionMNIST")
    dataset = load("fashion-mnist", tmp_path, split="test", download=False)
    np.testing.assert_array_equal(dataset.images, (255 - pixels).transpose(0, 3, 1, 2))


@pytest.mark.parametrize("file", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"])
def test_cut_mnist_files_are_a_sentence(make, labels, tmp_path: Path, file: str) -> None:
    """Breaks if a cut file of torchvision's layout leaves as torchvision's own error."""
    raw = make.mnist(tmp_path, make.noise(7, 28, 28, 1), labels)
    (raw / file).write_bytes((raw / file).read_bytes()[:-3])
    with pytest.raises(UserError, match="MNIST/raw is incomplete or not what torchvision's MNIST expects"):
        load("mnist", tmp_path, download=False)


def cifar_batches(root: Path, images: np.ndarray, labels: list[int], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write CIFAR-10 batches and let torchvision's class expect their checksums in place of the real ones."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir()

    def write(name: str, content: object) -> str:
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    def batch(part: slice) -> dict[str, object]:
        return {"data": images[part].transpose(0, 3, 1, 2).reshape(-1, 3072), "labels": labels[part]}

    parts = {"data_batch_1": slice(0, 3), "data_batch_2": slice(3, 5)}
    train = [[name, write(name, batch(part))] for name, part in parts.items()]
    test = [["test_batch", write("test_batch", batch(slice(5, 7)))]]
    meta = {"filename": "batches.meta", "key": "label_names", "md5": write("batches.meta", {"label_names": []})}
    for attribute, value in (("train_list", train), ("test_list", test), ("meta", meta)):
        monkeypatch.setattr(torchvision.datasets.CIFAR10, attribute, value)
    return folder


def test_cifar10_batches(images, labels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if the order of the batches or of the axes is not the official one."""
    cifar_batches(tmp_path, images, labels, monkeypatch)
    train, test = (load("cifar10", tmp_path, split, download=False) for split in ("train", "test"))
    np.testing.assert_array_equal(train.images, images[:5].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(test.images, images[5:].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(test.labels, labels[5:])
    assert train.digest == hashlib.sha256(images[:5].tobytes()).hexdigest()


def test_cifar10_batches_with_another_checksum_are_refused(
    images, labels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if a pickle that is not torchvision's is opened."""
    folder = cifar_batches(tmp_path, images, labels, monkeypatch)
    (folder / "data_batch_2").write_bytes(pickle.dumps(pytest.fail))
    with pytest.raises(UserError, match="cifar-10-batches-py is incomplete or not what"):
        load("cifar10", tmp_path, download=False)


def test_svhn(images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if SVHN's own axes (height, width, channel, image) or its class 10 for the digit 0 come through."""
    from scipy.io import savemat

    classes = np.array([10, 1, 2, 3, 4, 5, 10], np.uint8)
    file = tmp_path / "train_32x32.mat"
    savemat(file, {"X": images.transpose(1, 2, 3, 0), "y": classes[:, np.newaxis]})
    checksum = hashlib.md5(file.read_bytes()).hexdigest()
    monkeypatch.setitem(torchvision.datasets.SVHN.split_list, "train", ["", file.name, checksum])
    dataset = load("svhn", tmp_path, download=False)
    np.testing.assert_array_equal(dataset.images, images.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(dataset.labels, classes % 10)


MNIST = Torchvision("MNIST", {"train": "MNIST/raw/"}, {"train": "MNIST/raw/train-*-ubyte"})


def test_a_server_that_is_silent_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a network that swallows packets stops the program for minutes, or its timeout stays set."""
    monkeypatch.setattr("jlebm.data.layouts.PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/"
        monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [address])
        started = time.monotonic()
        with pytest.raises(DownloadError, match="timed out"):
            MNIST.download(tmp_path, "train", SILENT)
    assert time.monotonic() - started < 5
    assert socket.getdefaulttimeout() is None


def test_a_download_says_nothing_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Breaks if torchvision's prints, bars or warnings reach the terminal."""

    def chatty(self: object) -> None:
        print("Downloading")
        print("50%", file=sys.stderr)
        warnings.warn("a mirror is old", stacklevel=1)

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", chatty)
    with pytest.raises(DownloadError):
        MNIST.download(tmp_path, "train", SILENT)
    assert capsys.readouterr() == ("", "")


@pytest.fixture
def church(tmp_path: Path) -> Path:
    """Make a data root with five small images in LSUN's format, as webp of several sizes."""
    lmdb = pytest.importorskip("lmdb")
    rng = np.random.default_rng(3)
    with (
        lmdb.open(str(tmp_path / "church_outdoor_train_lmdb"), map_size=2**22) as database,
        database.begin(write=True) as transaction,
    ):
        for index in range(5):
            pixels = rng.integers(0, 256, (70 + 5 * index, 90, 3), np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "WEBP")
            transaction.put(hashlib.sha1(bytes([index])).hexdigest().encode(), buffer.getvalue())
    return tmp_path


def test_lsun_agrees_with_torchvision(church: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if images or their order differ from those of torchvision's class on the same database."""
    dataset = load("church64", church, download=False)
    place = church / "elsewhere"
    place.mkdir()
    monkeypatch.chdir(place)  # torchvision's class writes its keys into the working directory
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # of torchvision's own open file
        reference = torchvision.datasets.LSUN(
            str(church), ["church_outdoor_train"], transform=lambda image: central_square(image, 64)
        )
        expected = np.stack([np.asarray(image) for image, _ in reference])
    for category in reference.dbs:
        category.env.close()
    np.testing.assert_array_equal(dataset.images, expected.transpose(0, 3, 1, 2))
    assert dataset.labels is None


def test_lsun_without_lmdb_says_what_to_install(church: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if the optional package's absence leaves as an ImportError."""
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(UserError, match="pip install lmdb"):
        load("church64", church, download=False)


def test_a_damaged_lmdb_is_a_sentence(church: Path) -> None:
    """Breaks if a cut database leaves as lmdb's own error."""
    file = church / "church_outdoor_train_lmdb" / "data.mdb"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match="church_outdoor_train_lmdb is not a whole LMDB"):
        load("church64", church, download=False)


@pytest.mark.parametrize("share", [0.2, 0.35, 0.5, 0.65, 0.8, 0.95])
def test_a_database_that_was_cut_short_is_a_sentence(church: Path, share: float) -> None:
    """Breaks if a copy that stopped ends this process: the library maps pages that are not there (SIGBUS)."""
    file = church / "church_outdoor_train_lmdb" / "data.mdb"
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share) // 4096 * 4096])
    with pytest.raises(UserError, match="church_outdoor_train_lmdb is not a whole LMDB"):
        load("church64", church, download=False)


def test_a_database_whose_pages_lead_out_of_it_is_a_sentence(church: Path) -> None:
    """Breaks if a damaged page number ends this process (SIGSEGV), or some of the images are given for all."""
    file = church / "church_outdoor_train_lmdb" / "data.mdb"
    data = bytearray(file.read_bytes())
    for start in range(2 * 4096, len(data), 4096):
        data[start + 16 : start + 40] = b"\xf0" * 24  # where the places of a page's entries are
    file.write_bytes(data)
    with pytest.raises(UserError, match="church_outdoor_train_lmdb is not a whole LMDB"):
        load("church64", church, download=False)


def test_lsun_cannot_be_downloaded(tmp_path: Path) -> None:
    """Breaks if a download of LSUN is promised."""
    with pytest.raises(DownloadError, match="no download of LSUN"):
        Lsun("church_outdoor", 64).download(tmp_path, "train", SILENT)
