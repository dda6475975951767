"""The README's example is run as it stands there."""

import re
import subprocess
from pathlib import Path

import pytest
import torch

from figures import pages
from figures.__main__ import pictures
from figures.registry import FIGURES
from jlebm.densities import PriorInLatents
from tests.test_packaging import sessions

README = Path(__file__).resolve().parents[1] / "README.md"


def test_the_example_of_ones_own_backbone() -> None:
    """It runs, and it learns: the energies come to tell posterior from prior samples, the chain moves towards them."""
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    torch.manual_seed(0)
    names: dict = {}
    exec(compile(code, str(README), "exec"), names)
    model, z = names["model"], names["z"]
    assert names["samples"].shape == (16, 1, 8, 8)
    assert names["samples"].dtype == torch.uint8
    density = PriorInLatents(model.backbone, model.energy)
    start = model.noise(16, names["PerImageNoise"]("sample", range(16)))
    assert density(z).mean() > density(start).mean()
    gaussian = model.sample_gaussian(500, names["noise"])
    posterior = model.backbone.posterior(names["images"][:500], names["noise"]).latents
    assert model.energies(posterior).sum(1).mean() < model.energies(gaussian).sum(1).mean()


def test_its_numbers_are_the_stored_ones() -> None:
    """The tables of measured numbers are those that the stored rows give; nobody types them."""
    changed = ["git", "status", "--porcelain", "--", "results"]
    if subprocess.run(changed, cwd=README.parent, capture_output=True, text=True, check=False).stdout:
        pytest.skip("results/ holds rows of one's own, which the README does not show")
    tables = pages.texts(README.parent / "results")
    assert sorted(name for names in pages.PAGES.values() for name in names) == sorted(tables)
    for page, names in pages.PAGES.items():
        text = (README.parent / page).read_text()
        for name in names:
            mark = pages.Mark.of(name)
            assert text.partition(mark.begin)[2].partition(mark.end)[0] == tables[name], f"{page}: {name}"


def test_its_pictures_are_drawn_by_a_script() -> None:
    """A picture that no figure script draws could never be redrawn from what is stored."""
    results = README.parent / "results"
    stored = [artifact.name for figure in FIGURES for artifact in figure.drawing.stored(results)]
    for name in pictures(README):
        assert name.startswith((*stored, "cifar10_cpu_systems")), name
    scripts = {figure.command for figure in FIGURES}
    assert set(re.findall(r"python -m (figures\.\w+) --run", README.read_text())) == scripts


def test_every_command_exists() -> None:
    """A session that the README names and nox does not list breaks this."""
    named = set(re.findall(r"nox -s ([a-z_0-9 ]+?)(?: --|`|\n)", README.read_text()))
    named = {session for group in named for session in group.split()}
    assert {"reproduce_cifar10", "check", "figures", "evaluate", "lint", "tests", "regression"} <= named
    assert named <= {name for name, _, _ in sessions()}
