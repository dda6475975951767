"""paper.toml: complete, unique, and with its sources."""

import re
from collections import Counter
from pathlib import Path

import pytest

from jlebm.errors import UserError
from reproduce.results import read_paper

PAPER = Path(__file__).parents[2] / "results" / "paper.toml"


def test_every_number_is_there() -> None:
    """Would break if an entry were lost from a table."""
    paper = read_paper(PAPER)
    tables = Counter(key.split(".")[0] for key in paper)
    assert tables == {
        "table1": 24,
        "table2": 26,
        "table3": 13,
        "table4": 30,
        "table5": 12,
        "ood": 10,
        "iccv": 35,
        "icml2024": 2,
    }
    assert all(one.source for one in paper.values())
    assert {one.model for key, one in paper.items() if key.startswith(("table", "ood"))} == {"this paper"}
    assert {one.verified for key, one in paper.items() if key.startswith("icml")} == {"second-hand"}


def test_some_numbers() -> None:
    """Would break if values were shifted between rows, columns or tables."""
    paper = read_paper(PAPER)
    values = {
        "table1.cifar10.ours": 66.32,
        "table1.svhn.vae": 46.78,
        "table1.celeba-64.lebm": 37.87,
        "table2.cifar10.ours.fid": 11.34,
        "table2.cifar10.nvae.is": 5.30,
        "table2.cifar10.ddpm.fid": 3.17,
        "table3.lsun-church-64.pggan": 6.42,
        "table4.mnist-5.ours": 0.964,
        "table5.cifar10.variational.fid": 68.45,
        "table5.celeba-64.mcmc.seconds": 0.920,
        "ood.cifar10-svhn.k9.auroc": 0.870,
        "iccv.cifar10.fid": 63.42,
        "icml2024.cifar10.fid": 8.93,
    }
    assert {key: paper[key].value for key in values} == values
    assert paper["table4.mnist-9.meg"].spread == 0.034
    assert "32.53" in paper["table2.cifar10.nvae.fid"].note
    assert "7.23" in paper["table2.cifar10.div-triangle.fid"].note


def test_table_2_is_the_source_s(shared: Path) -> None:
    """Would break if a system of the CIFAR-10 table were missing or misread."""
    text = (shared / "paper" / "facts.md").read_text(encoding="utf-8")
    match = re.search(r"\*\*Table 2.*?PP\]: (.*?)\. \(\* =", text, flags=re.DOTALL)
    assert match
    stated = {}
    for part in match[1].replace("**", "").split("; "):
        system, pair = part.rsplit(" ", 1)
        inception, fid = pair.split("/")
        stated[system] = (None if inception == "-" else float(inception), float(fid))
    read: dict[str, list[float | None]] = {}
    for key, one in read_paper(PAPER).items():
        if key.startswith("table2."):
            read.setdefault(one.system, [None, None])[one.metric == "fid"] = one.value
    assert {system: tuple(pair) for system, pair in read.items()} == stated
    assert len(stated) == 14


def test_a_bad_entry_gets_a_sentence(tmp_path: Path) -> None:
    """Would break if a key could stand twice, or an entry lack its source."""
    entry = PAPER.read_text(encoding="utf-8").split("[[reported]]")[1]
    path = tmp_path / "paper.toml"
    path.write_text(f"[[reported]]{entry}[[reported]]{entry}", encoding="utf-8")
    with pytest.raises(UserError, match="stands twice"):
        read_paper(path)
    path.write_text("[[reported]]" + re.sub("source = .*\n", "", entry), encoding="utf-8")
    with pytest.raises(UserError, match=r"number 1 .*'source' is missing"):
        read_paper(path)
    path.write_text(f'[[reported]]{entry}same_as = "table9"\n', encoding="utf-8")
    with pytest.raises(UserError, match="no repetition"):
        read_paper(path)
