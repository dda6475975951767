"""Writing whole or not at all, on disks that are really full; opening what may not be read or is no file."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from safetensors.torch import save

from jlebm.errors import UserError
from jlebm.files import atomic_write, open_regular, sha256_of_file, sweep, write_text
from tests.file_limit import limited

LIMIT = 8192  # bytes that a file may have, or that the small disk holds
NUMBERS = np.random.default_rng(0).normal(size=20_000)


def draw(file: BinaryIO, form: str) -> None:
    figure = Figure()
    figure.subplots().imshow(NUMBERS.reshape(200, 100))
    figure.savefig(file, format=form)


WRITERS: dict[str, Callable[[BinaryIO], object]] = {
    "bytes": lambda file: file.write(NUMBERS.tobytes()),
    "torch": lambda file: torch.save({"x": torch.from_numpy(NUMBERS)}, file),
    "safetensors": lambda file: file.write(save({"x": torch.from_numpy(NUMBERS)})),
    "npy": lambda file: np.save(file, NUMBERS),
    "npz": lambda file: np.savez(file, x=NUMBERS),
    "npz, compressed": lambda file: np.savez_compressed(file, x=NUMBERS),
    "pillow": lambda file: Image.fromarray(np.uint8(NUMBERS.reshape(200, 100) * 9)).save(file, "PNG"),
    "figure, png": lambda file: draw(file, "png"),
    "figure, pdf": lambda file: draw(file, "pdf"),
}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 8 KiB, where this process may."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={LIMIT}", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("a disk can't be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_a_sentence(small_disk: Path, writer: str) -> None:
    """Breaks if one of the libraries' own exceptions gets through, or half a file or the temporary one stays."""
    path = small_disk / "file"
    write_text(path, "before")
    said = f"^no space left to write {path}; free some and run the same command again$"
    with pytest.raises(UserError, match=said), atomic_write(path) as file:
        WRITERS[writer](file)
    assert path.read_text() == "before"
    assert list(small_disk.iterdir()) == [path]


@pytest.mark.parametrize("writer", WRITERS)
def test_a_file_beyond_its_limit_is_a_sentence(tmp_path: Path, writer: str) -> None:
    """The same without the right to mount: a limit on the size of files, which every process can set itself."""
    path = tmp_path / "file"
    write_text(path, "before")
    refused = pytest.raises(UserError, match="file would be larger than the limit")
    with refused, limited(LIMIT), atomic_write(path) as file:
        WRITERS[writer](file)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("writer", WRITERS)
def test_with_space_every_writer_leaves_what_it_writes_elsewhere(tmp_path: Path, writer: str) -> None:
    """Breaks if the handle changes what a library writes, or does not let it write at all."""
    path, plain = tmp_path / "file", tmp_path / "plain"
    with atomic_write(path) as file:
        WRITERS[writer](file)
    assert [one.name for one in tmp_path.iterdir()] == ["file"]
    if writer != "figure, pdf":  # which holds the date
        with plain.open("wb") as file:
            WRITERS[writer](file)
        assert path.read_bytes() == plain.read_bytes()


def test_an_error_of_the_block_is_its_own(tmp_path: Path) -> None:
    """Breaks if an error that has nothing to do with writing is told as one of the disk."""
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "file") as file:
        file.write((tmp_path / "nothing").read_bytes())
    assert list(tmp_path.iterdir()) == []


def test_processes_of_one_number_do_not_share_a_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two containers over one folder: breaks if the name of the temporary file is that of a process's number."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with atomic_write(tmp_path / "file") as one, atomic_write(tmp_path / "file") as other:
        assert one.name != other.name
        one.write(b"one")
        other.write(b"other")
    assert (tmp_path / "file").read_bytes() == b"one"


@pytest.mark.parametrize("name", ["folder/file", "link/file", "n" * 256])
def test_what_cannot_be_written_is_a_sentence(tmp_path: Path, name: str) -> None:
    """Breaks if a file in a folder's place, a dangling link or too long a name is a traceback."""
    (tmp_path / "folder").write_text("a file")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere" / "deep")
    with pytest.raises(UserError, match="cannot be written"):
        write_text(tmp_path / name, "text")


def test_the_longest_name_fits(tmp_path: Path) -> None:
    """Breaks if the temporary file's name, longer than the file's own, does not."""
    write_text(tmp_path / ("n" * 255), "fits")
    assert [len(path.name) for path in tmp_path.iterdir()] == [255]


def without_rights(imports: str, code: str, *arguments: Path) -> str:
    """Run code as a user without rights, where this process is root; return its output."""
    # The imports come first: such a user may not even read the interpreter's own modules.
    drop = "import os, sys\nif os.getuid() == 0: os.setgid(65534); os.setuid(65534)\n"
    command = [sys.executable, "-c", imports + drop + code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Make a folder that any user can reach."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_missing_permissions_are_sentences(open_folder: Path) -> None:
    """Breaks if what may not be read is called damaged, or what may not be written is a traceback."""
    locked, secret = open_folder / "locked", open_folder / "secret"
    locked.mkdir(mode=0o555)
    secret.write_text("x")
    secret.chmod(0)
    imports = "from pathlib import Path\nfrom jlebm import files\nfrom jlebm.errors import UserError\n"
    code = (
        "for call in (lambda: files.write_text(Path(sys.argv[1]) / 'new', ''),\n"
        "             lambda: files.sha256_of_file(Path(sys.argv[2]))):\n"
        "    try: call()\n"
        "    except UserError as error: print(error)\n"
    )
    said = without_rights(imports, code, locked, secret).splitlines()
    assert said[0].startswith(f"{locked}/new cannot be written (Permission denied)")
    assert said[1].startswith(f"{secret} may not be read (Permission denied)")
    assert "delete" not in said[1]


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    """Breaks if a pipe is waited for, a device read without end, or a dangling link is a traceback."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    for name, said in {
        "pipe": "is a pipe",
        "device": "is a pipe, a socket or a device",
        "dangling": "is a link to a file that is not there",
        "nothing": "there is no file",
        ".": "is a folder",
    }.items():
        with pytest.raises(UserError, match=said), open_regular(tmp_path / name):
            pass
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256_of_file(tmp_path / "file").startswith("ba7816bf")


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    """Breaks if half-written files pile up, a living process's is taken away, or anything else goes."""
    for name in (".old.1.part", ".new.2.part", "old.part", ".hidden"):
        (tmp_path / name).touch()
    for name in (".old.1.part", "old.part", ".hidden"):
        os.utime(tmp_path / name, (0, 0))
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", ".new.2.part", "old.part"]
    sweep(tmp_path, older_than=0.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "old.part"]
