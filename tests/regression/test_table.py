"""Every system of the table: its real recipe at its tiny size, on the embedded photos, against golden curves."""

import json
import shutil
from pathlib import Path

import pytest

from reproduce import results, table
from reproduce.systems import built, presets_of
from tests.golden import GOLDEN, curves_of, hold, one_thread
from tests.systems.small import needs_library


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", built())
def test_tiny_system(tmp_path: Path, name: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture) -> None:
    """A change anywhere between the pixels and a system's losses moves a curve; its row and its line are there."""
    needs_library(presets_of(name)["tiny"])
    folder = tmp_path / "results"
    (folder / "measured").mkdir(parents=True)
    shutil.copy(GOLDEN.parent / "paper.toml", folder)
    arguments = ["--systems", name, "--preset", "tiny", "--dataset", "photos", "--device", "cpu", "--no-download"]
    places = ["--runs", str(tmp_path / "runs"), "--results", str(folder), "--data-root", str(tmp_path)]
    with one_thread():
        assert table.main([*arguments, *places]) == 0
    row, *more = results.read_all(folder / "measured")
    assert (row.learning, row.metric, row.of.name, row.complete) == (name, "parameters", "samples", True)
    assert f"{row.value:,.0f}" in capsys.readouterr().out
    bits = {"glow": 8, "pixelcnn": 4}
    assert [(each.metric, each.source, each.images, each.bits) for each in more] == (
        [("bits_per_dimension", "held-out", 1000, bits[name])] if name in bits else []
    )
    assert all(0 < each.value < 8 for each in more)
    (run,) = (tmp_path / "runs").glob(f"photos-{name}-tiny-*")
    first = json.loads((run / "events.jsonl").read_text().splitlines()[0])
    names = sorted(first.keys() - {"step", "seconds"})
    stored, _ = results.read_artifact(run / "training.npz", names, [])
    assert stored[names[0]][0, 0] == first["step"], "the curves are left beside the run, for a row that did not learn"
    curves = curves_of(run, names, diagnosed=False)
    hold(curves, f"table-tiny-photos-{name}", tmp_path, request.config.getoption("--write-golden"))
