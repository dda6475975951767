"""Archives of torch and numpy, and what a run takes over from one: no bit, size or name is believed."""

import io
import os
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jlebm import checkpoints, torch_files
from jlebm.archives import Damaged, open_archive
from jlebm.backbones.nvae import load_nvae
from jlebm.errors import UserError
from jlebm.evaluation import open_extractor
from jlebm.npz import read_arrays
from jlebm.training import initial_state
from tests.small import backbone, experiment, train, train_stage

CPU = torch.device("cpu")
ROOM = 2**20


def saved(content: Any, **how: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **how)
    return file.getvalue()


def test_every_byte_of_a_checkpoint_is_held() -> None:
    """Breaks if one flipped bit passes anywhere: in a tensor, a name, a size, the padding or the directory."""
    whole = saved({"weights": torch.arange(9.0), "none": torch.zeros(0), "step": 3})
    open_archive(io.BytesIO(whole))
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        with pytest.raises(Damaged):
            open_archive(io.BytesIO(changed))


def test_every_byte_of_stored_arrays_is_held() -> None:
    """Breaks if a flipped bit changes an array; a few of a compressed member stand for the same bytes either way."""
    file = io.BytesIO()
    arrays = {"energy": np.linspace(0, 1, 40).reshape(4, 10).T, "text": np.array("a run"), "none": np.zeros((0, 3))}
    np.savez_compressed(file, **arrays)  # pyright: ignore
    whole = file.getvalue()
    read = read_arrays(io.BytesIO(whole), ROOM)
    assert all(np.array_equal(read[name], value) and read[name].dtype == value.dtype for name, value in arrays.items())
    unnoticed = 0
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        try:
            found = read_arrays(io.BytesIO(changed), ROOM)
        except Damaged:
            continue
        unnoticed += 1
        assert all(found[name].tobytes() == value.tobytes() for name, value in read.items())
    assert unnoticed < len(whole) / 20


@pytest.mark.parametrize("place", [3, 20, 200, -1, -70])
def test_a_flipped_bit_of_weights_is_refused(tmp_path: Path, place: int) -> None:
    """Breaks if weights, or the configuration beside them, are read that are not those that were written."""
    path = tmp_path / "weights.safetensors"
    checkpoints.save_weights(path, torch.nn.Linear(9, 9), {"config": {"a": 1}, "step": 3})
    assert checkpoints.load_weights(path)[1] == {"config": {"a": 1}, "step": 3}
    whole = path.read_bytes()
    for bit in range(8):
        changed = bytearray(whole)
        changed[place] ^= 1 << bit
        path.write_bytes(changed)
        with pytest.raises(UserError, match="not a whole weights file"):
            checkpoints.load_weights(path)


def test_a_file_without_its_crcs_is_read(tmp_path: Path) -> None:
    """Breaks if files of people who switched torch's CRC-32 off are called damaged."""
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.arange(3.0)}, tmp_path / "x.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    with (tmp_path / "x.pt").open("rb") as file:
        assert torch.equal(torch_files.read(file)["a"], torch.arange(3.0))


READERS: dict[str, Callable[[Path], object]] = {
    "checkpoint.pt": lambda path: checkpoints.load(path, "digest", 1),
    "weights.safetensors": checkpoints.load_weights,
    "nvae.pt": load_nvae,
    "nvae.safetensors": load_nvae,
    "inception.pth": open_extractor,
}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", READERS)
def test_what_may_not_be_read_is_not_called_damaged(tmp_path: Path, name: str) -> None:
    """Breaks if a missing permission is answered with damage, or with the advice to delete the file."""
    (tmp_path / name).write_bytes(b"whole")
    (tmp_path / name).chmod(0)
    assert_permission(READERS[name], tmp_path / name)


@pytest.mark.parametrize("name", READERS)
def test_a_refusal_of_the_system_is_not_called_damaged(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same for whoever may read everything: the system's own refusal of the file is put in its place."""
    (tmp_path / name).write_bytes(b"whole")
    opened = Path.open

    def refused(path: Path, *how: Any, **more: Any) -> Any:
        if path.name == name:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *how, **more)

    monkeypatch.setattr(Path, "open", refused)
    assert_permission(READERS[name], tmp_path / name)


def assert_permission(read: Callable[[Path], object], path: Path) -> None:
    with pytest.raises(UserError, match="may not be read") as caught:
        read(path)
    assert not any(word in str(caught.value) for word in ("damaged", "delete", "whole", "download"))


# ---- what a run takes over


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("run"), stop_after=2)[0].checkpoint


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "nothing of the noise": (lambda state: state.pop("noise"), "it has no 'noise'"),
    "no average": (lambda state: state.update(ema=None), "its ema is a NoneType"),
    "a missing weight": (lambda state: state["model"].popitem(), "its model is without '"),
    "a weight of another shape": (lambda state: change_first(state["model"], torch.zeros(1)), "its model/.* is"),
    "half precision": (lambda state: change_first(state["model"], None), "of torch.float16, and"),
    "a text for a step": (lambda state: state.update(step="3"), "its step is a str"),
    "a step before the first": (lambda state: state.update(step=-1), "its step -1"),
    "endless seconds": (lambda state: state.update(seconds=float("inf")), "its seconds inf"),
    "noise that is none": (lambda state: state.update(noise=state["noise"].fill_(255)), "state of a random generator"),
    "noise of no bytes": (lambda state: state.update(noise=[1]), "its noise is a list"),
    "another optimiser": (lambda state: state.update(optimizer={}), "its optimizer has no 'param_groups'"),
    "no second moment": (lambda state: state["optimizer"]["state"][0].pop("exp_avg_sq"), "without 'exp_avg_sq'"),
    "a misshapen moment": (lambda state: state["optimizer"]["state"][0].update(exp_avg=torch.zeros(3)), "0/exp_avg is"),
    "a parameter too many": (lambda state: state["optimizer"]["state"].update({999: {}}), "parameter '999'"),
    "other parameters": (lambda state: state["optimizer"]["param_groups"][0]["params"].pop(), "of other parameters"),
    "a text for a rate": (lambda state: state["optimizer"]["param_groups"][0].update(lr="x"), "lr is a str"),
}


def change_first(model: dict[str, Any], value: Any) -> None:
    name = next(iter(model))
    model[name] = model[name].half() if value is None else value


@pytest.mark.parametrize("name", CHANGES)
def test_a_checkpoint_that_does_not_fit_is_named(stored: Path, name: str) -> None:
    """Breaks if what is missing, misshapen or of another kind ends in a traceback, or is taken over in silence."""
    state = initial_state(experiment(), 1, CPU)
    found = checkpoints.load(stored, experiment().digest(), 1)
    edit, sentence = CHANGES[name]
    edit(found)
    before = {name: value.clone() for name, value in state.learned.state_dict().items()}
    with pytest.raises(UserError, match=f"does not fit it: .*{sentence}"):
        state.load_state_dict(found)
    assert all(torch.equal(before[name], value) for name, value in state.learned.state_dict().items())


@pytest.mark.parametrize("stage", ["backbone", "two-stage"])
def test_each_stage_fits_its_own_checkpoint(tmp_path: Path, stage: str) -> None:
    """Breaks if a schedule, a moment or an average of a whole checkpoint is taken for another's."""
    train_stage(tmp_path, stage, stop_after=3)
    run, ended = train_stage(tmp_path, stage)
    assert ended.step == run.experiment.training.steps


@pytest.mark.parametrize("content", [{"format": torch.zeros(3)}, {"format": 1}, [], 3, {1: 2}])
def test_odd_content_is_no_checkpoint(tmp_path: Path, content: Any) -> None:
    """Breaks if a file of tensors that is no checkpoint ends in a traceback."""
    torch.save(content, tmp_path / "checkpoint.pt")
    with pytest.raises(UserError, match=r"not a checkpoint of format|lacks what a checkpoint"):
        checkpoints.load(tmp_path / "checkpoint.pt", "digest", 1)


# ---- published networks as people have them


def published(**changes: Any) -> dict[str, Any]:
    network = backbone()
    sizes = {name: value for name, value in vars(network.config).items() if not name.startswith("image_")}
    return {"state_dict": dict(network.state_dict()), "args": Namespace(**sizes | {"dataset": "x_16"} | changes)}


def named(change: Callable[[str, torch.Tensor], tuple[str, Any]]) -> dict[str, Any]:
    content = published()
    content["state_dict"] = dict(change(name, value) for name, value in content["state_dict"].items())
    return content


FORMS: dict[str, Callable[[], Any]] = {
    "DataParallel": lambda: named(lambda name, value: ("module." + name, value)),
    "torch.compile": lambda: named(lambda name, value: ("_orig_mod." + name, value)),
    "both": lambda: named(lambda name, value: ("_orig_mod.module." + name, value)),
    "parameters": lambda: named(lambda name, value: (name, torch.nn.Parameter(value, requires_grad=False))),
    "numpy's numbers": lambda: published(learning_rate=np.float64(0.1), num_nf=np.int64(0), use_se=np.bool_(True)),
    "paths": lambda: published(root=Path("/data/pictures")),
    "args as a dictionary": lambda: published() | {"args": vars(published()["args"])},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("legacy", [False, True])
def test_a_published_network_is_read_in_each_form(tmp_path: Path, form: str, legacy: bool) -> None:
    """Breaks if wrappers' prefixes, numpy's scalars or torch's older format keep weights from being read."""
    (tmp_path / "x.pt").write_bytes(saved(FORMS[form](), _use_new_zipfile_serialization=not legacy))
    read, network = load_nvae(tmp_path / "x.pt"), backbone()
    assert read.config == network.config
    assert all(torch.equal(read.state_dict()[name], value) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (lambda: published(num_channels_enc="8"), "num_channels_enc must be a whole number, not '8'"),
        (lambda: published(num_channels_enc=None), "must be a whole number, not None"),
        (lambda: published(use_se="yes"), "use_se must be true or false"),
        (lambda: published(num_groups_per_scale=10**6), "a network of the sizes that it claims"),
        (lambda: published()["state_dict"], "a bare state dict"),
        (lambda: published() | {"state_dict": {3: torch.zeros(1)}}, "not a tensor with a name"),
        (lambda: named(lambda name, value: (name, value.to(torch.int32))), "holds numbers of type torch.int32"),
        (lambda: published(hook=torch.nn.ReLU), "it names 'torch.nn.modules.activation.ReLU'"),
    ],
)
def test_an_odd_network_is_a_sentence(tmp_path: Path, content: Callable[[], Any], sentence: str) -> None:
    """Breaks if sizes that are none, foreign objects or nameless tensors end in a traceback, or in torch's advice."""
    torch.save(content(), tmp_path / "x.pt")
    with pytest.raises(UserError, match=sentence) as caught:
        load_nvae(tmp_path / "x.pt")
    assert "weights_only" not in str(caught.value)
