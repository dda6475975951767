"""Files of weights: whole or refused, and never executed."""

import json
import os
import pickle
from pathlib import Path

import pytest
import torch

from jlebm import checkpoints
from jlebm.errors import UserError
from tests.small import train

STATE = {"weights": torch.arange(1000.0), "step": 3}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    checkpoints.save(tmp_path / "checkpoint.pt", STATE, "digest", 1)
    return tmp_path / "checkpoint.pt"


def test_round_trip(path: Path) -> None:
    """What is read is what was written."""
    state = checkpoints.load(path, "digest", 1)
    assert torch.equal(state["weights"], STATE["weights"])
    assert state["step"] == 3


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_a_file_cut_short_is_refused(path: Path, share: float) -> None:
    """However much of it is left, half a checkpoint is a sentence and not a stack trace."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match="delete it to start anew"):
        checkpoints.load(path, "digest", 1)


class Hostile:
    """Creates a file when it is unpickled."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_a_hostile_pickle_is_never_executed(tmp_path: Path, write) -> None:
    """A checkpoint from a stranger that would run code is refused, and the code has not run."""
    path, target = tmp_path / "hostile.pt", tmp_path / "executed"
    write({"state": Hostile(target)}, path)
    with pytest.raises(UserError, match=r"nothing of it was executed|cut short or damaged"):
        checkpoints.load(path, "digest", 1)
    assert not target.exists()


def test_another_configuration_or_seed_is_refused(path: Path) -> None:
    """Weights of another experiment would train on silently."""
    for digest, seed in (("other", 1), ("digest", 2)):
        with pytest.raises(UserError, match="another configuration or seed"):
            checkpoints.load(path, digest, seed)


def test_another_file_of_tensors_is_refused(tmp_path: Path) -> None:
    """A state dict of some other program is named as such."""
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="not a checkpoint of format"):
        checkpoints.load(tmp_path / "other.pt", "digest", 1)


def test_weights_round_trip_with_their_header(tmp_path: Path) -> None:
    """Weights leave as safetensors with configuration and digest beside them; half precision comes back as float32."""
    run, state = train(tmp_path)
    path = tmp_path / "weights.safetensors"
    checkpoints.save_weights(path, state.model, run.header())
    tensors, header = checkpoints.load_weights(path)
    assert header == json.loads(json.dumps(run.header()))
    model = run.experiment.build()
    model.load_state_dict(tensors)
    for ours, theirs in zip(model.parameters(), state.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    checkpoints.save_weights(path, state.model, {}, torch.float16)
    assert all(value.dtype == torch.float32 for value in checkpoints.load_weights(path)[0].values())
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match="not a whole weights file"):
        checkpoints.load_weights(path)


def test_tied_weights_are_kept(tmp_path: Path) -> None:
    """Breaks if two layers that share a tensor could not be stored, or came back with other values."""
    tied = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    checkpoints.save_weights(tmp_path / "tied.safetensors", tied, {"of": "mine"})
    found, header = checkpoints.load_weights(tmp_path / "tied.safetensors")
    assert all(torch.equal(value, tied.state_dict()[name]) for name, value in found.items())
    assert (len(found), header) == (4, {"of": "mine"})
    for name in ("sha256", "format"):
        with pytest.raises(UserError, match=f"'{name}' is the file's own"):
            checkpoints.save_weights(tmp_path / "tied.safetensors", tied, {name: 1})


def test_the_format_without_checksums_is_not_read_as_our_own(path: Path) -> None:
    """Breaks if a checkpoint of torch's format before 1.6, which this program never wrote, is loaded unchecked."""
    content = torch.load(path, weights_only=True)
    torch.save(content, path, _use_new_zipfile_serialization=False)
    with pytest.raises(UserError, match=r"the format before torch 1\.6, whose bytes no checksum guards"):
        checkpoints.load(path, content["config_digest"], content["seed"])
