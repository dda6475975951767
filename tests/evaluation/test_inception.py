import errno
import io
import pickle
import runpy
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from jlebm import progress
from jlebm.errors import UserError
from jlebm.evaluation import inception
from jlebm.evaluation.inception import (
    FULL_WEIGHTS,
    LAYERS,
    PARTIAL_WEIGHTS,
    ExtractorNotFound,
    features_of,
    find_extractor,
    fixed_images,
    open_extractor,
    open_network,
    self_check,
)
from jlebm.progress import ConsoleReporter
from tests.inception import nan_from

CPU = torch.device("cpu")


def save(state: dict[str, torch.Tensor], path: Path) -> Path:
    torch.save(state, path)
    return path


def test_features_are_torch_fidelitys_own(random_weights: Path) -> None:
    """Breaks if folding batch norm, the memory layout or the order of layers changes a feature by 1e-4."""
    layers = [layer for layer in LAYERS if layer != "logits"]
    images = torch.from_numpy(fixed_images()[:2])
    upstream = FeatureExtractorInceptionV3("upstream", layers, str(random_weights))
    expected = upstream.convert_features_tuple_to_dict(upstream(images))
    features = open_network(open_extractor(random_weights), layers, CPU)(images)
    assert features.keys() == expected.keys()
    for layer in layers:
        assert expected[layer].std() > 1e-3
        assert (features[layer] - expected[layer]).norm() < 1e-4 * expected[layer].norm(), layer


def test_batches_at_once_give_the_features_of_batches_in_turn(random_weights: Path) -> None:
    """Breaks if threads change a bit of a feature, the order or the start, or leave torch with another thread count."""
    network = open_network(open_extractor(random_weights), ["64"], CPU)
    network.batch_size = 2
    images = np.concatenate([fixed_images(), 255 - fixed_images()])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        at_once = list(features_of(network, images, start=1))
        assert torch.get_num_threads() == 3
        unfinished = features_of(network, images)
        next(unfinished)
        del unfinished  # a consumer that has seen enough
        assert torch.get_num_threads() == 3
        torch.set_num_threads(1)
        in_turn = list(features_of(network, images, start=1))
    finally:
        torch.set_num_threads(before)
    assert [first for first, _ in at_once] == [first for first, _ in in_turn] == [1, 3, 5, 7]
    for (_, mine), (_, theirs) in zip(at_once, in_turn, strict=True):
        assert torch.equal(mine["64"], theirs["64"])


def test_an_error_in_a_batch_reaches_the_caller(random_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a thread swallows what went wrong, or waits for ever."""
    network = open_network(open_extractor(random_weights), ["64"], CPU)
    network.batch_size = 1
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        monkeypatch.setattr(network, "module", None)
        with pytest.raises(AttributeError):
            list(features_of(network, fixed_images()))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_one_channel_is_repeated_to_three(random_weights: Path) -> None:
    """Breaks if a grey image has other features than the same image with equal channels."""
    network = open_network(open_extractor(random_weights), ["64"], CPU)
    grey = torch.from_numpy(fixed_images()[:2, :1])
    torch.testing.assert_close(network(grey)["64"], network(grey.repeat(1, 3, 1, 1))["64"])


def test_opening_a_network_draws_no_random_numbers(random_weights: Path) -> None:
    """Breaks if an evaluation changes what a training draws after it."""
    extractor = open_extractor(random_weights)
    before = torch.get_rng_state()
    open_network(extractor, ["64"], CPU)
    assert torch.equal(torch.get_rng_state(), before)


def test_exact_layers_are_read_from_the_tensors_not_from_the_name(random_state, tmp_path: Path) -> None:
    """Breaks if a file with NaN above 768 passes for the full weights, or the NaN reach the features below."""
    extractor = open_extractor(save(nan_from(random_state, ("Mixed_7", "fc")), tmp_path / FULL_WEIGHTS))
    assert extractor.layers == ("64", "192", "768")
    assert open_network(extractor, ["64"], CPU)(torch.from_numpy(fixed_images()[:1]))["64"].isfinite().all()
    with pytest.raises(UserError, match="gives no layer 2048; its exact layers are: 64, 192, 768"):
        open_network(extractor, ["768", "2048"], CPU)


@pytest.mark.parametrize(
    ("prefix", "exact"), [("Mixed_6c.", ("64", "192")), ("fc.weight", LAYERS[:4]), ("fc.bias", LAYERS[:5])]
)
def test_a_layer_needs_all_that_is_below_it(random_state, tmp_path: Path, prefix: str, exact: tuple[str, ...]) -> None:
    """Breaks if weights that are not finite spoil a layer that is called exact."""
    assert open_extractor(save(nan_from(random_state, (prefix,)), tmp_path / "x.pth")).layers == exact


def test_a_file_of_nan_is_refused(random_state, tmp_path: Path) -> None:
    """Breaks if weights that give nothing are accepted."""
    with pytest.raises(UserError, match="from the first layer on"):
        open_extractor(save(nan_from(random_state, ("Conv2d_1a",)), tmp_path / "x.pth"))


def test_other_networks_are_refused(random_state, tmp_path: Path) -> None:
    """Breaks if torchvision's Inception, or tensors that are missing or misshapen, end in a traceback."""
    misshapen = random_state | {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}
    missing = {key: value for key, value in random_state.items() if not key.startswith("Mixed_5b.branch1x1")}
    for state in (misshapen, missing, {"AuxLogits.conv0.conv.weight": torch.zeros(2)}):
        with pytest.raises(UserError, match=r"does not fit the Inception network .* torchvision's weights"):
            open_extractor(save(state, tmp_path / "x.pth"))
    with pytest.raises(UserError, match="not a state dict"):
        open_extractor(save({"fc": 3}, tmp_path / "x.pth"))  # pyright: ignore


def test_a_file_cut_short_is_refused(random_weights: Path, tmp_path: Path) -> None:
    """Breaks if a broken download ends in a traceback."""
    cut = tmp_path / "cut.pth"
    cut.write_bytes(random_weights.read_bytes()[:100_000])
    with pytest.raises(UserError, match="not a whole file of weights"):
        open_extractor(cut)
    cut.write_bytes(b"")
    with pytest.raises(UserError, match="not a whole file of weights"):
        open_extractor(cut)


class Hostile:
    """Opens a file when it is unpickled."""

    def __reduce__(self):
        return (open, ("hostile-was-here", "w"))


@pytest.mark.parametrize("write", [torch.save, lambda it, path: path.write_bytes(pickle.dumps(it))])
def test_a_hostile_pickle_is_never_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write) -> None:
    """Breaks if weights from a stranger can run code."""
    monkeypatch.chdir(tmp_path)
    write({"fc.weight": Hostile()}, tmp_path / "hostile.pth")
    with pytest.raises(UserError, match="not a whole file of weights"):
        open_extractor(tmp_path / "hostile.pth")
    assert not (tmp_path / "hostile-was-here").exists()


def test_full_weights_come_before_partial_ones(
    random_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if a data root, or torch hub's cache, that has the full weights is evaluated with the partial ones."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    (tmp_path / PARTIAL_WEIGHTS).symlink_to(random_weights)
    assert find_extractor(tmp_path).path == tmp_path / PARTIAL_WEIGHTS  # nothing is downloaded where this is there
    hub = tmp_path / "torch" / "hub" / "checkpoints"
    hub.mkdir(parents=True)
    (hub / FULL_WEIGHTS).symlink_to(random_weights)
    assert find_extractor(tmp_path).path == hub / FULL_WEIGHTS
    (tmp_path / FULL_WEIGHTS).symlink_to(random_weights)
    assert find_extractor(tmp_path).path == tmp_path / FULL_WEIGHTS


def test_missing_weights_say_what_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a machine without weights or network gets a traceback instead of the remedy."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with pytest.raises(ExtractorNotFound, match=f"not in the data root {tmp_path}: put {FULL_WEIGHTS}"):
        find_extractor(tmp_path, download=False)

    def no_network(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(inception.urllib.request, "urlopen", no_network)
    with pytest.raises(ExtractorNotFound, match=r"could not be downloaded \(.*no route to host.*\): put"):
        find_extractor(tmp_path)


@pytest.fixture
def empty_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root without weights, where torch hub has none either."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def test_a_download_says_its_size_and_is_kept(
    random_weights: Path, empty_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Breaks if minutes pass in silence, or every start downloads again."""
    monkeypatch.setattr(progress, "PLAIN_INTERVAL", 0.0)
    monkeypatch.setattr(inception, "URL_INCEPTION_V3", random_weights.as_uri())
    extractor = find_extractor(empty_root, report=ConsoleReporter())
    said = capsys.readouterr().err
    assert f"downloading the Inception weights into {extractor.path.parent}" in said
    size = -(-random_weights.stat().st_size // 2**20)
    assert f"Inception weights, MiB: 1/{size} " in said
    assert f"Inception weights, MiB: {size}/{size} " in said
    assert extractor.path.read_bytes() == random_weights.read_bytes()
    assert find_extractor(empty_root, download=False) == extractor


class Answer(io.BytesIO):
    """A server's answer with the length that it announced."""

    def __init__(self, content: bytes, announced: int):
        super().__init__(content)
        self.headers = {"Content-Length": str(announced)}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(Answer(b"some", 1000), "4 of 1000 bytes came"), (Answer(b"page", 4), "not a whole file of weights")],
)
def test_what_came_wrong_is_not_kept(
    empty_root: Path, monkeypatch: pytest.MonkeyPatch, answer: Answer, reason: str
) -> None:
    """Breaks if a lost connection, or a login page, is taken for the weights at every later start."""
    monkeypatch.setattr(inception.urllib.request, "urlopen", lambda *args, **kwargs: answer)
    with pytest.raises(ExtractorNotFound, match=rf"could not be downloaded \(.*{reason}"):
        find_extractor(empty_root)
    assert [path for path in (empty_root.parent / "torch").rglob("*") if path.is_file()] == []


def test_a_root_that_may_not_be_searched_is_a_sentence(empty_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a folder of somebody else leaves as a traceback."""

    def refuse(path: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(UserError, match=f"{empty_root} cannot be searched .*Permission denied.*--data-root"):
        find_extractor(empty_root, download=False)


def test_self_check_refuses_other_weights(random_weights: Path) -> None:
    """Breaks if an evaluation goes ahead with weights of the right shapes and wrong values."""
    with pytest.raises(UserError, match="not the Inception weights of 2015-12-05"):
        self_check(open_extractor(random_weights), CPU)


def test_self_check_passes_the_official_weights(shared: Path, tmp_path: Path) -> None:
    """Breaks if the stored statistics, the fixed images or the arithmetic of the network change."""
    unpack = runpy.run_path(str(shared / "data" / "unpack.py"))
    unpack["inception"](tmp_path)
    extractor = find_extractor(tmp_path, download=False)
    assert extractor.layers == ("64", "192", "768")
    self_check(extractor, CPU)


def test_the_fixed_images_stay_as_they_are() -> None:
    """Breaks if the images whose statistics are stored change."""
    images = fixed_images()
    assert (images.shape, images.dtype) == ((4, 3, 32, 32), np.uint8)
    assert images[3, 2, 31, 30] == (37 * 3 + 59 * 2 + 3 * 900 + 5 * 4 * 31 + 30 * 31) % 256
