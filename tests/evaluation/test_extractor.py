import errno
import io
import pickle
import urllib.error
from pathlib import Path

import pytest
import torch

from jlebm.errors import UserError
from jlebm.evaluation import extractor as weights
from jlebm.evaluation.extractor import (
    FULL_WEIGHTS,
    LAYERS,
    PARTIAL_WEIGHTS,
    ExtractorNotFound,
    find_extractor,
    open_extractor,
)
from jlebm.evaluation.inception import fixed_images, open_network
from tests.inception import nan_from
from tests.told import Told

CPU = torch.device("cpu")


def save(state: dict[str, torch.Tensor], path: Path) -> Path:
    torch.save(state, path)
    return path


@pytest.mark.slow
def test_exact_layers_are_read_from_the_tensors_not_from_the_name(random_state, tmp_path: Path) -> None:
    """Breaks if a file with NaN above 768 passes for the full weights, or the NaN reach the features below."""
    extractor = open_extractor(save(nan_from(random_state, ("Mixed_7", "fc")), tmp_path / FULL_WEIGHTS))
    assert extractor.layers == ("64", "192", "768")
    assert open_network(extractor, ["64"], CPU)(torch.from_numpy(fixed_images()[:1]))["64"].isfinite().all()
    with pytest.raises(UserError, match="gives no layer 2048; its exact layers are: 64, 192, 768"):
        open_network(extractor, ["768", "2048"], CPU)


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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

    monkeypatch.setattr(weights.urllib.request, "urlopen", no_network)
    with pytest.raises(ExtractorNotFound, match=r"could not be downloaded \(.*no route to host.*\): put"):
        find_extractor(tmp_path)


@pytest.fixture
def empty_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root without weights, where torch hub has none either."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.mark.slow
def test_a_download_says_its_size_and_is_kept(
    random_weights: Path, empty_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if minutes pass in silence, or every start downloads again."""
    report = Told()
    monkeypatch.setattr(weights, "URL_INCEPTION_V3", random_weights.as_uri())
    extractor = find_extractor(empty_root, report=report)
    assert f"downloading the Inception weights into {extractor.path.parent}" in report.text
    size = -(-random_weights.stat().st_size // 2**20)
    assert f"Inception weights, MiB: 1/{size}" in report.lines
    assert f"Inception weights, MiB: {size}/{size}" in report.lines
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
    monkeypatch.setattr(weights.urllib.request, "urlopen", lambda *args, **kwargs: answer)
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
