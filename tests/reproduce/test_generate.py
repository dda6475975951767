"""`generate` from its command line: three formats of the same images, kills and resumes, one sentence for bad input."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jlebm
from jlebm.devices import device_class, resolve_device
from jlebm.evaluation.sample_files import open_images
from jlebm.sampling import Sampler, Samples
from reproduce.generate import main, parse_seeds
from reproduce.pipelines.image_output import Output
from tests.commands import instead
from tests.small import IMAGES, experiment, fit_one

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a trained model of 8x8 grey images, drawn four at a time."""
    ours, state = fit_one(tmp_path_factory.mktemp("runs"), experiment(), IMAGES)
    sampler = Sampler(ours.experiment.prior_chain)
    jlebm.save_model(ours.weights, state.evaluated_model(), ours.header(), sampler, 4)
    return ours.folder


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every seed whose image is drawn by the library, in order."""
    seen: list[int] = []
    original = jlebm.TrainedModel.draw

    def draw(self: jlebm.TrainedModel, seeds: Sequence[int], *rest: Any, **more: Any) -> Iterator[Samples]:
        batches = original(self, seeds, *rest, **more)

        def counted() -> Iterator[Samples]:
            left = list(seeds)
            for batch in batches:
                seen.extend(left[: len(batch.images)])
                del left[: len(batch.images)]
                yield batch

        return counted()

    monkeypatch.setattr(jlebm.TrainedModel, "draw", draw)
    return seen


def command(run: Path, seeds: str, out: Path, *rest: str) -> int:
    usual = ["--run", str(run), "--seeds", seeds, "--out", str(out), "--device", "cpu"]
    return main(instead(usual, rest))


def test_three_formats_hold_the_same_images(run: Path, tmp_path: Path) -> None:
    """Breaks if a format loses a pixel, a channel or the order, or `evaluate` can no longer read it."""
    expected = jlebm.load(run).sample([*range(11), 200])
    for name in ("a.npz", "b.zip", "c", "new/folder/d.npz"):
        assert command(run, "0-10,200", tmp_path / name) == 0
        np.testing.assert_array_equal(open_images(tmp_path / name), expected)
    with np.load(tmp_path / "a.npz") as arrays:
        assert arrays["seeds"].tolist() == [*range(11), 200]
        said = json.loads(str(arrays["jlebm"]))
    assert (said["prior"], said["images"], said["shape"], said["batch"]) == ("ebm-prior", 12, [1, 8, 8], 4)
    assert said["device"] == device_class(resolve_device("cpu"))
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        assert archive.namelist()[0] == "00000/img00000000.png"
        assert json.loads(archive.read("dataset.json"))["labels"] is None
    names = sorted(path.name for path in (tmp_path / "c").iterdir())
    assert names[:2] == ["dataset.json", "img00000000.png"]
    assert names[-1] == "img00000200.png"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "b.zip", "c", "new"], "nothing is left over"


def test_the_other_prior_and_another_sampler(run: Path, tmp_path: Path) -> None:
    """Breaks if --prior or --set is not what is drawn by."""
    model = jlebm.load(run)
    assert command(run, "0-5", tmp_path / "a.npz", "--prior", "gaussian-prior") == 0
    np.testing.assert_array_equal(open_images(tmp_path / "a.npz"), model.sample(range(6), "gaussian-prior"))
    assert command(run / "weights.safetensors", "0-5", tmp_path / "b.npz", "--set", "chain.steps=9") == 0
    assert model.sampler is not None
    longer = jlebm.load(run, sampler=model.sampler.override(["chain.steps=9"])).sample(range(6))
    np.testing.assert_array_equal(open_images(tmp_path / "b.npz"), longer)
    assert (longer != model.sample(range(6))).any()


def test_what_is_there_is_not_drawn_again(run: Path, tmp_path: Path, drawn: list[int]) -> None:
    """Breaks if the same command draws anew, or another one overwrites its output."""
    for name in ("a.npz", "b.zip", "c"):
        out = tmp_path / name
        assert command(run, "0-5", out) == 0
        assert drawn == [0, 1, 2, 3, 4, 5]
        before = out.stat().st_mtime_ns
        assert command(run, "0-5", out) == 0
        assert drawn == [0, 1, 2, 3, 4, 5]
        assert command(run, "0-6", out) == 2
        assert out.stat().st_mtime_ns == before
        drawn.clear()


def stopped(run: Path, out: Path, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a command draw some batches and then die without a word, as a kill does."""
    append = Output.append

    def dying(self: Output, batches: Iterator[np.ndarray]) -> Iterator[int]:
        for index, count in enumerate(append(self, batches)):
            yield count
            if index + 1 == after:
                raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(Output, "append", dying)
        with pytest.raises(SystemExit):
            command(run, "0-17", out)


@pytest.mark.parametrize("name", ["a.npz", "b.zip", "c"])
def test_it_goes_on_where_it_was(
    run: Path, tmp_path: Path, drawn: list[int], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if a batch is drawn twice or left out, or a half-written one is taken for whole."""
    out = tmp_path / name
    stopped(run, out, 2, monkeypatch)
    assert not out.exists()
    (partial,) = tmp_path.glob(".*.partial")
    with partial.open("ab") as file:
        file.write(bytes(100))  # of the third batch, which has 256
    drawn.clear()
    assert command(run, "0-17", out) == 0
    assert drawn == list(range(8, 18))
    np.testing.assert_array_equal(open_images(out), jlebm.load(run).sample(range(18)))
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_kill_while_the_output_is_written(
    run: Path, tmp_path: Path, drawn: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if images that are all drawn are drawn again, or what a half-written folder holds stays."""
    out = tmp_path / "images"

    def dying(self: Output) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(Output, "finish", dying)
        with pytest.raises(SystemExit):
            command(run, "0-5", out)
    (tmp_path / ".images.folder").mkdir()
    (tmp_path / ".images.folder/img99999999.png").write_bytes(b"")
    drawn.clear()
    assert command(run, "0-5", out) == 0
    assert drawn == []
    np.testing.assert_array_equal(open_images(out), jlebm.load(run).sample(range(6)))
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is a POSIX signal")
def test_a_real_kill(run: Path, tmp_path: Path) -> None:
    """Breaks if a process that is killed in the middle loses what it drew, or leaves a lock that stops the next one."""
    out, partial = tmp_path / "a.npz", tmp_path / ".a.npz.partial"
    arguments = ["--run", str(run), "--seeds", "0-1999", "--out", str(out), "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-m", "reproduce.generate", *arguments], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if partial.exists() and partial.stat().st_size > 100 * 64:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
    assert not out.exists()
    assert main(arguments) == 0
    np.testing.assert_array_equal(open_images(out), jlebm.load(run).sample(range(2000)))


def test_an_output_of_another_command_is_never_touched(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Breaks if foreign files are overwritten, or images of two commands end in one file."""
    stopped(run, tmp_path / "a.npz", 1, monkeypatch)
    for rest in (("--prior", "gaussian-prior"), ("--batch", "3"), ("--set", "chain.steps=9")):
        assert command(run, "0-17", tmp_path / "a.npz", *rest) == 2
        assert "holds images that another command began" in capsys.readouterr().err
    for name in ("mine.npz", "mine.zip", "mine"):
        (tmp_path / name).write_text("precious")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("precious")
    np.savez(tmp_path / "theirs.npz", IMAGES)
    for name in ("mine.npz", "mine.zip", "mine", "full", "theirs.npz"):
        assert command(run, "0-3", tmp_path / name) == 2
        assert "is there already and holds something else" in capsys.readouterr().err
    assert (tmp_path / "mine.npz").read_text() == (tmp_path / "full/notes.txt").read_text() == "precious"
    (tmp_path / "none").mkdir()
    assert command(run, "0-3", tmp_path / "none") == 0, "an empty folder is nobody's"


def test_two_at_once(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Breaks if two processes append to one array."""
    output = Output(tmp_path / "a.npz", [0], (1, 8, 8), {})
    with output.held():
        assert command(run, "0-3", tmp_path / "a.npz") == 2
    assert "another process is writing" in capsys.readouterr().err
    assert command(run, "0-3", tmp_path / "a.npz") == 0


@pytest.mark.parametrize(
    ("seeds", "out", "rest", "sentence"),
    [
        ("", "a.npz", (), "is an empty text"),
        ("0-", "a.npz", (), "is not a list of numbers and ranges"),
        ("1,,2", "a.npz", (), "is not a list of numbers and ranges"),
        ("1.5", "a.npz", (), "is not a list of numbers and ranges"),
        ("3-1", "a.npz", (), "must ascend"),
        ("0-5,5", "a.npz", (), "each seed only once"),
        ("0-99999999999", "a.npz", (), "asks for more than 10000000 images"),
        ("99999999999999999999", "a.npz", (), "beyond the largest seed"),
        ("0-3", "a.png", (), "is none of NAME.npz, NAME.zip or NAME"),
        ("0-3", "file/a.npz", (), "cannot be written"),
        ("0-3", "a.npz", ("--batch", "0"), "at least one at a time"),
        ("0-3", "a.npz", ("--set", "chain.step=3"), "the nearest known one is 'chain.steps'"),
        ("0-3", "a.npz", ("--set", "batch_norm=re-estimated"), "--set does not change batch_norm"),
        ("0-3", "a.npz", ("--set", "temperature=0.5"), "a chain in whitened noise"),
        ("0-3", "a.npz", ("--device", "tpu"), "unknown device"),
    ],
)
def test_bad_input_is_a_sentence(
    run: Path, tmp_path: Path, seeds: str, out: str, rest: tuple[str, ...], sentence: str, capsys, drawn: list[int]
) -> None:
    """Breaks if a mistake is found after images were drawn, leaves files behind, or ends in a traceback."""
    (tmp_path / "file").write_text("")
    assert command(run, seeds, tmp_path / out, *rest) == 2
    assert sentence in capsys.readouterr().err.strip().splitlines()[-1]
    assert drawn == []
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_run_that_has_no_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Breaks if a folder that is no run, or a run in the middle of its training, ends in a traceback."""
    (tmp_path / "run").mkdir()
    assert command(tmp_path / "run", "0-3", tmp_path / "a.npz") == 2
    assert "holds no weights.safetensors" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full disk is imitated by /dev/full")
def test_a_full_disk_is_a_sentence(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Breaks if the end of the disk ends in a traceback."""

    def on_a_full_disk(self: Output, batch_size: int) -> int:
        self.partial.symlink_to("/dev/full")
        return 0

    monkeypatch.setattr(Output, "drawn", on_a_full_disk)
    assert command(run, "0-3", tmp_path / "a.npz") == 2
    assert "no space left to write" in capsys.readouterr().err


def test_seeds_are_read_in_order() -> None:
    """Breaks if a range loses its last seed."""
    assert parse_seeds("0-3, 7,9-9") == [0, 1, 2, 3, 7, 9]
