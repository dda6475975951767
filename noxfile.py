"""Every command of the project: `nox -l` lists them, plain `nox` runs what a change has to pass.

A session only says which `python -m ...` to run; what follows `--` is handed to it. All sessions share one
environment (torch with its CUDA packages is several GB), installed by whichever session comes first, at the
versions of `constraints.txt`.
"""

import hashlib
import os
import sys
from collections.abc import Iterator
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

REPRODUCTIONS = {
    "cifar10": "Train, sample, evaluate and check the models on CIFAR-10 (-- --help for options).",
    "celeba64": "Train, sample, evaluate and check the models on CelebA-64 (-- --preset tiny).",
    "mnist": "Train, sample, evaluate and check a ladder and its Gaussian twin on MNIST (-- --help for options).",
    "fashion_mnist": "Train, sample, evaluate and check a ladder and its Gaussian twin on Fashion-MNIST.",
    "svhn": "Train, sample, evaluate and check a ladder and its Gaussian twin on SVHN.",
    "church64": "Train, sample, evaluate and check the two-stage model on LSUN-Church-64 (-- --preset tiny).",
    "table": "Train, sample and evaluate every system of the paper's Table 2 (-- --systems ddpm ncsn).",
    "celebahq256": "Train, sample, evaluate and check the two-stage model on CelebA-HQ-256 (-- --preset tiny).",
    "anomaly": "Hold out digits of MNIST, train on the others and detect them (-- --preset cpu --seeds 1 2 3).",
    "ood": "Detect images of another dataset by a trained ladder (-- --run FOLDER --outside mnist).",
}


# ---- the shared environment


def environment_python(session: nox.Session) -> Path:
    """Return the interpreter of the shared environment, installed or updated first where that is due.

    A stamp, written last, holds the digest of what the environment was made from. Another digest: pip brings
    the environment up to date. No stamp: an installation was interrupted, and it is made from nothing.
    """
    version = sys.version_info[:2]
    if version < OLDEST_PYTHON:
        session.error(
            f"this nox runs on Python {version[0]}.{version[1]}, and the project needs 3.11 or later: "
            "install nox with a newer one (python3.11 -m pip install nox)"
        )
    folder = session.env_dir.resolve().with_name(f"jlebm-{version[0]}.{version[1]}")
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = folder / "made-from"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _alone(session, folder.with_suffix(folder.suffix + ".lock")):
        made_from, due = stamp.read_text() if stamp.is_file() else None, _digest()
        if made_from != due:
            if made_from is None:
                session.log("Installing the shared environment, once: about 3 GB to download, 6 GB on the disk.")
                session.run_install(sys.executable, "-m", "virtualenv", "--quiet", "--clear", str(folder))
            stamp.unlink(missing_ok=True)
            _install(session, python)
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
    session.run_install(str(python), "-m", "pip", "install", *constraints, "--editable", str(ROOT), *groups)


def with_baselines(session: nox.Session) -> None:
    """Install the extra that the table's diffusion and score systems need, once; nothing else needs it."""
    python = environment_python(session)
    stamp = python.parents[1] / "has-baselines"
    if stamp.is_file() and stamp.read_text() == _digest():
        return
    with _alone(session, python.parents[1].with_suffix(python.parents[1].suffix + ".lock")):
        constraints = ("--constraint", str(ROOT / "constraints.txt"))
        session.run_install(str(python), "-m", "pip", "install", *constraints, "--editable", f"{ROOT}[baselines]")
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
    """Check style and types: ruff's rules and layout, then pyright."""
    run_module(session, "ruff", "check", ".")
    run_module(session, "ruff", "format", "--check", ".")
    run_module(session, "pyright", "--pythonpath", str(environment_python(session)))


@nox.session
def tests(session: nox.Session) -> None:
    """Run the unit tests (-- -k WORD for some of them)."""
    run_module(session, "pytest", "tests", "--ignore", "tests/regression", *session.posargs)


@nox.session
def regression(session: nox.Session) -> None:
    """Run the real recipes at their tiny size against golden curves (-- --write-golden writes them anew)."""
    run_module(session, "pytest", "tests/regression", *session.posargs)


@nox.session(default=False)
def baselines(session: nox.Session) -> None:
    """Run what the other systems of the table have to pass, with their extra installed (-- -k ddpm for some)."""
    with_baselines(session)
    run_module(session, "pytest", "tests/systems", "tests/regression/test_table.py", *session.posargs)


@nox.session
def check(session: nox.Session) -> None:
    """Hold every stored number against its tolerance: PASS, DRIFT, FAIL or NOT RUN with the reason."""
    run_own_module(session, "reproduce.check", *session.posargs)


# ---- the paper's artifacts


def _add_reproduction(dataset: str, help_line: str) -> None:
    def reproduce(session: nox.Session) -> None:
        if dataset == "table":
            with_baselines(session)
        run_own_module(session, f"reproduce.{dataset}", *session.posargs)

    reproduce.__doc__ = help_line
    nox.session(name=f"reproduce_{dataset}", default=False)(reproduce)


for _dataset, _help_line in REPRODUCTIONS.items():
    _add_reproduction(_dataset, _help_line)


@nox.session(default=False)
def evaluate(session: nox.Session) -> None:
    """Measure anybody's samples (-- --images PATH --against cifar10)."""
    run_own_module(session, "reproduce.evaluate", *session.posargs)


@nox.session(default=False)
def generate(session: nox.Session) -> None:
    """Draw images of a trained model into a file (-- --run RUN --seeds 0-49999 --out samples.npz)."""
    run_own_module(session, "reproduce.generate", *session.posargs)


@nox.session(default=False)
def figures(session: nox.Session) -> None:
    """Redraw every figure and table from stored artifacts; needs no GPU and no network."""
    run_own_module(session, "figures", *session.posargs)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Time each part beside a plain implementation, and how cost grows (-- --only "prior chain")."""
    run_own_module(session, "reproduce.benchmark", *session.posargs)


@nox.session(default=False)
def environment(session: nox.Session) -> None:
    """Only install or update the environment that all sessions share (each does it by itself)."""
    session.log(f"The shared environment is ready: {environment_python(session)}")
