"""expected.toml: made from rows by the stated rule, edited without touching anything else."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from jlebm.errors import UserError
from reproduce.results import Expectation, check, expect, read_expected, read_paper, write_expected

OPEN = Expectation(
    protocol="cifar10/1",
    dataset="cifar10",
    preset="tiny",
    model="two-layer",
    learning="joint-mle",
    metric="fid768",
    source="ebm-prior",
    seeds=3,
    needs='a CPU, "quoted" and \\ and \x7f and Greek ε',
    command="nox -s reproduce_cifar10",
    paper="table1.cifar10.ours",
)

FILE = """# The head stays.

[[expectation]]  # a remark
protocol = "cifar10/1"
dataset = "photos"
preset = "tiny"
model = "two-layer"
learning = "joint-mle"
metric = "fid768"
source = "ebm-prior"
seeds   =   1
needs = '''a
CPU'''
command = "c"

# About the next one.
[[expectation]]
protocol = "cifar10/1"
dataset = "cifar10"
preset = "tiny"
model = "two-layer"
learning = "joint-mle"
metric = "fid768"
source = "ebm-prior"
seeds = 3
needs = "a CPU"
command = "c"
paper = "table1.cifar10.ours"

# The end.
"""


def test_the_rule(row: Any) -> None:
    """Would break if the tolerance were not the 95 % prediction interval for the mean of as many new seeds."""
    one = expect([row(seed=1, value=1.0), row(seed=2, value=2.0), row(seed=3, value=3.0)])
    assert one.value == 2.0
    # t(0.975, 2) = 4.302653, s = 1, sqrt(1/3 + 1/3)
    assert one.tolerance == pytest.approx(4.302653 * (2 / 3) ** 0.5, rel=1e-6)
    assert one.fail_beyond == 2 * one.tolerance
    assert (one.seeds, one.images, one.config_digest) == (3, 2000, "c" * 64)
    assert "seeds 1, 2, 3" in one.basis
    assert "standard deviation 1" in one.basis


def test_the_tolerance_is_for_as_many_seeds_as_a_verdict_needs(row: Any) -> None:
    """Would break if an entry for one new seed had the narrower tolerance of a mean, or lost its number of seeds."""
    rows = [row(seed=1, value=1.0), row(seed=2, value=2.0), row(seed=3, value=3.0)]
    one = expect(rows, dataclasses.replace(OPEN, seeds=1))
    assert one.tolerance == pytest.approx(4.302653 * (1 / 3 + 1) ** 0.5, rel=1e-6)
    assert (one.seeds, one.value) == (1, 2.0)
    assert "for one new seed" in one.basis
    two = expect(rows, dataclasses.replace(OPEN, seeds=2))
    assert two.tolerance == pytest.approx(4.302653 * (1 / 3 + 1 / 2) ** 0.5, rel=1e-6)
    assert (two.seeds, "for the mean of 2 new seeds" in two.basis) == (2, True)


def test_two_files_of_one_network_are_one_extractor(row: Any) -> None:
    """Would break if seeds measured with the whole file and with a part of it had no common mean."""
    one = expect([row(), row(seed=2, extractor="inception-2015-12-05, sha256:4567")])
    assert one.extractor == "inception-2015-12-05"


def test_the_floor(row: Any) -> None:
    """Would break if equal seeds, or one seed, made a tolerance that rounding alone would leave."""
    assert expect([row(seed=1), row(seed=2)]).tolerance == 0.005
    one = expect([row()])
    assert one.tolerance == 0.005
    assert "no spread" in one.basis


def test_its_own_rows_pass(row: Any) -> None:
    """Would break if an expectation did not select the rows that it was made from."""
    rows = [row(seed=1, value=1.0), row(seed=2, value=2.0), row(seed=3, value=3.0)]
    (verdict,) = check(rows, [expect(rows, OPEN)])
    assert verdict.status == "PASS"


def test_what_has_no_common_mean(row: Any) -> None:
    """Would break if an expectation were made of rows that must not be averaged, or of too few."""
    for rows, sentence in (
        ([], "no row"),
        ([row(), row()], "same seed"),
        ([row(), row(seed=2, extractor="another")], "no common mean"),
        ([row(), row(seed=2, protocol="cifar10/2")], "no common mean"),
        ([row(row_digest="0" * 64)], "was changed"),
    ):
        with pytest.raises(UserError, match=sentence):
            expect(rows)
    with pytest.raises(UserError, match="needs 3 seeds and has 1"):
        expect([row()], OPEN)


def test_writing_keeps_everything_else(row: Any, tmp_path: Path) -> None:
    """Would break if a comment, a spacing or another entry were lost when one entry is written."""
    path = tmp_path / "expected.toml"
    path.write_text(FILE)
    new = expect([row(seed=seed, value=1.0 + seed / 100) for seed in (1, 2, 3)], OPEN)
    write_expected(path, [new])
    text = path.read_text()
    head, tail = FILE.split("# About the next one.\n")
    assert text.startswith(head + "# About the next one.\n[[expectation]]\n")
    assert text.endswith("\n\n# The end.\n")
    assert tail.count("[[expectation]]") == 1
    assert read_expected(path)[1] == new
    write_expected(path, [new])
    assert path.read_text() == text


def test_a_new_entry_goes_to_the_end(row: Any, tmp_path: Path) -> None:
    """Would break if an entry for other images or another metric overwrote one with a value."""
    path = tmp_path / "expected.toml"
    path.write_text(FILE)
    first, second = expect([row()]), expect([row(images=50000)])
    write_expected(path, [first])
    write_expected(path, [second])
    assert read_expected(path)[1:] == [first, second]


def test_entries_that_differ_in_the_number_of_images_alone(row: Any, tmp_path: Path) -> None:
    """Would break if the value of one number of images overwrote the other's, or took the place of the open entry."""
    path = tmp_path / "expected.toml"
    path.write_text(FILE)
    few, many = expect([row()]), expect([row(images=10000, value=0.75)])
    write_expected(path, [few, many])
    assert read_expected(path)[1:] == [few, many]
    waiting = FILE + "\n" + FILE.split("# About the next one.\n")[1].replace("seeds = 3", "seeds = 3\nimages = 2000")
    path.write_text(waiting)
    write_expected(path, [many, few])
    assert read_expected(path)[1:] == [many, few]
    again = dataclasses.replace(few, value=1.5)
    write_expected(path, [again])
    assert read_expected(path)[1:] == [many, again]


def test_a_waiting_entry_takes_shortened_runs(row: Any, tmp_path: Path) -> None:
    """Would break if rows of runs that a budget ended left the entry that waits for them without a value."""
    path = tmp_path / "expected.toml"
    path.write_text(FILE)
    new = expect([row(seed=seed, complete=False) for seed in (1, 2, 3)], OPEN)
    write_expected(path, [new])
    assert read_expected(path)[1:] == [new]


def test_a_layout_that_cannot_be_edited_is_refused(row: Any, tmp_path: Path) -> None:
    """Would break if a layout that the editing does not understand were damaged, or the entry silently not written."""
    said = {"protocol": "p", "dataset": "cifar10", "preset": "tiny", "model": "two-layer", "learning": "joint-mle"}
    fields = ", ".join(f"{name}='{text}'" for name, text in {**said, "metric": "fid768", "source": "ebm-prior"}.items())
    path = tmp_path / "expected.toml"
    path.write_text(f"expectation = [{{{fields}, seeds=1, needs='', command=''}}]\n")
    before = path.read_bytes()
    with pytest.raises(UserError, match="entry by entry"):
        write_expected(path, [expect([row()])])
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (("dataset", "datasett"), r"\[\[expectation\]\] number 1: 'datasett' is not a field.*'dataset'"),
        (("fid768", "fid76"), r"number 1: 'fid76' is not a known metric.*'fid768'"),
        (("seeds   =   1", "seeds = 1.5"), r"number 1: the field 'seeds' must be a whole number, not 1\.5"),
        (("seeds   =   1", "seeds = 0"), "at least one seed"),
        (("seeds   =   1", "seeds = 1\nvalue = 1.0"), "a value comes with 'tolerance'"),
        (("seeds   =   1", "seeds = 1\nvalue = 1\ntolerance = 1\nfail_beyond = 2"), "names the 'config_digest'"),
        (("seeds   =   1", "seeds = 1\nvalue = nan"), "'value' is nan"),
        (("[[expectation]]", "[[expectations]]"), "holds .*expectation.* and nothing else"),
        (("photos", "cifar10"), "number 2: cifar10 tiny two-layer joint-mle: fid768 of ebm-prior is expected twice"),
        (("seeds   =   1", "seeds = "), "is not valid TOML"),
    ],
)
def test_a_bad_file_gets_a_sentence(tmp_path: Path, edit: tuple[str, str], sentence: str) -> None:
    """Would break if a mistake in expected.toml were ignored, or told without its place."""
    path = tmp_path / "expected.toml"
    path.write_text(FILE.replace(*edit, 1))
    with pytest.raises(UserError, match=sentence):
        read_expected(path)


def test_a_missing_file(tmp_path: Path) -> None:
    """Would break if a missing expected.toml meant that nothing is expected."""
    with pytest.raises(UserError, match="does not exist"):
        read_expected(tmp_path / "expected.toml")


def test_the_repository_s_entries_name_paper_keys() -> None:
    """Would break if expected.toml could not be read, or named a number that no paper reports."""
    results = Path(__file__).parents[2] / "results"
    paper = read_paper(results / "paper.toml")
    entries = read_expected(results / "expected.toml")
    assert entries
    assert all(not one.paper or one.paper in paper for one in entries)


def test_the_basis_names_every_commit_and_device(row: Any) -> None:
    """Would break if rows of another machine or commit stood under those of the first seed."""
    rows = [row(seed=2, commit="b" * 40, device="cpu-avx512"), row(seed=1), row(seed=3, commit="b" * 40)]
    basis = expect(rows).basis
    first = rows[1]
    assert f"seeds 1, 2, 3 at commit {first.commit[:12]}, {'b' * 12} on {first.device}, cpu-avx512;" in basis
