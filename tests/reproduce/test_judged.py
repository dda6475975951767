"""A recipe's rows of the fitted two-sample test and of copies, measured on a stored run."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from jlebm import data
from jlebm.backbones.ladder import LadderConfig
from jlebm.evaluation.copying import copying
from jlebm.evaluation.judge import fitted_auc
from jlebm.evaluation.neighbours import nearest_rows
from jlebm.randomness import derive_seed
from reproduce import results
from reproduce.pipelines.recipe import run_recipe
from reproduce.presets.ladder_sizes import ADAM, LadderPreset, Updates, ladder
from reproduce.presets.recipes import Recipe
from tests.reproduce.test_ladder import EXTENT, SMALL, places

EXPERIMENT = dataclasses.replace(
    ladder(
        "digits28",
        "cpu",
        LadderConfig((1, 28, 28), (2, 3), channels=(6, 5, 4), conditional_hidden=(7,), features=9),
        Updates(20, 20, warmup=8),
        dataclasses.replace(ADAM, ema_decay=0.9),
        energy_units=6,
    ),
    prior_chain=SMALL.prior_chain,
)
RECIPE = Recipe("digits28", {}, "photos", ladder={"cpu": LadderPreset(EXPERIMENT, images=60, extent=EXTENT)})
POWER = ("fitted_auc_halves", "fitted_auc_shifted", "fitted_auc_mixed")
COPIES = ("nearer_pixels", "copied_pixels")
PRIORS = ("gaussian-prior", "ebm-prior")


def measured(folder: Path, learning: str = "variational") -> dict[tuple[str, str, int], results.Measurement]:
    """Return the rows of this learning by metric, source and number of images."""
    rows = results.read_all(folder / "results/measured")
    return {(row.metric, row.of.name, row.images): row for row in rows if row.learning == learning}


@pytest.mark.slow
def test_a_stored_run_is_judged_without_training_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Breaks if a row is left out, is of other samples than the run's, or the run is trained again for it."""
    arguments = places(tmp_path)
    assert run_recipe(RECIPE, arguments, "") == 0
    told = capsys.readouterr().out
    assert "not measured: fitted_auc: 60 latents of different images were drawn, and the fitted two-sample test" in told
    assert f"not measured: {', '.join(POWER)}: 60 latents" in told
    before = measured(tmp_path)
    assert not {metric for metric, _, _ in before} & {"fitted_auc", *POWER, *COPIES}
    (run,) = (tmp_path / "runs").glob("digits28-variational-*")
    checkpoint = (run / "checkpoint.pt").read_bytes()

    more = [*arguments, "--images", "1000", "--held-out", "digits28"]
    assert run_recipe(RECIPE, more, "") == 0
    capsys.readouterr()
    rows = measured(tmp_path)
    assert (run / "checkpoint.pt").read_bytes() == checkpoint
    new = {key for key in rows if key[0] in ("fitted_auc", *POWER, *COPIES)}
    assert new == {
        *(("fitted_auc", f"{prior}{layer}", 1000) for prior in PRIORS for layer in ("", "/z2", "/z1")),
        *((metric, "posterior", 1000) for metric in POWER),
        *((metric, prior, 1000) for metric in COPIES for prior in PRIORS),
    }
    for key in new:
        assert rows[key].spread is not None
        assert 0 <= rows[key].value <= 1

    ours, theirs = (np.load(run / f"samples/{name}-latents.npy") for name in ("posterior", "ebm-prior"))
    seed = derive_seed("evaluation", 1) % 2**32
    again = fitted_auc(ours[:, 2:], theirs[:, 2:], [(3,)], seed)
    row = rows["fitted_auc", "ebm-prior/z1", 1000]
    assert (row.value, row.spread) == again
    assert "epsilon" in row.chain
    equal = rows["fitted_auc_halves", "posterior", 1000]
    assert abs(equal.value - 0.5) < 3 * (equal.spread or 0)

    train, test = data.load("digits28"), data.load("digits28", split="test")
    drawn = np.load(run / "samples/ebm-prior.npy")
    nearest = [nearest_rows(some, train.images).distance for some in (drawn, test.images)]
    found = copying(nearest[0], nearest[1])
    row = rows["nearer_pixels", "ebm-prior", 1000]
    assert (row.value, row.spread) == found.nearer
    assert row.reference == (
        f"digits28/train, {len(train.images)} images, sha256:{train.digest[:12]}; held out digits28/test, "
        f"{len(test.images)} images, sha256:{test.digest[:12]}"
    )
    with np.load(run / "nearest.npz") as arrays:
        assert arrays["samples"].shape == arrays["held_out"].shape == (2, 2, 8, 1, 28, 28)
    assert (run / "nearest.png").is_file()

    twin = measured(tmp_path, "gaussian")
    assert ("fitted_auc", "gaussian-prior/z2", 1000) in twin
    assert ("nearer_pixels", "gaussian-prior", 1000) in twin
    assert run_recipe(RECIPE, more, "") == 0
    assert "its rows are kept" in capsys.readouterr().err
    assert measured(tmp_path) == rows


def test_held_out_images_that_were_trained_on_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Breaks if training images pass for held-out ones, or the sentence comes after hours of training."""
    from jlebm.errors import exit_on_user_error

    arguments = [*places(tmp_path), "--held-out"]
    run = exit_on_user_error(lambda rest: run_recipe(RECIPE, [*arguments, *rest], ""))
    assert run(["digits"]) == 2
    assert "8 x 8, and the training images 1 x 28 x 28" in capsys.readouterr().err
    assert run(["nothing"]) == 2
    assert "nothing" in capsys.readouterr().err
    assert not list((tmp_path / "runs").glob("*/checkpoint.pt"))
