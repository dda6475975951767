"""The README and the docs say what holds: examples run, tables are the stored rows, pictures are drawn by scripts."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import jlebm
from figures import pages, paper_map
from figures.__main__ import pictures
from figures.registry import FIGURES
from jlebm import data
from jlebm.densities import PriorInLatents
from reproduce.results import read_paper
from tests.test_packaging import sessions

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
LARGEST = 10_000  # bytes of the README


FRAGMENTS = re.compile(r"```py\n(.*?)```", flags=re.DOTALL)  # of code that goes on from other code


def example(page: Path) -> str:
    """Return the one block of Python of a page."""
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)
    return code


def test_it_is_one_page() -> None:
    """Breaks if the README becomes a report again: what is long belongs to the docs."""
    assert len(README.read_bytes()) <= LARGEST
    assert len(example(README).splitlines()) <= 30


@pytest.mark.slow
def test_its_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a line of the example no longer works, or draws something else than it says."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "example.py").write_text(example(README))
    names = runpy.run_path("example.py")
    assert names["samples"].shape == names["twin"].shape == (16, 1, 28, 28)
    assert names["samples"].dtype == np.uint8
    assert (names["samples"] != names["twin"]).any()
    assert names["mixed"].shape == (4, 1, 28, 28)
    assert np.isfinite(names["scores"]).all()
    assert (names["model"].sample([3]) == names["samples"][3]).all()


@pytest.mark.slow
def test_the_example_of_a_stored_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if the model in the repository no longer loads, or a line of the example draws something else."""
    monkeypatch.chdir(ROOT)
    names: dict = {"jlebm": jlebm}
    exec(compile(FRAGMENTS.findall((DOCS / "library.md").read_text())[0], "library.md", "exec"), names)
    assert names["images"].shape == names["gaussian"].shape == names["mixed"].shape == (16, 3, 32, 32)
    assert names["images"].dtype == np.uint8
    assert (names["images"] != names["gaussian"]).any()
    assert np.isfinite(names["scores"]).all()


@pytest.mark.slow
def test_the_example_of_ones_own_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a folder of images no longer trains the model of the example, as the README's goes on."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flowers").mkdir()
    for number in range(40):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "flowers" / f"{number}.png")
    names: dict = {"jlebm": jlebm, "data": data}
    (_, code, _) = FRAGMENTS.findall((DOCS / "library.md").read_text())
    exec(compile(code, "library.md", "exec"), names)
    config = names["config"].override(["training.steps=2", "prior_chain.steps=2", "posterior_chain.steps=2"])
    with jlebm.open_run("runs", config, seed=1) as run:
        trained = jlebm.fit(run, names["images"], "cpu").evaluated_model()
        jlebm.save_model(run.weights, trained, run.header(), jlebm.Sampler(config.prior_chain))
    assert jlebm.load(run.folder).sample(range(2)).shape == (2, 3, 32, 32)


@pytest.mark.slow
def test_the_example_of_ones_own_backbone() -> None:
    """It runs, and it learns: the energies come to tell posterior from prior samples, the chain moves towards them."""
    page = DOCS / "library.md"
    torch.manual_seed(0)
    names: dict = {}
    exec(compile(example(page), str(page), "exec"), names)
    model, z = names["model"], names["z"]
    assert names["samples"].shape == (16, 1, 8, 8)
    assert names["samples"].dtype == torch.uint8
    density = PriorInLatents(model.backbone, model.energy)
    start = model.noise(16, names["PerImageNoise"]("sample", range(16)))
    assert density(z).mean() > density(start).mean()
    gaussian = model.sample_gaussian(500, names["noise"])
    posterior = model.backbone.posterior(names["images"][:500], names["noise"]).latents
    assert model.energies(posterior).sum(1).mean() < model.energies(gaussian).sum(1).mean()
    (*_, in_two_stages) = FRAGMENTS.findall(page.read_text())
    exec(compile(in_two_stages, str(page), "exec"), names)
    update = names["scheme"].update(names["model"], names["images"][:8], names["noise"])
    update.loss().backward()
    assert all(weight.grad is None for weight in names["backbone"].parameters())
    assert any(bool(weight.grad.any()) for weight in names["model"].energy.parameters())


def test_its_numbers_are_the_stored_ones() -> None:
    """The tables of measured numbers are those that the stored rows give; nobody types them."""
    changed = ["git", "status", "--porcelain", "--", "results"]
    if subprocess.run(changed, cwd=ROOT, capture_output=True, text=True, check=False).stdout:
        pytest.skip("results/ holds rows of one's own, which the README does not show")
    tables = pages.texts(ROOT / "results")
    assert sorted(name for names in pages.PAGES.values() for name in names) == sorted(tables)
    for page, names in pages.PAGES.items():
        text = (ROOT / page).read_text()
        for name in names:
            mark = pages.Mark.of(name)
            assert text.partition(mark.begin)[2].partition(mark.end)[0] == tables[name], f"{page}: {name}"


def test_its_pictures_are_drawn_by_a_script() -> None:
    """A picture that no figure script draws could never be redrawn from what is stored."""
    results = ROOT / "results"
    stored = [artifact.name for figure in FIGURES for artifact in figure.drawing.stored(results)]
    for name in pictures(ROOT):
        assert name.startswith((*stored, "cifar10_cpu_systems")), name
    scripts = {figure.command for figure in FIGURES if figure.draw is not None}  # the others draw sheets of all runs
    assert set(re.findall(r"python -m (figures\.\w+) --run", (DOCS / "figures.md").read_text())) == scripts
    assert {path.name for path in (DOCS / "pictures").iterdir()} == pictures(ROOT)


def test_every_command_exists() -> None:
    """Breaks if a page names a session that nox does not list."""
    named = set()
    for page in {README, *DOCS.glob("*.md")} - {DOCS / "extending.md"}:  # whose commands are run
        groups = re.findall(r"nox -s ([a-z_0-9 ]+?)(?: --|`|\n)", page.read_text())
        named |= {session for group in groups for session in group.split()}
    assert {"reproduce_cifar10", "check", "figures", "evaluate", "docs", "lint", "tests", "regression"} <= named
    assert named <= {name for name, _, _ in sessions()}


def test_the_paper_is_mapped_whole() -> None:
    """Breaks if `paper.toml` has a number of the paper's own model that no line of the README's table answers to."""
    paper = read_paper(ROOT / "results" / "paper.toml")
    answered = {paper[key].same_as or key for line in paper_map.LINES for key in line.keys}
    told = {key for key in answered if paper[key].model == "this paper"}
    places = {(paper[key].key.split(".")[0], paper[key].dataset) for key in told}
    for one in paper.values():
        if one.model == "this paper" and one.system.startswith("ours"):
            table = one.key.split(".")[0]
            assert (table, one.dataset) in places or one.same_as in answered, one.key


def test_it_renders_where_packages_are_listed() -> None:
    """Breaks if the page of a package index could not be made, or has a picture or a link that leads nowhere there."""
    markdown = pytest.importorskip("readme_renderer.markdown")
    pytest.importorskip("setuptools", minversion="77")
    ran = subprocess.run(
        [sys.executable, "setup.py", "--long-description"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    html = markdown.render(ran.stdout)
    assert html is not None, ran.stderr
    assert "<table>" in html
    assert "joint EBM prior" in html
    assert "<img" not in html
    assert {link for link in re.findall(r'href="([^"]*)"', html) if not link.startswith("#")} == set()
