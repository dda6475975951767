"""`--noise` from the command line: rows that name their scheme, beside rows of the first one that stay as they are."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import jlebm
from figures import report
from jlebm.evaluation.sample_files import open_images
from jlebm.trained import checked_scheme
from reproduce import anomaly, generate, ood, results, table
from reproduce.pipelines.recipe import run_recipe
from reproduce.results.identity import FIRST_NOISE, noise_of, noise_option
from tests.reproduce import test_ladder, test_ood, test_recipe, test_two_stage
from tests.reproduce.test_two_stage import places
from tests.small import IMAGES, fit_one, ladder_experiment

PHILOX = ["--noise", "philox/1"]


def trainings(folder: Path) -> dict[Path, bytes]:
    """What training left: checkpoints and weights of every run."""
    found = [*(folder / "runs").glob("*/checkpoint.pt"), *(folder / "runs").glob("*/*.safetensors")]
    return {path: path.read_bytes() for path in found}


def both(folder: Path) -> tuple[list[results.Measurement], list[results.Measurement]]:
    """Return the rows of the first scheme, and those of philox/1."""
    rows = results.read_all(folder / "results/measured")
    assert all(row.intact for row in rows)
    assert {row.noise for row in rows} == {FIRST_NOISE, "philox/1"}
    assert all(dict(row.variation) == ({} if row.noise == FIRST_NOISE else {"noise": "philox/1"}) for row in rows)
    return [row for row in rows if row.noise == FIRST_NOISE], [row for row in rows if row.noise != FIRST_NOISE]


def test_a_row_without_the_option_is_of_the_first_scheme() -> None:
    """Breaks if rows that were stored before there were two would be of another one, or name theirs."""
    assert (noise_of({}), noise_option(FIRST_NOISE)) == ("generator/1", {})
    assert noise_of(noise_option("philox/1")) == "philox/1"


@pytest.mark.slow
@pytest.mark.parametrize("learning", ["joint-mle", "variational"])
def test_two_layers(tmp_path: Path, learning: str, capsys: pytest.CaptureFixture[str]) -> None:
    """No weight moves, no row of the first scheme does; each has rows, samples and a command of its own."""
    folders = [*places(tmp_path), "--learning", learning]
    assert run_recipe(test_recipe.RECIPE, folders, "") == 0
    before, stored = trainings(tmp_path), (tmp_path / "results/measured/digits.jsonl").read_bytes()
    (run,) = (tmp_path / "runs").iterdir()
    pictures = {path: path.read_bytes() for path in run.glob("*.png")}
    assert run_recipe(test_recipe.RECIPE, [*folders, *PHILOX], "") == 0
    assert trainings(tmp_path) == before
    assert (tmp_path / "results/measured/digits.jsonl").read_bytes().startswith(stored)
    first, second = both(tmp_path)
    assert [(row.metric, row.of, row.chain) for row in first] == [(row.metric, row.of, row.chain) for row in second]
    for a, b in zip(first, second, strict=True):
        assert a.value != b.value
        assert (a.config_digest, a.seed) == (b.config_digest, b.seed)
        assert "--noise" not in a.identity.command()
        assert "--noise philox/1" in b.identity.command()
        assert b.label == "tiny --noise philox/1"
    model = jlebm.load(run)
    for noise, name in ((None, "samples"), ("philox/1", "samples-philox-1")):
        np.testing.assert_array_equal(model.sample(range(120), noise=noise), np.load(run / name / "ebm-prior.npy"))
    assert {path: path.read_bytes() for path in pictures} == pictures
    assert (run / "samples-philox-1/samples.png").exists()
    assert run_recipe(test_recipe.RECIPE, [*folders, *PHILOX], "") == 0
    assert "its rows are kept" in capsys.readouterr().err
    assert len(results.read_all(tmp_path / "results/measured")) == 2 * len(first)


@pytest.mark.slow
def test_an_expectation_is_of_its_own_scheme(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Breaks if rows of another noise are judged by an expectation of the first, hide it, or are averaged with it."""
    folders = places(tmp_path)
    assert run_recipe(test_recipe.RECIPE, folders, "") == 0
    rows = results.read_all(tmp_path / "results/measured")
    expected = [results.expect([row]) for row in rows]
    assert run_recipe(test_recipe.RECIPE, [*folders, *PHILOX], "") == 0
    verdicts = results.check(results.read_all(tmp_path / "results/measured"), expected)
    assert [verdict.status for verdict in verdicts[: len(rows)]] == ["PASS"] * len(rows)
    assert all("--noise" not in one.command for one in expected)
    for verdict in verdicts[len(rows) :]:
        assert verdict.expectation.variation == {"noise": "philox/1"}
        assert verdict.reason.startswith("no expectation yet")
    assert len(verdicts) == 2 * len(rows)


@pytest.mark.slow
def test_two_stages(tmp_path: Path) -> None:
    """Both priors and posterior samples are drawn anew; the weights keep the recipe's own sampler."""
    folders = places(tmp_path)
    assert run_recipe(test_two_stage.RECIPE, [*folders, *PHILOX], "") == 0
    before = trainings(tmp_path)
    assert run_recipe(test_two_stage.RECIPE, folders, "") == 0
    assert trainings(tmp_path) == before
    first, second = both(tmp_path)
    assert {(row.metric, row.of) for row in first} == {(row.metric, row.of) for row in second}
    assert not {row.config_digest for row in first} & {row.config_digest for row in second}
    assert all("noise philox/1" in row.chain for row in second if row.chain)
    run = test_two_stage.of_stage(tmp_path, "two-stage")
    model = jlebm.load(run)
    assert model.sampler == test_two_stage.PLAN.sampler
    stored = np.load(run / "tiny--noisephilox-1-seed1/ebm-prior.npy")
    np.testing.assert_array_equal(model.sample(range(60), noise="philox/1"), stored)
    np.testing.assert_array_equal(model.sample(range(60)), np.load(run / "tiny-seed1/ebm-prior.npy"))


@pytest.mark.slow
def test_ladders(tmp_path: Path) -> None:
    """Rows of the layers too: what a layer holds is measured with draws of the same scheme."""
    folders = [*places(tmp_path), "--preset", "cpu"]
    assert run_recipe(test_ladder.RECIPE, folders, "") == 0
    kept = {path: path.read_bytes() for path in (tmp_path / "results/artifacts").iterdir()}
    assert run_recipe(test_ladder.RECIPE, [*folders, *PHILOX], "") == 0
    first, second = both(tmp_path)
    assert {(row.metric, row.of) for row in first} == {(row.metric, row.of) for row in second}
    other = {(row.learning, row.metric, row.of): row.value for row in second}
    for row in first:
        if row.metric in ("pixel_change", "reconstruction_mse"):
            assert other[row.learning, row.metric, row.of] != row.value
    assert {path: path.read_bytes() for path in kept} == kept, "the repository keeps those of the first scheme"


@pytest.mark.slow
def test_images_in_a_file(tmp_path: Path) -> None:
    """`generate` draws by the scheme that it is told, and says so in the file's own request."""
    folders = places(tmp_path)
    assert run_recipe(test_recipe.RECIPE, folders, "") == 0
    (run,) = (tmp_path / "runs").iterdir()
    usual = ["--run", str(run), "--seeds", "0-7", "--device", "cpu"]
    assert generate.main([*usual, "--out", str(tmp_path / "a.npz"), *PHILOX]) == 0
    assert generate.main([*usual, "--out", str(tmp_path / "b.npz")]) == 0
    model = jlebm.load(run)
    np.testing.assert_array_equal(open_images(tmp_path / "a.npz"), model.sample(range(8), noise="philox/1"))
    np.testing.assert_array_equal(open_images(tmp_path / "b.npz"), model.sample(range(8)))
    assert generate.main([*usual, "--out", str(tmp_path / "a.npz")]) == 2, "the file holds other images"
    with pytest.raises(jlebm.UserError, match="unknown noise 'philox'; the nearest known one is 'philox/1'"):
        checked_scheme("philox")


@pytest.mark.parametrize("main", [anomaly.main, ood.main, table.main, generate.main])
def test_an_unknown_scheme_is_one_sentence(main, capsys: pytest.CaptureFixture[str]) -> None:
    """Breaks if a command lacks the option, or takes any word for a scheme."""
    with pytest.raises(SystemExit) as ended:
        raise SystemExit(main(["--noise", "philox/9"]))
    assert ended.value.code == 2
    assert "philox/1" in capsys.readouterr().err


@pytest.mark.slow
def test_detection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores outside the distribution: rows and arrays of each scheme lie beside one another."""
    root = test_ood.root.__wrapped__(tmp_path, monkeypatch)
    run = fit_one(tmp_path / "runs", ladder_experiment(), IMAGES)[0].folder
    assert ood.main(test_ood.command(root, run)) == 0
    arrays = (run / "ood_digits.npz").read_bytes()
    assert ood.main([*test_ood.command(root, run), *PHILOX]) == 0
    first, second = both(tmp_path)
    assert [(row.metric, row.of) for row in first] == [(row.metric, row.of) for row in second]
    assert (run / "ood_digits.npz").read_bytes() == arrays
    assert (run / "ood_digits-philox-1.npz").exists()
    assert second[0].identity.command(target="digits", digest="0" * 64).endswith("--outside digits --noise philox/1")
    shutil.rmtree(run)


@pytest.mark.slow
def test_a_held_out_digit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All scores of the 80-20 test set have rows and arrays of each scheme; a best checkpoint is of one scheme.

    Breaks if a score ignores the option, if checkpoints judged with one noise are called the best with another, or if
    `--no-oracle` still looks at the test set in training.
    """
    usual = [*places(tmp_path), "--protocol", "80-20", "--learning", "two-stage", "--digits", "1", "--images", "100"]
    assert anomaly.main(usual) == 0
    before, (path,) = trainings(tmp_path), (tmp_path / "runs").glob("*/scores.npz")
    capsys.readouterr()
    assert anomaly.main([*usual, *PHILOX]) == 0
    assert "not every checkpoint of this training was judged on these images" in capsys.readouterr().err
    assert trainings(tmp_path) == before
    stored = results.read_all(tmp_path / "results/measured")
    first, second = ([row for row in stored if row.noise == noise] for noise in (FIRST_NOISE, "philox/1"))
    asked = {(row.metric, row.score) for row in first}
    assert asked - {(row.metric, row.score) for row in second} == {("auprc", "oracle")}
    assert all(dict(row.variation) == {"protocol": "80-20", "noise": "philox/1"} for row in second)
    assert "--protocol 80-20 --noise philox/1" in second[0].identity.command(target="1")
    names = ("positive", "negative", "names")
    usual_scores, _ = results.read_artifact(path, names, first)
    other_scores, _ = results.read_artifact(path.with_name("scores-philox-1.npz"), names, second)
    for name, one, other in zip(usual_scores["names"], usual_scores["positive"], other_scores["positive"], strict=True):
        assert not np.array_equal(one, other), name
    assert anomaly.main([*usual, *PHILOX, "--seeds", "2"]) == 0
    best = [row for row in results.read_all(tmp_path / "results/measured") if row.score == "oracle"]
    assert [(row.seed, row.noise) for row in best] == [(1, FIRST_NOISE), (2, "philox/1")]
    digests = {row.config_digest for row in results.read_all(tmp_path / "results/measured")}
    assert len(digests) == 1, "seeds of one configuration are averaged by it"
    page = report.of_run(path.parent, tmp_path / "results")
    assert {(row.score, row.noise, row.seed) for row in page.rows} >= {
        ("E", FIRST_NOISE, 1),
        ("oracle", FIRST_NOISE, 1),
    }
    capsys.readouterr()
    for again in (usual, [*usual, *PHILOX]):
        assert anomaly.main(again) == 0
        assert "measured before; its rows are kept" in capsys.readouterr().err
    assert len(results.read_all(tmp_path / "results/measured")) == len(stored) + len(second) + 1
    assert anomaly.main([*usual, "--seeds", "3", "--no-oracle"]) == 0
    third = {(row.metric, row.score) for row in results.read_all(tmp_path / "results/measured") if row.seed == 3}
    assert third == asked - {("auprc", "oracle")}
