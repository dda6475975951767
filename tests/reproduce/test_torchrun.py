"""A recipe that torchrun starts: one set of rows, one table, one sentence."""

from pathlib import Path
from types import ModuleType

import pytest

from reproduce import anomaly, priors, table
from reproduce.results import read
from tests.test_parallel import ROOT, start


@pytest.mark.slow
def test_the_recipe_under_torchrun(tmp_path: Path) -> None:
    """From data to the table: one set of rows, one table, and the same latents' figures as with one process."""
    values = {}
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        (folder / "results/measured").mkdir(parents=True)
        for name in ("paper.toml", "expected.toml"):
            (folder / "results" / name).write_text((ROOT / "results" / name).read_text())
        places = ["--runs", str(folder / "runs"), "--results", str(folder / "results"), "--data-root", str(folder)]
        size = ["--set", "training.steps=2", "--images", "60", "--device", "cpu", "--no-download"]
        ran = start(processes, "reproduce.cifar10", "--preset", "tiny", "--dataset", "photos", *places, *size)
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.count("photos, preset custom, two-layer joint-mle") == 1
        rows = read(folder / "results/measured/photos.jsonl")
        assert len(rows) == 3
        values[processes] = {(row.metric, row.of.name): row.value for row in rows}
        (run,) = (folder / "runs").iterdir()
        assert {"samples.png", "energy.png", "training.png", "weights.safetensors"} <= {p.name for p in run.iterdir()}
    for key, value in values[1].items():
        assert values[2][key] == pytest.approx(value, rel=1e-3), key


@pytest.mark.slow
def test_a_batch_that_cannot_be_shared_is_one_sentence(tmp_path: Path) -> None:
    """Said once, not by every process, and without a traceback of ours."""
    size = ["--set", "training.batch_size=31", "--device", "cpu", "--no-download", "--data-root", str(tmp_path)]
    places = ["--runs", str(tmp_path / "runs"), "--preset", "tiny", "--dataset", "photos"]
    ran = start(2, "reproduce.cifar10", *places, *size)
    assert ran.returncode != 0
    assert ran.stderr.count("error: a batch of 31 cannot be shared equally by 2 processes") == 1
    assert "UserError" not in ran.stderr


@pytest.mark.parametrize("command", [anomaly, priors, table])
def test_what_one_process_trains_refuses_several(
    command: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Breaks if under torchrun every process trains the same run, and they write over one another."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert command.main(["--device", "cpu", "--no-download"]) == 2
    assert "are trained by one process each; leave torchrun out" in capsys.readouterr().err
