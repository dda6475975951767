"""What check notices: each change that nobody measured is a FAIL, exit code 1, with a sentence that names it."""

import dataclasses
import json
import multiprocessing
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from figures.report.contents import all_results
from figures.stored import Stored
from jlebm.errors import UserError
from reproduce.check import main
from reproduce.results import (
    append,
    check,
    default_folder,
    expect,
    held_to_basis,
    read,
    read_all,
    read_expected,
    render,
)
from reproduce.results.basis import fault
from reproduce.results.expectation import QUESTION
from tests.rows import copy_open_questions

RESULTS = Path(__file__).parents[2] / "results"


@pytest.fixture
def folder(tmp_path: Path, row: Any) -> Path:
    """A results folder with an expectation of three rows."""
    copy_open_questions(RESULTS, tmp_path)
    rows = [row(preset="budget", seed=seed, value=1.0 + seed / 100) for seed in (1, 2, 3)]
    append(tmp_path / "measured" / "cifar10.jsonl", rows)
    append(tmp_path / "measured" / "mnist.jsonl", [row(dataset="mnist")])
    assert main(["--results", str(tmp_path), "--write-expected", "dataset=cifar10", "preset=budget"]) == 0
    assert main(["--results", str(tmp_path)]) == 0
    return tmp_path


def stored(folder: Path) -> Path:
    return folder / "measured" / "cifar10.jsonl"


def edit(folder: Path, number: int, digest_anew: bool = True, **changes: Any) -> None:
    """Change a stored row by hand; with its digest made anew, as somebody who knows how would."""
    lines = stored(folder).read_text().splitlines()
    one = read(stored(folder))[number]
    fields = json.loads(lines[number]) | changes
    if digest_anew:
        changed = dataclasses.replace(one, **{**changes, "row_digest": "", "where": "", "misplaced": ""})
        fields["row_digest"] = changed.digest
    lines[number] = json.dumps(fields)
    stored(folder).write_text("\n".join(lines) + "\n")


def remove_line(folder: Path) -> None:
    stored(folder).write_text("".join(stored(folder).read_text().splitlines(keepends=True)[:-1]))


def move_line(folder: Path) -> None:
    *rest, last = stored(folder).read_text().splitlines(keepends=True)
    stored(folder).write_text("".join(rest))
    with (folder / "measured" / "mnist.jsonl").open("a") as file:
        file.write(last)


def change(folder: Path, pattern: str, new: str) -> None:
    path = folder / "expected.toml"
    text, count = re.subn(pattern, new, path.read_text(), count=1, flags=re.MULTILINE | re.DOTALL)
    assert count == 1
    path.write_text(text)


def widen(folder: Path) -> None:
    change(folder, r"^tolerance = [^\n]*", "tolerance = 9.0")
    change(folder, r"^fail_beyond = [^\n]*", "fail_beyond = 18.0")


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (widen, "says tolerance = 9, and the rows of its basis make"),
        (lambda folder: change(folder, r"^fail_beyond = [^\n]*", "fail_beyond = 18.0"), "says fail_beyond = 18"),
        (lambda folder: change(folder, r"^tolerance = [^\n]*", "tolerance = 0.0"), "says tolerance = 0,"),
        (lambda folder: change(folder, r"^value = [^\n]*", "value = 1.0201"), "says value = 1.0201"),
        (lambda folder: change(folder, r"^weights = [^\n]*\n", ""), "says weights = ''"),
        (lambda folder: change(folder, r"^basis_rows = \[[^]]*\]\n", ""), "does not name the rows"),
        (lambda folder: change(folder, r"^basis_rows = \[\n[^\n]*\n", "basis_rows = [\n"), "needs 3 seeds and has 2"),
        (lambda folder: change(folder, r"^(basis_rows = \[\s*)\"....", r'\1"0000'), "1 of 3 rows of its basis are not"),
        (remove_line, "1 of 3 rows of its basis are not stored"),
        (lambda folder: stored(folder).unlink(), "3 of 3 rows of its basis are not stored"),
        (lambda folder: stored(folder).write_bytes(b""), "3 of 3 rows of its basis are not stored"),
        (lambda folder: shutil.rmtree(folder / "measured"), "3 of 3 rows of its basis are not stored"),
        (move_line, "is a row of 'cifar10' in the file of 'mnist'"),
        (lambda folder: edit(folder, 0, images=-5), "says -5 images"),
        (lambda folder: edit(folder, 0, images=0), "says 0 images"),
        (lambda folder: edit(folder, 0, steps=-1), "and -1 steps"),
        (lambda folder: edit(folder, 0, value=1.0101), "1 of 3 rows of its basis are not stored"),
        (lambda folder: edit(folder, 0, commit="f" * 40), "1 of 3 rows of its basis are not stored"),
        (lambda folder: edit(folder, 0, digest_anew=False, device="cuda"), "line 1 changed since stored"),
    ],
)
def test_what_is_tampered_with_fails(
    folder: Path, tamper: Callable[[Path], None], said: str, capsys: Any, monkeypatch: Any
) -> None:
    """Would break if a number could be moved, widened or lost and the table still said PASS."""
    monkeypatch.setattr(default_folder, "RESULTS", folder)
    tamper(folder)
    capsys.readouterr()
    assert main(["--results", str(folder)]) == 1
    out = capsys.readouterr().out
    assert said in " ".join(out.split())
    assert "FAIL" in out


def test_a_failure_names_the_files_to_restore(folder: Path, capsys: Any) -> None:
    """Breaks if who lost a row is not told which two files have to fit each other."""
    remove_line(folder)
    assert main(["--results", str(folder)]) == 1
    said = "restore expected.toml and measured/cifar10.jsonl as they were committed"
    assert said in " ".join(capsys.readouterr().out.split())


def test_a_single_row_put_in_anothers_place_fails(folder: Path, row: Any, capsys: Any) -> None:
    """Breaks if an expectation of one seed passes on another row where the dataset's other rows are stored."""
    append(stored(folder), [row(metric="kid", value=0.5)])
    assert main(["--results", str(folder), "--write-expected", "metric=kid"]) == 0
    edit(folder, 3, value=0.5001)
    assert main(["--results", str(folder)]) == 1
    assert "1 of 1 rows of its basis are not stored" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    "lose",
    [
        lambda folder: stored(folder).unlink(),
        lambda folder: stored(folder).write_bytes(b""),
        lambda folder: shutil.rmtree(folder / "measured"),
    ],
)
def test_elsewhere_a_dataset_without_rows_was_never_run(
    folder: Path, lose: Callable[[Path], None], capsys: Any
) -> None:
    """Breaks if expectations copied into an empty folder fail, or pass, before anything was measured there."""
    lose(folder)
    capsys.readouterr()
    assert main(["--results", str(folder), "--all"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "NEVER RUN fid768 of ebm-prior: no row yet; needs" in out
    assert "measured/cifar10.jsonl has none of the 3 rows of its basis" in out
    assert not re.search(r"\bPASS\b|\bFAIL\b", out)


@pytest.mark.parametrize(
    ("off", "status", "code"), [(0.0, "STALE", 0), (0.03, "STALE", 0), (9.0, "FAIL", 1)], ids=["pass", "drift", "fail"]
)
def test_rows_of_another_machine_never_pass(
    folder: Path, row: Any, capsys: Any, off: float, status: str, code: int
) -> None:
    """Breaks if rows pass an expectation that cannot be checked there, or fail because others made it."""
    stored(folder).unlink()
    append(stored(folder), [row(preset="budget", seed=seed, value=1.0 + seed / 100 + off) for seed in (4, 5, 6)])
    capsys.readouterr()
    assert main(["--results", str(folder), "--json"]) == code
    verdicts = json.loads(capsys.readouterr().out)["verdicts"]
    (one,) = (one for one in verdicts if one["preset"] == "budget" and one["measured"] is not None)
    assert (one["verdict"], one["seeds"]) == (status, 3)
    assert "measured/cifar10.jsonl has none of the 3 rows of its basis" in one["reason"]


def test_every_command_names_the_folder_that_was_checked(folder: Path, row: Any, capsys: Any) -> None:
    """Breaks if a printed command measures into the repository's rows, or rewrites the repository's expected.toml."""
    append(stored(folder), [row(metric="kid")])
    capsys.readouterr()
    for options in ([], ["--all"]):
        assert main(["--results", str(folder), *options]) == 0
        lines = [line.strip() for line in capsys.readouterr().out.splitlines() if line.startswith("    ")]
        commands = [line for line in lines if line.startswith(("nox", "python"))]
        assert commands
        assert [line for line in commands if not line.endswith(f" --results {folder}")] == []
    assert any("--write-expected" in line for line in commands)
    assert main(["--results", str(folder), "--write-expected", "metric=kid"]) == 0
    (three,) = (one for one in read_expected(folder / "expected.toml") if one.seeds == 3 and one.value is not None)
    with pytest.raises(UserError, match=f"measure the others first: .* --results {folder}$"):
        expect([row(preset="budget")], three, folder)


def test_a_value_that_lost_its_number_is_no_waiting_entry(folder: Path, capsys: Any) -> None:
    """Would break if an expectation could be put out of the way by deleting its value."""
    change(folder, r"^value = [^\n]*\n", "")
    assert main(["--results", str(folder)]) == 2
    assert "names its 'basis_rows' and has no 'value'" in capsys.readouterr().err


def test_a_tolerance_by_hand_says_so(folder: Path, capsys: Any) -> None:
    """Would break if a chosen tolerance could not be told from a computed one, or let the value move too."""
    widen(folder)
    change(folder, r"^basis_rows", 'tolerance_by_hand = "another BLAS"\nbasis_rows')
    capsys.readouterr()
    assert main(["--results", str(folder)]) == 0
    assert "1 with a remark" in capsys.readouterr().out
    assert main(["--results", str(folder), "--all"]) == 0
    assert "tolerance set by hand: another BLAS" in capsys.readouterr().out
    change(folder, r"^value = [^\n]*", "value = 1.5")
    assert main(["--results", str(folder)]) == 1


def test_a_changed_line_of_the_benchmark_fails(folder: Path, capsys: Any) -> None:
    """Would break if the table of speeds, which nothing is expected of, could be edited."""
    shutil.copy(RESULTS / "measured" / "bench.jsonl", folder / "measured")
    assert main(["--results", str(folder)]) == 0
    path = folder / "measured" / "bench.jsonl"
    path.write_text(re.sub(r'"ours": [^,]*', '"ours": 1e-9', path.read_text(), count=1))
    assert main(["--results", str(folder)]) == 1
    assert "bench.jsonl, line 1 was changed since it was stored" in capsys.readouterr().out


def test_every_entry_of_the_repository_is_what_its_rows_make() -> None:
    """Would break if a stored expectation could not be recomputed from stored rows, digit for digit."""
    rows = {row.row_digest: row for row in read_all(RESULTS / "measured")}
    entries = [one for one in read_expected(RESULTS / "expected.toml") if one.value is not None]
    assert len(entries) >= 135
    for one in entries:
        assert fault(one, rows) == ""
        assert not one.tolerance_by_hand
        made = expect([rows[digest] for digest in one.basis_rows], one)
        assert made.basis == one.basis


@pytest.mark.parametrize("form", ["terminal", "markdown", "latex"])
def test_escapes_in_a_stored_text_are_printed(row: Any, form: Any) -> None:
    """Would break if a row could clear the screen, or paint FAIL as PASS."""
    odd = "cpu\x1b[2J\x1b[31mPASS\r\x9b0m"
    (verdict,) = check([row(preset=odd, chain=odd, layer=odd, extractor=odd)], [])
    bad = dataclasses.replace(verdict, status="FAIL", reason=odd, command=odd)
    text = render([verdict, bad], {}, form)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)
    assert "x1b" in text


def test_printed_commands_can_be_pasted(row: Any, capsys: Any) -> None:
    """Would break if a shell read a part of a printed command as its own: `L>0` would make a file "0"."""
    assert main(["--all"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines() if line.startswith("    ")]
    commands = {line for line in lines if line.startswith(("nox", "python"))}
    assert len(commands) > 100
    commands |= {one.command for one in read_expected(RESULTS / "expected.toml")}
    odd = {"preset": "cpu; rm -rf ~", "source": "anomaly", "target": "9", "score": "L>0", "metric": "auprc"}
    commands.add(expect([row(**odd)]).command)
    for command in commands:
        lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        assert not [word for word in lexer if word and set(word) <= set(lexer.punctuation_chars)], command
    (verdict,) = held_to_basis(check([row(**odd)], []), [])
    *_, command, option, first, second = shlex.split(verdict.command)[:6]
    assert (command, option) == ("reproduce.check", "--write-expected")
    asked = {name: value for name, _, value in (word.partition("=") for word in shlex.split(verdict.command)[4:])}
    assert (first, second) == ("dataset=cifar10", f"preset={odd['preset']}")
    stated = [name for name in (*QUESTION, "images") if getattr(verdict.expectation, name)]
    told = {name: str(getattr(verdict.expectation, name)) for name in stated}
    assert asked == told | {"variation": ""}


def test_pages_and_tables_judge_as_check_does(folder: Path) -> None:
    """Would break if a page said PASS of an expectation that check refuses."""
    path = folder / "expected.toml"
    path.write_text(re.sub(r"^(tolerance|fail_beyond) = .*$", r"\1 = 9.0", path.read_text(), flags=re.MULTILINE))
    assert main(["--results", str(folder)]) == 1
    pages = [one.status for one in Stored.read(folder).verdicts if one.mean is not None]
    report = [one.verdict.status for one in all_results(folder).judged if one.verdict.mean is not None]
    assert pages == report
    assert "FAIL" in pages
    assert "PASS" not in pages


def _write(results: Path, dataset: str, start: Any) -> None:
    start.wait()
    raise SystemExit(main(["--results", str(results), "--write-expected", f"dataset={dataset}"]))


def test_two_writers_of_expected_toml_lose_nothing(tmp_path: Path, row: Any) -> None:
    """Would break if an entry were read, and then written over, while another process wrote."""
    copy_open_questions(RESULTS, tmp_path)
    datasets = ("cifar10", "mnist", "celeba64", "svhn")
    for dataset in datasets:
        rows = [row(dataset=dataset, metric="kid", source="samples", seed=seed) for seed in range(3)]
        append(tmp_path / "measured" / f"{dataset}.jsonl", rows)
    context = multiprocessing.get_context("fork")
    start = context.Barrier(len(datasets))
    writers = [context.Process(target=_write, args=(tmp_path, dataset, start)) for dataset in datasets]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * len(datasets)
    assert {one.dataset for one in read_expected(tmp_path / "expected.toml") if one.value is not None} == set(datasets)


def test_a_selector_that_contradicts_itself(folder: Path, capsys: Any) -> None:
    """Would break if `preset=tiny preset=cpu` wrote one of the two without a word."""
    assert main(["--results", str(folder), "--write-expected", "preset=tiny", "--write-expected", "preset=cpu"]) == 2
    assert "'preset' is selected twice" in capsys.readouterr().err


def test_a_folder_of_rows_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would break if rows that may not be read counted as rows that are not there."""

    def refuse(self: Path) -> Any:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(UserError, match="may not be read"):
        read_all(tmp_path)
