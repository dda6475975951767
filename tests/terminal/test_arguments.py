"""Command lines: nothing that was typed is dropped, nothing that a shell left empty is taken for a folder."""

import dataclasses
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pytest
import tyro

import figures.__main__
import reproduce.anomaly
import reproduce.benchmark.__main__
import reproduce.check
import reproduce.cifar10
import reproduce.evaluate
import reproduce.ood
import reproduce.pipelines.arguments
import reproduce.priors
import reproduce.table
from jlebm.data import data_root
from jlebm.errors import UserError
from reproduce.terminal.parsing import parse

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Inner:
    """Options without a prefix."""

    checkpoint_file: Path | None = None
    noise: bool = True


@dataclass(frozen=True)
class Arguments:
    """One option of each kind."""

    set: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (1,)
    data_root: Path | None = None
    preset: str | None = None
    download: bool = True
    inner: Annotated[Inner, tyro.conf.arg(name="", prefix_name=False)] = field(default_factory=Inner)


def read(*words: str) -> Arguments:
    return parse(Arguments, words, "")


@pytest.mark.parametrize(
    "words",
    [
        ["--set", "a=1", "b=2", "c=3"],
        ["--set", "a=1", "--set", "b=2", "c=3"],
        ["--set=a=1", "--preset", "tiny", "--set=b=2", "--set", "c=3"],
    ],
)
def test_a_repeated_option_of_several_values_has_all_of_them(words: list[str]) -> None:
    """Would break if the second --set took the place of the first, and a run had half of its settings."""
    assert read(*words).set == ("a=1", "b=2", "c=3")


def test_numbers_add_up_too() -> None:
    """Would break if only texts were gathered, or a negative number were taken for an option."""
    assert read("--seeds", "1", "--seeds", "-2", "3").seeds == (1, -2, 3)


@pytest.mark.parametrize(
    "words",
    [
        ["--preset", "a", "--preset", "b"],
        ["--preset=a", "--preset", "a"],
        ["--data-root", "a", "--data_root", "b"],
        ["--checkpoint-file", "a", "--checkpoint-file", "b"],
        ["--download", "--no-download"],
        ["--no-noise", "--no-noise"],
    ],
)
def test_a_repeated_option_of_one_value_is_refused(words: list[str]) -> None:
    """Would break if one of two contradicting values were taken without a word."""
    with pytest.raises(UserError, match=r"takes one value and is given 2 times.*give it once"):
        read(*words)


@pytest.mark.parametrize("form", [["--{}", ""], ["--{}="], ["--{}", "  "]])
@pytest.mark.parametrize("name", ["data-root", "data_root", "checkpoint-file", "preset", "set", "seeds"])
def test_an_empty_text_is_refused(form: list[str], name: str) -> None:
    """Would break if `--data-root "$UNSET"` meant the working folder, or `--preset ""` the default."""
    with pytest.raises(UserError, match=f"--{name.replace('_', '-')} is an empty text.*variable that is not set"):
        read(*(word.format(name) for word in form))


def test_what_is_unknown_stays_with_tyro() -> None:
    """Would break if a mistyped option were swallowed on the way."""
    for words in (["--presett", "a"], ["a"], ["--seeds", "one"], ["--", "x"]):
        with pytest.raises(SystemExit) as stopped:
            read(*words)
        assert stopped.value.code == 2


COMMANDS = {
    "check": reproduce.check.main,
    "cifar10": reproduce.cifar10.main,
    "ood": reproduce.ood.main,
    "evaluate": reproduce.evaluate.main,
    "priors": reproduce.priors.main,
    "table": reproduce.table.main,
    "anomaly": reproduce.anomaly.main,
    "figures": figures.__main__.main,
    "bench": reproduce.benchmark.__main__.main,
}
KINDS = {
    "check": reproduce.check.Arguments,
    "cifar10": reproduce.pipelines.arguments.Arguments,
    "ood": reproduce.ood.Arguments,
    "evaluate": reproduce.evaluate.Arguments,
    "priors": reproduce.priors.Arguments,
    "table": reproduce.table.Arguments,
    "anomaly": reproduce.anomaly.Arguments,
    "figures": figures.__main__.Arguments,
    "bench": reproduce.benchmark.__main__.Arguments,
}


def paths_of(kind: Any) -> list[str]:
    names = [each.name for each in dataclasses.fields(kind) if "Path" in str(each.type)]
    return [f"--{name.replace('_', '-')}" for name in names]


@pytest.mark.parametrize(
    ("command", "option"),
    [(name, option) for name, kind in KINDS.items() for option in paths_of(kind)]
    + [("cifar10", option) for option in paths_of(reproduce.pipelines.arguments.Variation)],
)
def test_every_path_of_every_command(command: str, option: str, capsys: Any) -> None:
    """Would break if a command read its words in a way of its own."""
    assert COMMANDS[command]([option, ""]) == 2
    assert f"error: {option} is an empty text" in capsys.readouterr().err


def test_there_is_one_reader() -> None:
    """Would break if a command called tyro past what is refused here."""
    rooms = ("reproduce", "figures", "jlebm")
    texts = {path: path.read_text() for room in rooms for path in (ROOT / room).rglob("*.py")}
    readers = {path for path, text in texts.items() if re.search(r"\btyro\s*\.\s*cli\b|from tyro import", text)}
    assert readers == {ROOT / "reproduce" / "terminal" / "parsing.py"}


def test_an_empty_data_root_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Would break if JLEBM_DATA="" meant the working folder, or a folder that nobody named."""
    monkeypatch.setenv("JLEBM_DATA", "")
    with pytest.raises(UserError, match="JLEBM_DATA is set to an empty text"):
        data_root(None)


@pytest.mark.parametrize(
    "encoding",
    [pytest.param("cp1252", marks=pytest.mark.slow), pytest.param("ascii:strict", marks=pytest.mark.slow), "utf-8"],
)
def test_an_output_that_is_not_utf_8(encoding: str, tmp_path: Path) -> None:
    """Would break if `python -m reproduce.check > file` on Windows ended in a traceback, or in rubbish."""
    out = tmp_path / "out"
    with out.open("wb") as file:
        ran = subprocess.run(
            [sys.executable, "-m", "reproduce.check", "--all"],
            cwd=ROOT,
            env={"PYTHONIOENCODING": encoding, "PATH": "", "PYTHONPATH": str(ROOT)},
            stdout=file,
            stderr=subprocess.PIPE,
            timeout=120,
        )
    assert (ran.returncode, ran.stderr) == (0, b"")
    text = out.read_bytes().decode(encoding.partition(":")[0])
    assert "PASS" in text
    assert "\\u" not in text
    mark = "+/-" if encoding.startswith("ascii") else "±"
    assert f"1.1427 {mark} 0.0056" in text
    assert ("+-" in text) == (encoding != "utf-8")


def test_an_output_that_nobody_reads_to_its_end() -> None:
    """Would break if `python -m reproduce.check | head -1` ended in a traceback."""
    command = f"{sys.executable} -m reproduce.check | head -1; exit ${{PIPESTATUS[0]}}"
    ran = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ran.returncode in (0, 141)
    assert "Traceback" not in ran.stderr
    assert "Exception" not in ran.stderr


OUTPUTS = {
    "a full disk": ("> /dev/full", 2, ["error: the output cannot be used (No space left on device)"]),
    "both on one": ("> /dev/full 2> /dev/full", 2, []),
    "closed": (">&-", 0, []),
    "both closed": (">&- 2>&-", 0, []),
    "nobody reads": ("| true; exit ${PIPESTATUS[0]}", 141, []),
}


OTHERS = [name for name in OUTPUTS if name != "a full disk"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full device is that of Linux")
@pytest.mark.parametrize("output", ["a full disk", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
@pytest.mark.parametrize(
    "words", ["-m reproduce.check", pytest.param("-m reproduce.check --all", marks=pytest.mark.slow)]
)
def test_an_output_that_takes_nothing(output: str, words: str) -> None:
    """Would break if `> /dev/full` ended in a traceback, or with a code of success."""
    where, code, said = OUTPUTS[output]
    command = f"{sys.executable} {words} {where}"
    ran = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert ran.stderr.splitlines() == said
    assert ran.returncode == code


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full device is that of Linux")
@pytest.mark.parametrize("words", ["--help", "--results /there-is-none", "--no-such-option"])
def test_a_screen_that_takes_nothing(words: str) -> None:
    """Would break if a sentence that cannot be written changed the exit code."""
    command = f"{sys.executable} -m reproduce.check {words} > /dev/full 2> /dev/full"
    ran = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert (ran.returncode, ran.stdout, ran.stderr) == (2, "", "")
