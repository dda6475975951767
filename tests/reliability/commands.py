"""Every command that trains and stores, at a size of seconds and in folders of its own."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from jlebm.data.catalogue import CATALOGUE, Entry
from jlebm.errors import exit_on_user_error
from reproduce import anomaly, ood, table
from reproduce.pipelines.recipe import run_recipe
from reproduce.presets import anomaly_sizes
from reproduce.presets.recipes import Recipe
from tests.reproduce import test_anomaly, test_ladder, test_ood, test_recipe, test_two_stage
from tests.small import IMAGES, fit_one, ladder_experiment

# What is no artifact: the state of a training, the events, the lock, and the rows.
STATE = ("checkpoint.pt", "config.json", "events.jsonl", "lock", ".lock", "backbone.sha256")


def places(folder: Path) -> list[str]:
    """Return arguments that keep everything in a folder; the results folder is a new one."""
    (folder / "root").mkdir(parents=True, exist_ok=True)
    names = {"--runs": "runs", "--results": "results", "--data-root": "root"}
    return [*(word for option, name in names.items() for word in (option, str(folder / name))), "--no-download"]


def recipe(one: Recipe, folder: Path, *said: str) -> int:
    """Run a recipe's command and return its exit code."""
    main = exit_on_user_error(lambda: run_recipe(one, [*places(folder), "--device", "cpu", *said], ""))
    return main()


def joint(folder: Path) -> int:
    """Run the two-layer recipe."""
    return recipe(test_recipe.RECIPE, folder)


def two_stage(folder: Path) -> int:
    """Run both stages."""
    return recipe(test_two_stage.RECIPE, folder)


def ladder(folder: Path) -> int:
    """Run model and twin, at a preset whose arrays the repository keeps."""
    return recipe(test_ladder.RECIPE, folder, "--preset", "cpu")


def anomalies(folder: Path) -> int:
    """Hold one digit out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(anomaly_sizes.PRESETS, "tiny", test_anomaly.SMALL)
        return anomaly.main([*places(folder), "--device", "cpu", "--digits", "1"])


def outside(folder: Path) -> int:
    """Find digits outside of noise by a ladder of a preset that is kept."""
    root = folder / "root"
    for name, images in (("noise", IMAGES), ("noise-test", test_ood.TEST)):
        (root / name).mkdir(parents=True, exist_ok=True)
        for index, image in enumerate(images):
            if not (root / name / f"{index:03}.png").exists():
                Image.fromarray(image[0]).save(root / name / f"{index:03}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CATALOGUE, "noise", Entry("noise", shape=(8, 8, 1)))
        run, _ = fit_one(folder / "runs", ladder_experiment(preset="cpu"), IMAGES)
        rest = [word for word in places(folder) if word not in ("--runs", str(folder / "runs"))]
        return ood.main(["--run", str(run.folder), "--outside", "digits", "--device", "cpu", "--images", "20", *rest])


def system(folder: Path) -> int:
    """Train one other system of the table."""
    small = ["--systems", "pixels", "--preset", "tiny", "--dataset", "photos", "--images", "20", "--device", "cpu"]
    return table.main([*places(folder), *small, "--set", "training.steps=1", "training.batch_size=2"])


COMMANDS: dict[str, Callable[[Path], int]] = {
    "joint": joint,
    "two-stage": two_stage,
    "ladder": ladder,
    "anomaly": anomalies,
    "ood": outside,
    "system": system,
}


def artifacts(folder: Path) -> list[Path]:
    """Return what a command left beside its state and its rows."""
    found = [path for where in ("runs", "results") for path in (folder / where).rglob("*") if path.is_file()]
    # What tells of the samples beside it is of no use without them, and without it they are drawn anew when needed.
    told = {path.with_suffix(".json") for path in found if path.suffix == ".npy"}
    return sorted(path for path in found if path.name not in STATE and path.suffix != ".jsonl" and path not in told)


def fresh(folder: Path) -> Path:
    """Return a folder with nothing in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
