"""What a change goes through before it is in: the hooks, the workflow, the oldest dependencies."""

import ast
import re
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement

import noxfile

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
NOXFILE = (ROOT / "noxfile.py").read_text()


def test_every_action_is_pinned_by_its_commit() -> None:
    """Breaks if a workflow uses a tag, which may be moved to other code, or does not say which version a commit is."""
    used = [line for path in WORKFLOWS for line in path.read_text().splitlines() if "uses:" in line]
    assert used
    for line in used:
        assert re.fullmatch(r" *(?:- )?uses: [\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line
    assert len({line.split("#")[0].strip() for line in used}) == len({line.split("@")[0].strip() for line in used})


def test_the_workflow_runs_sessions_that_exist() -> None:
    """Breaks if a session is renamed, and the workflow still names the old one."""
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    named = {job["session"] for job in jobs["session"]["strategy"]["matrix"]["include"]}
    named |= set(jobs["nox"]["steps"][-1]["run"].removeprefix("nox -s ").split())
    assert {"lint", "tests", "regression", "baselines", "lowest", "wheel", "method"} == named
    for session in named:
        assert f"\ndef {session}(session: nox.Session)" in NOXFILE, session


def test_each_check_of_lint_is_a_hook() -> None:
    """Breaks if what passes before a commit fails in `nox -s lint`, or a hook names no check of it."""
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"  # nothing is fetched, and no version stands twice
    entries = {hook["entry"] for hook in repository["hooks"]}
    (checks,) = re.findall(r"    checks = \{\n(.*?)    \}", NOXFILE, flags=re.DOTALL)
    assert entries == {f"nox -s lint -- {name}" for name in re.findall(r'^ +"(\w+)":', checks, flags=re.MULTILINE)}


def test_every_dependency_has_a_lowest_version() -> None:
    """Breaks if `nox -s lowest` would take the newest of a dependency, for want of a bound."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    for line in [*project["dependencies"], *(line for lines in extras for line in lines)]:
        assert [bound.operator for bound in Requirement(line).specifier] == [">="], line


def test_the_methods_tests_need_no_suite() -> None:
    """Breaks if a test of the method imports the suite, itself or through what tests share."""
    waiting, seen = [ROOT / name for name in noxfile.method_tests()], set()
    assert len(waiting) > 50
    waiting.append(ROOT / "tests" / "conftest.py")
    while waiting:
        path = waiting.pop()
        seen.add(path)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [each.name for each in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            module = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
            for name in (f"{module}.{each}" if module else each for each in names):
                assert name.split(".")[0] not in {"reproduce", "figures"}, f"{path.relative_to(ROOT)} imports {name}"
            ours = [module, *(f"{module}.{each}" for each in names)] if module.startswith("tests") else []
            files = {ROOT / f"{each.replace('.', '/')}.py" for each in ours}
            waiting += [file for file in files - seen if file.is_file()]
