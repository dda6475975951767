"""Every command of the project: `nox -l` lists them, plain `nox` runs what a change has to pass.

A session only says which `python -m ...` to run; what follows `--` is handed to it. All sessions share one
environment (torch with its CUDA packages is several GB), installed by whichever session comes first, at the
versions of `constraints.txt`. Two sessions alone have their own: `wheel` and `lowest`, which test what is installed.
"""

import ast
import hashlib
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import nox
from filelock import FileLock, Timeout  # nox itself stands on it, through virtualenv
from nox.command import CommandFailed

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "none"  # not one environment for each session: see `environment_python`

ROOT = Path(__file__).resolve().parent
OLDEST_PYTHON = (3, 11)
FAILED = 1  # the exit code that nox has for every failure
STOPPED = 130  # and the one of a command that Ctrl-C ended, as in a shell
SECONDS_TO_STOP = 120.0  # after Ctrl-C, what a training run has to write its checkpoint


# ---- the shared environment


def environment_python(session: nox.Session) -> Path:
    """Return the interpreter of the shared environment, installed or updated first where that is due.

    A stamp, written last, holds the digest of what the environment was made from. Another digest: pip brings
    the environment up to date. No stamp: an installation was interrupted, and it is made from nothing.
    """
    return _made(session, "jlebm", _install)


def _made(session: nox.Session, name: str, install: Callable[[nox.Session, Path], None], anew: bool = False) -> Path:
    """Return the interpreter of the environment `name`, made by `install`; `anew`: never brought up to date."""
    version = sys.version_info[:2]
    if version < OLDEST_PYTHON:
        session.error(
            f"this nox runs on Python {version[0]}.{version[1]}, and the project needs 3.11 or later: "
            "install nox with a newer one (python3.11 -m pip install nox)"
        )
    folder = session.env_dir.resolve().with_name(f"{name}-{version[0]}.{version[1]}")
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = folder / "made-from"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _alone(session, folder.with_suffix(folder.suffix + ".lock")):
        made_from, due = stamp.read_text() if stamp.is_file() else None, _digest()
        if made_from != due:
            if made_from is None or anew:
                session.log(f"Installing {folder.name}, once: about 3 GB to download, 6 GB on the disk.")
                session.run_install(sys.executable, "-m", "virtualenv", "--quiet", "--clear", str(folder))
            stamp.unlink(missing_ok=True)
            install(session, python)
            stamp.write_text(due)
    return python


def _digest() -> str:
    """Digest what the environment is made from: the pins, and the checkout that it is linked to."""
    made_from = hashlib.sha256(bytes(ROOT))
    for name in ("constraints.txt", "pyproject.toml"):
        made_from.update((ROOT / name).read_bytes())
    return made_from.hexdigest()


def _install(session: nox.Session, python: Path) -> None:
    groups = nox.project.dependency_groups(nox.project.load_toml(ROOT / "pyproject.toml"), "test", "lint")
    constraints = ("--constraint", str(ROOT / "constraints.txt"))
    session.run_install(str(python), "-m", "pip", "install", *constraints, "--editable", f"{ROOT}[suite]", *groups)


def with_extra(session: nox.Session, extra: str) -> None:
    """Install an extra that one command alone needs, once: baselines for the table, tensorboard for events."""
    _with(session, extra, "--editable", f"{ROOT}[suite,{extra}]")


def with_docs(session: nox.Session) -> None:
    """Install what builds the documentation, once.

    Not an environment of its own: the reference is read from the library as it is imported, torch and all, which would
    be another 6 GB.
    """
    _with(session, "docs", *nox.project.dependency_groups(nox.project.load_toml(ROOT / "pyproject.toml"), "docs"))


def _with(session: nox.Session, name: str, *asked: str) -> None:
    """Install into the shared environment what few sessions need; a stamp says that it is there."""
    python = environment_python(session)
    stamp = python.parents[1] / f"has-{name}"
    if stamp.is_file() and stamp.read_text() == _digest():
        return
    with _alone(session, python.parents[1].with_suffix(python.parents[1].suffix + ".lock")):
        constraints = ("--constraint", str(ROOT / "constraints.txt"))
        session.run_install(str(python), "-m", "pip", "install", *constraints, *asked)
        stamp.write_text(_digest())


@contextmanager
def _alone(session: nox.Session, path: Path) -> Iterator[None]:
    """Hold the environment's lock: of two sessions that start together, one installs and the other waits."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        session.log("Another session is installing the shared environment: waiting for it.")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def run_module(session: nox.Session, *command: str) -> None:
    """Run `python -m command` in the shared environment; its stdout and stderr stay apart."""
    python = environment_python(session)
    session.run(str(python), "-m", *command, stderr=None, interrupt_timeout=SECONDS_TO_STOP)


def run_own_module(session: nox.Session, *command: str) -> None:
    """Run one of the project's own commands; its exit code, where it says more than "failed", becomes that of nox.

    By itself nox answers every failure with exit code 1. On bad input (2), a training that diverged (3) or was
    stopped (130), it ends at once instead, so that the sentence of the command stands last on the screen.
    """
    try:
        run_module(session, *command)
    except CommandFailed as failed:
        code = failed.return_code
        if code is None or code == FAILED:
            raise
        # A command that a signal ended has the code that a shell gives it.
        raise SystemExit(code if code > 0 else 128 - code) from None
    except KeyboardInterrupt:  # Ctrl-C reaches nox, too
        raise SystemExit(STOPPED) from None


# ---- what a change has to pass


@nox.session
def lint(session: nox.Session) -> None:
    """Check rules, layout, types and links (-- types for one of them); the pre-commit hooks are the same."""
    checks = {
        "rules": ("ruff", "check", "."),
        "layout": ("ruff", "format", "--check", "."),
        "types": ("pyright", "--pythonpath", str(environment_python(session))),
        "links": ("pytest", "--quiet", "tests/test_links.py"),
    }
    asked = [name for name in session.posargs if name in checks]  # what else stands there is for the other sessions
    for name in asked or checks:
        run_module(session, *checks[name])


IGNORED = ("--ignore", "tests/regression")  # which have a session of their own


@nox.session
def tests(session: nox.Session) -> None:
    """Run the unit tests on all cores (-- -k WORD for some of them, -- -n 0 in one process)."""
    run_module(session, "pytest", "-n", "auto", "--dist", "loadfile", "tests", *IGNORED, *session.posargs)


@nox.session(default=False)
def fast(session: nox.Session) -> None:
    """Run the fast unit tests on two cores, in under two minutes (-- tests/data for some of them).

    It fails if a test that is not marked slow took seconds of processor time (`tests/processor_time.py`).
    """
    asked = session.posargs or ("tests", *IGNORED)
    limits = ("-p", "tests.processor_time")
    run_module(session, "pytest", "-n", "2", "--dist", "loadfile", "-m", "not slow", *limits, *asked)


@nox.session
def regression(session: nox.Session) -> None:
    """Run the real recipes at their tiny size against golden curves (-- --write-golden writes them anew)."""
    run_module(session, "pytest", "tests/regression", *session.posargs)


@nox.session(default=False)
def baselines(session: nox.Session) -> None:
    """Run what the other systems of the table have to pass, with their extra installed (-- -k ddpm for some)."""
    with_extra(session, "baselines")
    run_module(session, "pytest", "tests/systems", "tests/regression/test_table.py", *session.posargs)


@nox.session(default=False)
def wheel(session: nox.Session) -> None:
    """Build the wheel and use it where nothing else is installed: the method alone, typed, without the suite.

    The environment is the wheel with its dependencies, and is kept until the pins or pyproject.toml change. From
    then on only the wheel is installed anew, which needs no network.
    """
    built = _build(session)

    def install(session: nox.Session, python: Path) -> None:
        constraints = ("--constraint", str(ROOT / "constraints.txt"))
        session.run_install(str(python), "-m", "pip", "install", *constraints, str(built))

    python = _made(session, "wheel", install, anew=True)
    itself = ("--no-index", "--no-deps", "--force-reinstall", str(built))
    session.run(str(python), "-m", "pip", "install", "--quiet", *itself)
    # -I: neither this folder nor the surroundings are seen.
    session.run(str(python), "-I", str(ROOT / "tests" / "bare_wheel.py"))


def _build(session: nox.Session) -> Path:
    """Build the wheel of a copy, so that no earlier build's leftovers are packed."""
    place = Path(session.create_tmp()).resolve()
    shutil.rmtree(place)
    shutil.copytree(ROOT / "jlebm", place / "copy" / "jlebm", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, place / "copy")
    local = ("--no-index", "--no-deps", "--no-build-isolation")
    run_module(session, "pip", "wheel", "--quiet", *local, "--wheel-dir", str(place), str(place / "copy"))
    (built,) = place.glob("*.whl")
    return built


@nox.session(default=False)
def method(session: nox.Session) -> None:
    """Run the method's own fast tests, without the suite's (-- -k WORD for some of them)."""
    run_module(session, "pytest", "-m", "not slow", *method_tests(), *session.posargs)


@nox.session(default=False)
def lowest(session: nox.Session) -> None:
    """Run the method's own fast tests with the oldest dependencies that pyproject.toml allows."""
    python = _made(session, "lowest", _install_lowest, anew=True)
    session.run(str(python), "-m", "pytest", "-m", "not slow", *method_tests(), *session.posargs)


# A test that names one of these is about the suite, the docs or the project itself, and not about the method.
PROJECTS_OWN = re.compile(
    r"\b(from|import) (reproduce|figures)\b|\"(reproduce|figures|docs|results|README\.md)\b|noxfile"
    r"|\bfrom tests\.(benchmark|figures|reliability|reproduce|results|systems|terminal|wire)\b"
)


def method_tests() -> list[str]:
    """Return the files of the method's own tests: those that name nothing of the suite."""
    files = [*(ROOT / "tests").glob("test_*.py"), *(ROOT / "tests" / "data").glob("test_*.py")]
    files += (ROOT / "tests" / "evaluation").glob("test_*.py")
    own = [path for path in files if not PROJECTS_OWN.search(path.read_text(encoding="utf-8"))]
    return sorted(str(path.relative_to(ROOT)) for path in own)


def _install_lowest(session: nox.Session, python: Path) -> None:
    """Install each direct dependency at its lower bound; what a bound says nothing of, at pip's choice."""
    project = nox.project.load_toml(ROOT / "pyproject.toml")["project"]
    asked = [*project["dependencies"], *(line for lines in project["optional-dependencies"].values() for line in lines)]
    bounds = python.parents[1] / "lowest.txt"
    bounds.write_text("\n".join(re.sub(">=", "==", line) for line in asked) + "\n")
    groups = nox.project.dependency_groups(nox.project.load_toml(ROOT / "pyproject.toml"), "test")
    constraints = ("--constraint", str(bounds))
    session.run_install(
        str(python), "-m", "pip", "install", *constraints, "--editable", f"{ROOT}[suite,diagnostics]", *groups
    )


@nox.session
def check(session: nox.Session) -> None:
    """Compare every stored number with its expectation; say what FAILs and what there is to run (-- --all, --json)."""
    run_own_module(session, "reproduce.check", *session.posargs)


# ---- the paper's artifacts


def recipes() -> dict[str, str]:
    """Return the first line of each recipe by its name: the files at the top of `reproduce` that say a RECIPE."""
    found = {}
    for path in sorted((ROOT / "reproduce").glob("*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"))
        assigned = [target for node in module.body if isinstance(node, ast.Assign) for target in node.targets]
        if any(isinstance(target, ast.Name) and target.id == "RECIPE" for target in assigned):
            found[path.stem] = (ast.get_docstring(module) or path.stem).partition("\n")[0].removesuffix(".")
    return found


def _add_recipe(name: str, first_line: str) -> None:
    def reproduce(session: nox.Session) -> None:
        run_own_module(session, f"reproduce.{name}", *session.posargs)

    reproduce.__doc__ = f"{first_line} (-- --help for options)."
    nox.session(name=f"reproduce_{name}", default=False)(reproduce)


for _name, _first_line in recipes().items():
    _add_recipe(_name, _first_line)


@nox.session(default=False)
def reproduce_table(session: nox.Session) -> None:
    """Train, sample and evaluate every system of the paper's Table 2 (-- --systems ddpm ncsn)."""
    with_extra(session, "baselines")
    run_own_module(session, "reproduce.table", *session.posargs)


@nox.session(default=False)
def reproduce_anomaly(session: nox.Session) -> None:
    """Hold out digits of MNIST, train on the others and detect them (-- --preset cpu --seeds 1 2 3)."""
    run_own_module(session, "reproduce.anomaly", *session.posargs)


@nox.session(default=False)
def reproduce_priors(session: nox.Session) -> None:
    """Train a VAE, ABP, LEBM and priors of two layers for equal times (-- --preset cpu --dataset celeba64)."""
    run_own_module(session, "reproduce.priors", *session.posargs)


@nox.session(default=False)
def reproduce_ood(session: nox.Session) -> None:
    """Detect images of another dataset by a trained ladder (-- --run FOLDER --outside mnist)."""
    run_own_module(session, "reproduce.ood", *session.posargs)


@nox.session(default=False)
def evaluate(session: nox.Session) -> None:
    """Measure anybody's samples (-- --images PATH --against cifar10)."""
    run_own_module(session, "reproduce.evaluate", *session.posargs)


@nox.session(default=False)
def generate(session: nox.Session) -> None:
    """Draw images of a trained model into a file (-- --run RUN --seeds 0-49999 --out samples.npz)."""
    run_own_module(session, "reproduce.generate", *session.posargs)


@nox.session(default=False)
def events(session: nox.Session) -> None:
    """Write the training curves of runs for TensorBoard (-- --runs runs --tensorboard build/tensorboard)."""
    with_extra(session, "tensorboard")
    run_own_module(session, "reproduce.events", *session.posargs)


@nox.session(default=False)
def figures(session: nox.Session) -> None:
    """Redraw every figure and table from stored artifacts; needs no GPU and no network."""
    run_own_module(session, "figures", *session.posargs)


@nox.session(default=False)
def report(session: nox.Session) -> None:
    """Write all results into one HTML page, report.html, to open in a browser (-- --run RUN for one run)."""
    run_own_module(session, "figures.report", *session.posargs)


@nox.session(default=False)
def docs(session: nox.Session) -> None:
    """Build the documentation into build/docs; a warning is an error, and no network is used."""
    with_docs(session)
    options = ("-b", "html", "-W", "--keep-going")
    run_module(session, "sphinx", *options, *session.posargs, str(ROOT / "docs"), str(ROOT / "build" / "docs"))


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Time each part beside a plain implementation, and how cost grows (-- --only "prior chain", -- --peers)."""
    if "--peers" in session.posargs:
        with_extra(session, "peers")
    run_own_module(session, "reproduce.benchmark", *session.posargs)


@nox.session(default=False)
def gpu_check(session: nox.Session) -> None:
    """Run first on a GPU: is it right, how fast, in what memory; under ten minutes (-- --pretend on a CPU)."""
    run_own_module(session, "reproduce.benchmark.gpu_check", *session.posargs)


@nox.session(default=False)
def environment(session: nox.Session) -> None:
    """Only install or update the environment that all sessions share (each does it by itself)."""
    session.log(f"The shared environment is ready: {environment_python(session)}")
