"""What runs in processes of their own: `python -m tests.reliability.worker JOB FOLDER ...`.

The process has torch imported on one thread, and forks one child for each run of a command: a run costs little more
than its own work, and may be killed.
"""

import ctypes
import hashlib
import json
import os
import random
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import figures.__main__
from figures import plotting
from jlebm import checkpoints
from jlebm.data.catalogue import CATALOGUE, Entry
from jlebm.files import write_text
from jlebm.learning.joint_mle import JointMLE
from jlebm.training import fit
from reproduce import check, evaluate, generate
from tests.reliability import commands

RESULTS = Path(__file__).resolve().parents[2] / "results"
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.truncate")


def forked(work: Callable[[], int], log: Path) -> int:
    """Run something in a child, with its output in a file; return its exit code, minus the number of a signal."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 70
        try:
            handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
            code = work()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def counted(folder: Path, kill_at: int, work: Callable[[], int]) -> int:
    """Run a command and kill it at a chosen one of its operations on files; print how many there were."""
    seen = 0

    def tick() -> None:
        nonlocal seen
        seen += 1
        if seen == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            writes = any(letter in str(mode) for letter in "wax+") or flags & (os.O_WRONLY | os.O_RDWR)
            if isinstance(path, str | os.PathLike) and writes and os.fspath(path).startswith(str(folder)):
                tick()
        elif event in ("os.rename", "os.remove", "os.mkdir", "os.truncate") and str(arguments[0]).startswith(
            str(folder)
        ):
            tick()

    sys.addaudithook(hook)
    fsync = os.fsync
    os.fsync = lambda handle: (tick(), fsync(handle))[1]
    code = work()
    sys.stdout.write(f"OPERATIONS {seen}\n")
    return code


def kills(folder: Path, count: str, seed: str = "1") -> None:
    """Kill runs at random operations, restart each until it ends, and compare with one that was let alone.

    Prints a line of JSON: how many kills, restarts that ended, and what differed.
    """
    fit.__defaults__ = tuple(
        0.0 if value == 120.0 else value for value in fit.__defaults__ or ()
    )  # every step is saved
    plotting.save = lambda figure, stem: [write_text(stem.with_name(stem.name + end), "a") for end in (".pdf", ".png")]
    draw, log = random.Random(int(seed)), folder / "log"
    alone = commands.fresh(folder / "alone")
    assert forked(lambda: counted(alone, 0, lambda: commands.joint(alone)), log) == 0, log.read_text()
    (operations,) = [int(line.split()[1]) for line in log.read_text().splitlines() if line.startswith("OPERATIONS")]
    wanted, done, ended, differing = state(alone), 0, 0, []
    while done < int(count):
        work = commands.fresh(folder / "work")
        for _ in range(draw.randint(1, 6)):
            at = draw.randint(1, operations)
            code = forked(lambda work=work, at=at: counted(work, at, lambda: commands.joint(work)), log)
            if code != -signal.SIGKILL:  # less was left to do than that
                break
            done += 1
        code = forked(lambda work=work: commands.joint(work), log)
        found = state(work)
        if code != 0 or found != wanted:
            differing.append([code, [key for key in wanted if found.get(key) != wanted[key]], log.read_text()[-600:]])
        ended += 1
    sys.stdout.write(json.dumps({"kills": done, "ended": ended, "differing": differing, "operations": operations}))


def state(folder: Path) -> dict[str, Any]:
    """Return what a run comes to: its files, weights, samples, events but for their times, and rows."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    found: dict[str, Any] = {"files": [str(path.relative_to(folder)) for path in files]}
    for path in files:
        name = str(path.relative_to(folder))
        if path.name == "checkpoint.pt":
            content = torch.load(path, weights_only=True)["state"]
            del content["seconds"]
            found[name] = repr(content)
        elif path.name == "events.jsonl":
            events = [json.loads(line) for line in path.read_text().splitlines()]
            found[name] = [{key: value for key, value in event.items() if key != "seconds"} for event in events]
        elif path.suffix == ".jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            found[name] = sorted([row["metric"], row["source"], row["value"]] for row in rows)
        elif path.suffix == ".safetensors":
            found[name] = repr(checkpoints.load_weights(path)[0])
        elif path.suffix == ".npy":
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def without_privileges() -> None:
    """Let root's processes be held to the permissions of files as everybody's are."""
    header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    if os.getuid() == 0 and ctypes.CDLL(None).capset(ctypes.byref(header), ctypes.byref(none)) != 0:
        raise OSError("the capabilities of root could not be given up")


def denied(folder: Path) -> None:
    """Take each permission of a finished run in turn, run its command, and print the code and the output of each."""
    log, said = folder / "log", {}
    whole = commands.fresh(folder / "whole")
    assert commands.joint(whole) == 0
    (run,) = (whole / "runs").iterdir()
    for path in ("samples.png", "training.png"):
        (run / path).unlink()  # so that there is something to do
    names = [".", "lock", "config.json", "events.jsonl", "samples"]
    places = [*(run / name for name in names), *(whole / name for name in ("runs", "results", "results/measured"))]
    places += [whole / "results/measured" / name for name in (".lock", "digits.jsonl")]
    for name in ("paper.toml", "expected.toml"):
        (whole / "results" / name).write_text("")
        places.append(whole / "results" / name)
    for path in places:
        mode = path.stat().st_mode
        for less in (0o555, 0) if path.is_dir() else (0o444, 0):
            path.chmod(less)
            code = forked(lambda: (without_privileges(), commands.joint(whole))[1], log)
            path.chmod(mode)
            said[f"{path.relative_to(whole)} {less:o}"] = [code, log.read_text()]
    sys.stdout.write(json.dumps(said))


def unwritable(folder: Path) -> None:
    """Let one folder of a new run be read-only; print the code, the output, and whether it trained."""
    log, said = folder / "log", {}
    for name in ("runs", "results", "results/measured", "."):
        new = commands.fresh(folder / "new")
        commands.places(new)
        (new / name).mkdir(parents=True, exist_ok=True)
        (new / name).chmod(0o555)
        code = forked(lambda new=new: (without_privileges(), commands.joint(new))[1], log)
        (new / name).chmod(0o755)
        said[name] = [code, log.read_text(), bool(list(new.rglob("checkpoint.pt")))]
    sys.stdout.write(json.dumps(said))


def other_commands(folder: Path) -> None:
    """Take each permission that check, evaluate, generate and the figures need, and print what each command says."""
    log, said = folder / "log", {}
    whole = commands.fresh(folder / "whole")
    assert commands.joint(whole) == 0
    results, out, images = whole / "results", whole / "out", whole / "images"
    measured, (run,) = results / "measured", (whole / "runs").iterdir()
    (results / "artifacts").mkdir()
    for name in ("paper.toml", "expected.toml"):
        (results / name).write_bytes((RESULTS / name).read_bytes() if name == "paper.toml" else b"")
    artifact = results / "artifacts/cifar10_pixels_cpu_training.npz"
    artifact.write_bytes((RESULTS / "artifacts" / artifact.name).read_bytes())
    (results / "measured/cifar10.jsonl").write_bytes((RESULTS / "measured/cifar10.jsonl").read_bytes())
    for place in (out, images, whole / "root/noise", whole / "root/.jlebm-cache"):
        place.mkdir()
    draw = np.random.default_rng(0)
    for index in range(60):
        for place in (images, whole / "root/noise"):
            Image.fromarray(draw.integers(0, 256, (8, 8), dtype=np.uint8)).save(place / f"{index:02}.png")
    np.save(whole / "images.npy", np.zeros((60, 8, 8, 1), np.uint8))
    CATALOGUE["noise"] = Entry("noise", shape=(8, 8, 1))
    judge = ["--against", "noise", "--data-root", str(whole / "root"), "--no-download", "--device", "cpu"]
    for name in ("made.npz", "made.zip"):
        assert generate.main(["--run", str(run), "--seeds", "0-3", "--out", str(out / name), "--device", "cpu"]) == 0
    lines = {
        "check": (check.main, ["--results", str(results)]),
        "check --write-expected": (check.main, ["--results", str(results), "--write-expected", "preset=tiny"]),
        "evaluate folder": (evaluate.main, ["--images", str(images), *judge]),
        "evaluate array": (evaluate.main, ["--images", str(whole / "images.npy"), *judge]),
        "figures": (figures.__main__.main, ["--results", str(results), "--out", str(out)]),
        **{
            f"generate {name}": (
                generate.main,
                ["--run", str(run), "--seeds", "0-3", "--out", str(out / name), "--device", "cpu"],
            )
            for name in ("new.npz", "new.zip", "new", "made.npz", "made.zip")
        },
    }
    rows = [results / "paper.toml", results / "expected.toml", measured, measured / "digits.jsonl"]
    readings = {
        "check": rows,
        "check --write-expected": [*rows[1:], results],
        # The decoded pixels of the dataset are kept once it has been read.
        "evaluate folder": [whole / "root/noise/07.png", whole / "root/noise", images],
        "evaluate array": [whole / "images.npy"],
        "figures": [*rows, artifact, artifact.parent, out],
        **{f"generate {name}": [run / "weights.safetensors", run, out] for name in ("new.npz", "new.zip", "new")},
        **{f"generate {name}": [out / name] for name in ("made.npz", "made.zip")},
    }
    writings = {
        "check --write-expected": [results],
        "figures": [out],
        **{f"generate {name}": [out] for name in ("new.npz", "new.zip", "new")},
    }
    tries = [(name, path, 0) for name, paths in readings.items() for path in paths]
    tries += [(name, path, 0o555) for name, paths in writings.items() for path in paths]
    for name, path, less in tries:
        main, words = lines[name]
        mode = path.stat().st_mode
        path.chmod(less)
        code = forked(lambda main=main, words=words: (without_privileges(), main(words))[1], log)
        path.chmod(mode)
        said[f"{name}: {path.relative_to(whole)} {less:o}"] = [code, log.read_text()]
    sys.stdout.write(json.dumps(said))


def one_of_several(folder: Path, number: str) -> None:
    """Run the recipe as one of the processes that the environment names; the VICTIM, or second, gets a signal."""
    update, steps = JointMLE.update, iter(range(10**6))

    def interrupted(self: JointMLE, *arguments: Any) -> Any:
        if os.environ["RANK"] == os.environ.get("VICTIM", "1") and next(steps) == 7:
            os.kill(os.getpid(), int(number))
        return update(self, *arguments)

    JointMLE.update = interrupted
    sys.exit(commands.joint(folder))


def main() -> None:
    """Do one job."""
    torch.set_num_threads(1)
    jobs = {each.__name__: each for each in (kills, denied, unwritable, other_commands, one_of_several)}
    jobs[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])


if __name__ == "__main__":
    main()
