"""The ladder of priors: one generator and one time for all, rows that name their prior, and a command that resumes."""

import dataclasses
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
import tyro

from jlebm.backbones.conv import ConvBackbone
from jlebm.langevin import Chain
from jlebm.learning.trainable import TrainingConfig
from reproduce import priors
from reproduce.presets import prior_sizes
from reproduce.presets.prior_sizes import SIZES, experiment_of
from reproduce.results import check, read_all, read_expected
from reproduce.results.prior_lines import LADDER

ROOT = Path(__file__).resolve().parents[2]
SMALL = dataclasses.replace(
    SIZES["tiny"],
    channels={32: (4, 4, 2), 64: (4, 4, 4, 2)},
    prior_chain=Chain.from_joint_paper(2, 0.4),
    posterior_chain=Chain.from_joint_paper(2, 0.1),
    training=TrainingConfig(steps=3, batch_size=5),
    images=50,
    reference_images=50,
)
TWO = ("abp", "joint-inference")


def run(folder: Path, *words: str) -> int:
    places = ["--results", str(folder / "results"), "--runs", str(folder / "runs"), "--data-root", str(folder)]
    return priors.main([*places, "--device", "cpu", "--no-download", "--dataset", "photos", *words])


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `tiny` a matter of seconds."""
    monkeypatch.setitem(prior_sizes.SIZES, "tiny", SMALL)


# ---- what the priors have in common


@pytest.mark.parametrize("side", [32, 64])
@pytest.mark.parametrize("size", SIZES.values(), ids=lambda size: size.name)
def test_all_have_one_generator_and_one_length(size: prior_sizes.PriorSize, side: int) -> None:
    """The same p(x|z1), images and training time whatever stands in front of it; breaks if one prior has more."""
    experiments = [experiment_of(line, size, "photos", (3, side, side)) for line in LADDER]
    generators = []
    for one in experiments:
        backbone = one.build().backbone
        assert isinstance(backbone, ConvBackbone)
        generators.append([(name, tuple(value.shape)) for name, value in backbone.generator.named_parameters()])
    assert all(a == b for a, b in pairwise(generators))
    for name in ("training", "protocol", "preset", "dataset"):
        assert len({getattr(one, name) for one in experiments}) == 1
    assert len({one.optimizer.generator_lr for one in experiments}) == 1
    assert len({one.digest() for one in experiments}) == len(LADDER)


@pytest.mark.parametrize("line", [line for line in LADDER if line.twin], ids=lambda line: line.name)
def test_a_twin_differs_in_its_prior_alone(line: prior_sizes.PriorLine) -> None:
    """The model of a prior's Gaussian twin is its own to the last field; breaks if the energies' worth is another's."""
    (twin,) = [one for one in LADDER if one.name == line.twin]
    assert (twin.layers, twin.has_energies, line.has_energies) == (line.layers, False, True)
    ours, theirs = (experiment_of(one, SIZES["cpu"], "photos", (3, 32, 32)) for one in (line, twin))
    assert ours.model == theirs.model
    assert (ours.posterior_sampling_chain() is None) == (theirs.posterior_sampling_chain() is None)
    assert (ours.has_energies, theirs.has_energies) == (True, False)


def test_each_line_learns_as_its_row_says() -> None:
    """Breaks if a line's learning, layers or source is not that of its model."""
    for line in LADDER:
        one = experiment_of(line, SIZES["cpu"], "photos", (3, 32, 32))
        assert (one.learning, len(one.model.latent_shapes)) == (line.learning, line.layers)
        assert one.has_energies == line.has_energies


# ---- the command


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_rows_name_their_prior_and_the_command_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two priors in one call; the second call stores nothing, and each row's command parses and names its prior.

    Breaks if two priors share a question, a run folder or a command.
    """
    assert run(tmp_path, "--priors", *TWO) == 0
    rows = read_all(tmp_path / "results" / "measured")
    assert {(row.recipe, row.model, row.learning) for row in rows} == {
        ("priors", "abp", "joint-mle"),
        ("priors", "joint-inference", "variational"),
    }
    assert {row.source for row in rows if row.model == "abp"} == {"gaussian-prior", "posterior"}
    assert {row.source for row in rows if row.model == "joint-inference"} == {
        "gaussian-prior",
        "ebm-prior",
        "posterior",
    }
    assert {row.chain for row in rows if row.of.source == "gaussian-prior"} == {""}
    for row in rows:
        words = shlex.split(row.identity.command())
        assert words[:4] == ["nox", "-s", "reproduce_priors", "--"]
        asked = tyro.cli(priors.Arguments, args=words[4:])
        assert (asked.priors, asked.dataset, asked.preset, asked.seeds) == ((row.model,), "photos", "tiny", (1,))
        assert row.intact
    capsys.readouterr()
    assert run(tmp_path, "--priors", *TWO) == 0
    assert " ".join(capsys.readouterr().err.split()).count("its rows are kept") == 2
    assert read_all(tmp_path / "results" / "measured") == rows
    assert len(list((tmp_path / "runs").glob("*/*.safetensors"))) == 2


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_other_recipes_keep_their_verdicts(tmp_path: Path) -> None:
    """Rows of the same dataset, size and learning are no answer to another recipe's expectation.

    Breaks if a prior's row makes an expectation of `reproduce_cifar10` stale, or fails it by its protocol.
    """
    assert run(tmp_path, "--priors", *TWO) == 0
    ours = read_all(tmp_path / "results" / "measured")
    stored, expected = read_all(ROOT / "results" / "measured"), read_expected(ROOT / "results" / "expected.toml")
    stored = [row for row in stored if row.recipe != "priors"]
    before = check(stored, expected)
    after = check([*stored, *ours], expected)
    assert [one for one in after if one in before] == before
    added = [one for one in after if one not in before]
    assert {one.status for one in added} == {"NO EXPECTATION"}
    assert len(added) == len(ours)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--priors", "lebn"], "nearest known one is 'lebm'"),
        (["--preset", "cpuu"], "unknown preset 'cpuu'"),
        (["--seeds", "1", "1"], "each only once"),
        (["--set", "training.steps=3"], "--set applies to one prior"),
        (["--priors", "vae", "--set", "learning=variational"], "names the rows"),
        (["--priors", "vae", "--set", "model.chanels=[8]"], "nearest known one is 'model.channels'"),
        (["--budget", "soon"], "not a time"),
        (["--images", "3"], "--images must be at least"),
        (["--dataset", "digits"], "has images of 8x8"),
    ],
)
def test_bad_input_is_one_sentence(
    words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistake that is found only after a training breaks this."""
    (tmp_path / "results").mkdir()
    places = ["--results", str(tmp_path / "results"), "--runs", str(tmp_path / "runs"), "--no-download"]
    rest = [] if "--dataset" in words else ["--dataset", "photos"]
    assert priors.main([*places, "--device", "cpu", *rest, *words]) == 2
    said = capsys.readouterr().err
    assert sentence in said.splitlines()[-1]
    assert "Traceback" not in said
    assert not list(tmp_path.glob("runs/*"))
