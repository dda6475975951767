"""The ladder's recipe at its tiny size, on the embedded digits, against golden curves of the model and of its twin."""

import shutil
from pathlib import Path

import pytest

from reproduce import mnist, results
from tests.golden import GOLDEN, curves_of, hold, one_thread

LAYERS = ("z3", "z2", "z1")
MODEL = ("reconstruction", *(f"{what}/{z}" for what in ("kl", "energy_posterior", "energy_prior") for z in LAYERS))
TWIN = ("negative_elbo", "reconstruction", *(f"kl/{z}" for z in LAYERS))


@pytest.mark.timeout(900)
def test_tiny_ladder(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """A change in the ladder, its objectives or the chains in noise moves a curve; every layer is used; energies learn.

    The layers that are used are those that the image pays nats for, in both models.
    """
    folder = tmp_path / "results"
    (folder / "measured").mkdir(parents=True)
    for name in ("paper.toml", "expected.toml"):
        shutil.copy(GOLDEN.parent / name, folder)
    arguments = ["--preset", "tiny", "--dataset", "digits28", "--device", "cpu", "--no-download"]
    places = ["--runs", str(tmp_path / "runs"), "--results", str(folder), "--data-root", str(tmp_path)]
    with one_thread():
        assert mnist.main([*arguments, *places]) == 0
    write = request.config.getoption("--write-golden")
    for learning, names in (("variational", MODEL), ("gaussian", TWIN)):
        (run,) = (tmp_path / "runs").glob(f"digits28-{learning}-*")
        curves = curves_of(run, names, diagnosed=learning == "variational")
        hold(curves, f"mnist-tiny-digits28-{learning}", tmp_path, write)
        assert all(curves[f"kl/{z}"][-1] > 0.5 for z in LAYERS), "a layer has collapsed"
    rows = {(row.learning, row.metric, row.of.name): row.value for row in results.read_all(folder / "measured")}
    # 200 held-out latents a side: an AUC of 0.9 has a standard error of 0.015, and the gain must be seen beyond it.
    gaussian, ebm = (rows["variational", "latent_auc", f"{prior}-prior"] for prior in ("gaussian", "ebm"))
    assert ebm < gaussian - 0.03, "the energies learned nothing"
    assert rows["variational", "latent_accuracy", "posterior"] > 50, "the latents know nothing of the digits"
