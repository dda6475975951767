"""The real CIFAR-10 recipe at its tiny size, on the embedded photos, against golden curves of this device class."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from jlebm import results
from jlebm.run import device_class
from reproduce import cifar10

GOLDEN = Path(__file__).resolve().parents[2] / "results/golden"
COMMAND = "nox -s regression -- --write-golden"
CURVES = ("reconstruction", "energy_posterior/z2", "energy_posterior/z1", "energy_prior/z2", "energy_prior/z1")
RTOL, ATOL = 1e-3, 1e-3


@pytest.mark.timeout(900)
@pytest.mark.parametrize("learning", ["joint-mle", "variational"])
def test_tiny_recipe(tmp_path: Path, learning: str, request: pytest.FixtureRequest) -> None:
    """A change anywhere between the pixels and the energies moves a curve; the rows come out whole."""
    folder = tmp_path / "results"
    (folder / "measured").mkdir(parents=True)
    for name in ("paper.toml", "expected.toml"):
        shutil.copy(GOLDEN.parent / name, folder)
    arguments = ["--preset", "tiny", "--learning", learning, "--dataset", "photos", "--device", "cpu", "--no-download"]
    places = ["--runs", str(tmp_path / "runs"), "--results", str(folder), "--data-root", str(tmp_path)]
    assert cifar10.main([*arguments, *places]) == 0

    (run,) = (tmp_path / "runs").iterdir()
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    curves = {name: [event[name] for event in events] for name in CURVES}
    path = GOLDEN / f"cifar10-tiny-photos-{learning}.json"
    device = device_class(torch.device("cpu"))
    if request.config.getoption("--write-golden"):
        results.write_golden(curves, path, device)
    verdict = results.compare_golden(curves, path, device, rtol=RTOL, atol=ATOL, command=COMMAND)
    rows = {(row.metric, row.source): row.value for row in results.read_all(folder / "measured")}
    assert rows["latent_auc", "ebm-prior"] < rows["latent_auc", "gaussian-prior"], "the energies learned nothing"
    if verdict.status == "NOT RUN":
        pytest.skip(f"{verdict.reason}; {verdict.command}")
    assert verdict.status == "PASS", verdict.reason
