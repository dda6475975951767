"""python -m reproduce.check: the exit code, the table, and expectations written on the explicit word only."""

import csv
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from reproduce.check import main
from reproduce.results import append, check, read_expected
from tests.rows import copy_open_questions

RESULTS = Path(__file__).parents[2] / "results"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    copy_open_questions(RESULTS, tmp_path)
    return tmp_path


@pytest.fixture
def written(results: Path, row: Any, capsys: Any) -> Path:
    """Store three seeds and make them the expectation."""
    append(
        results / "measured" / "cifar10.jsonl",
        [row(preset="budget", seed=seed, value=1.0 + seed / 100) for seed in (1, 2, 3)],
    )
    assert main(["--results", str(results), "--write-expected", "dataset=cifar10", "preset=budget"]) == 0
    assert "written: cifar10 budget two-layer joint-mle: fid768 of ebm-prior = 1.02" in capsys.readouterr().out
    return results


@pytest.mark.slow
def test_the_repositorys_own_rows_pass(capsys: Any) -> None:
    """Would break if a stored row or expectation were changed, or no longer fitted the code that reads it."""
    assert main([]) == 0
    said = capsys.readouterr().out
    passed = re.search(r"^  PASS +(\d+) ", said, re.MULTILINE)
    assert passed is not None
    assert int(passed[1]) >= 8
    assert len(said.splitlines()) < 80  # a screen or two, whatever was measured


def test_nothing_measured_is_not_a_failure(results: Path, capsys: Any) -> None:
    """Would break if an empty repository failed its check, or said nothing."""
    before = (results / "expected.toml").read_bytes()
    assert main(["--results", str(results)]) == 0
    assert re.search(r"^  NEVER RUN +[1-9]", capsys.readouterr().out, re.MULTILINE)
    assert main(["--results", str(results), "--all"]) == 0
    out = capsys.readouterr().out
    assert "NEVER RUN" in out
    assert "PASS" not in out
    assert (results / "expected.toml").read_bytes() == before


def test_written_expectations_pass(written: Path, capsys: Any) -> None:
    """Would break if check did not pass on the rows that its expectation was made from."""
    assert main(["--results", str(written), "--all"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "PASS" in line)
    assert "1.0200 ± 0.0100, 3 seeds, 2000 images" in line
    assert "FID 66.32 (not comparable)" in line
    one = next(one for one in read_expected(written / "expected.toml") if one.value is not None)
    assert (one.paper, one.seeds) == ("table1.cifar10.ours", 3)


def test_two_numbers_of_images_are_two_expectations(results: Path, row: Any, capsys: Any) -> None:
    """Would break if of one question only the newest number of images could be held to something."""
    for seed in (1, 2, 3):
        some = [row(seed=seed, value=1.0 + seed / 100), row(seed=seed, value=0.5 + seed / 100, images=10000)]
        append(results / "measured" / "cifar10.jsonl", some)
    for _ in range(2):  # the second time every entry is replaced by itself
        assert main(["--results", str(results), "--write-expected", "preset=tiny"]) == 0
    entries = [one for one in read_expected(results / "expected.toml") if one.value is not None]
    assert sorted((one.images, one.seeds, one.value) for one in entries) == [(2000, 1, 1.02), (10000, 1, 0.52)]
    capsys.readouterr()
    assert main(["--results", str(results), "--all"]) == 0
    assert capsys.readouterr().out.count("PASS") == 2


def test_the_printed_command_writes_one_expectation(results: Path, row: Any) -> None:
    """Would break if expecting one number of a preset also expected those of its variations, layers and models."""
    others = ({"variation": {"chain_steps": 100}}, {"layer": "z1"}, {"model": "ladder"}, {"images": 100})
    rows = [row(dataset="photos", preset="cpu", metric="latent_auc", **changes) for changes in ({}, *others)]
    append(results / "measured" / "photos.jsonl", rows)
    for one in rows:
        (command,) = {v.command for v in check([one], []) if v.status == "NO EXPECTATION"}
        assert main(["--results", str(results), *shlex.split(command)[3:]]) == 0
        made = [entry for entry in read_expected(results / "expected.toml") if entry.value is not None]
        assert [entry.basis_rows for entry in made if entry.asks(one) and entry.images == one.images] == [(one.digest,)]
    assert len(made) == len(rows)


def test_a_stored_value_changed_by_hand_fails(written: Path, capsys: Any) -> None:
    """Would break if a value could be edited, even within its tolerance, and still pass."""
    path = written / "measured" / "cifar10.jsonl"
    lines = path.read_text().splitlines()
    changed = {**json.loads(lines[1]), "value": 1.0201}
    path.write_text("\n".join([lines[0], json.dumps(changed), lines[2]]) + "\n")
    assert main(["--results", str(written)]) == 1
    assert "cifar10.jsonl, line 2 changed since stored" in " ".join(capsys.readouterr().out.split())


def test_an_expected_value_changed_by_hand_fails(written: Path) -> None:
    """Would break if expected.toml could be moved away from the rows unnoticed."""
    path = written / "expected.toml"
    path.write_text(path.read_text().replace("value = 1.02", "value = 1.5"))
    assert main(["--results", str(written)]) == 1


@pytest.mark.parametrize(
    ("selectors", "sentence"),
    [
        (["datasett=cifar10"], "nearest known one is 'dataset'"),
        (["cifar10"], "is not a selector, NAME=VALUE"),
        (["dataset=svhn"], "no stored row has dataset=svhn"),
        (["preset=cpu"], "nothing can be expected: cifar10 cpu two-layer joint-mle: fid768 of ebm-prior needs 3 seeds"),
    ],
)
def test_bad_selectors(written: Path, row: Any, capsys: Any, selectors: list[str], sentence: str) -> None:
    """Would break if a mistyped selector wrote something, or too few seeds were made an expectation."""
    append(written / "measured" / "cifar10.jsonl", [row(preset="cpu")])
    before = (written / "expected.toml").read_bytes()
    assert main(["--results", str(written), "--write-expected", *selectors]) == 2
    assert sentence in capsys.readouterr().err
    assert (written / "expected.toml").read_bytes() == before


def test_damage_is_exit_code_2(written: Path, capsys: Any) -> None:
    """Would break if a file that can't be read counted as a failed, or a passed, check."""
    path = written / "measured" / "cifar10.jsonl"
    path.write_bytes(path.read_bytes()[:-30])
    assert main(["--results", str(written)]) == 2
    assert "line 3: the last row is cut short" in capsys.readouterr().err
    path.unlink()
    expected = written / "expected.toml"
    text = expected.read_text()
    expected.write_text(text.replace('"table1.cifar10.ours"', '"table1.cifar10.our"', 1))
    assert main(["--results", str(written)]) == 2
    assert "nearest known one is 'table1.cifar10.ours'" in capsys.readouterr().err
    expected.write_text(text + "[[")
    assert main(["--results", str(written)]) == 2
    assert "not valid TOML" in capsys.readouterr().err
    assert main(["--results", str(written / "none")]) == 2


def test_an_unknown_flag_is_exit_code_2(capsys: Any) -> None:
    """Would break if a mistyped flag were ignored."""
    with pytest.raises(SystemExit) as stopped:
        main(["--formatt", "latex"])
    assert stopped.value.code == 2


def test_json_stands_alone_on_stdout(written: Path, capsys: Any) -> None:
    """Would break if a sentence were mixed into the JSON, its counts did not add up, or the exit code changed."""
    assert main(["--results", str(written), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["rows"], answer["counts"]["PASS"]) == (3, 1)
    assert sum(answer["counts"].values()) == len(answer["verdicts"])
    (one,) = (one for one in answer["verdicts"] if one["verdict"] == "PASS")
    assert (one["measured"], one["expected"], one["seeds"]) == (1.02, 1.02, 3)
    path = written / "measured" / "cifar10.jsonl"
    path.write_text(path.read_text().replace('"value": 1.01', '"value": 1.011'))
    assert main(["--results", str(written), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["counts"]["FAIL"] == 1


def test_only_what_is_selected(written: Path, row: Any, capsys: Any) -> None:
    """Would break if a selector were passed over, a mistyped one selected everything, or nothing gave no sentence."""
    append(written / "measured" / "svhn.jsonl", [row(dataset="svhn")])
    assert main(["--results", str(written), "--json", "--only", "dataset=svhn"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["verdicts"]
    assert (one["dataset"], one["verdict"]) == ("svhn", "NO EXPECTATION")
    assert main(["--results", str(written), "--only", "dataset=celeba"]) == 2
    assert "no result has dataset=celeba" in capsys.readouterr().err
    assert main(["--results", str(written), "--only", "datasett=svhn"]) == 2
    assert "nearest known one is 'dataset'" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".csv", ".md", ".tex"])
def test_a_table_is_written_as_a_file(written: Path, capsys: Any, suffix: str) -> None:
    """Would break if a form lost the measured number, or its special characters ended a cell."""
    path = written / f"table{suffix}"
    assert main(["--results", str(written), "--table", str(path)]) == 0
    text = path.read_text()
    if suffix == ".csv":
        lines = list(csv.DictReader(text.splitlines()))
        assert [float(line["measured"]) for line in lines if line["verdict"] == "PASS"] == [1.02]
    else:
        assert ("| PASS |" if suffix == ".md" else r"& PASS \\") in text
        assert ("1.0200 ± 0.0100" if suffix == ".md" else r"1.0200 $\pm$ 0.0100") in text
    assert "stored rows" in capsys.readouterr().out  # beside the summary, not in its place
    assert main(["--results", str(written), "--table", str(written / "table.docx")]) == 2
    assert "ends in none of .csv, .md, .tex" in capsys.readouterr().err
