"""JSONL files of rows, each with its digest: appended all or none, read strictly."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from filelock import BaseFileLock

from jlebm.errors import UserError
from jlebm.files import atomic_write, read_bytes, sweep
from jlebm.folders import locked, make_folder
from reproduce.results.records import decode

CHANGED = "was changed since it was stored"
_OF_ITSELF = ("row_digest", "where", "misplaced")
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True)
class Row:
    """Fields that every kind of row has.

    Attributes:
        row_digest: SHA-256 over the canonical JSON of all other fields; "" until the row is stored.
        where: file and line of the row; not stored.
        misplaced: why it does not belong in its file; not stored.
    """

    row_digest: str = field(default="", compare=False, repr=False, kw_only=True)
    where: str = field(default="", compare=False, repr=False, kw_only=True, metadata={"stored": False})
    misplaced: str = field(default="", compare=False, repr=False, kw_only=True, metadata={"stored": False})

    def signed(self) -> dict[str, Any]:
        """Return the fields behind the row digest: all that are stored."""
        return _fields(self)

    @classmethod
    def upgraded(cls, fields: dict[str, Any]) -> dict[str, Any]:
        """Return the parsed fields of a line in today's format."""
        return fields

    @property
    def digest(self) -> str:
        """Row digest of its fields, whatever digest is stored with them."""
        return hashlib.sha256(_CANONICAL.encode(self.signed()).encode()).hexdigest()

    @cached_property
    def fault(self) -> str:
        """How the row differs from what was stored, as a clause after `where`; "" without a fault."""
        return self.look_for_fault()

    def look_for_fault(self) -> str:
        """Compute `fault`."""
        if self.row_digest not in ("", self.digest):
            return CHANGED
        return self.misplaced

    @property
    def intact(self) -> bool:
        """Whether the row is what was stored, in its own file."""
        return not self.fault


R = TypeVar("R", bound=Row)


def append(path: Path, rows: Sequence[R], stands: Callable[[R, R], bool] | None = None) -> list[R]:
    """Append rows to a JSONL file, all or none; the stored lines are kept byte for byte.

    The folder's lock, its file `.lock`, is held while the file is read and replaced, so that two processes that
    append at once both keep their rows. A row that answers the same question as an older one is stored beside it,
    unless `stands` says otherwise.

    Args:
        path: of the file.
        rows: of one kind.
        stands: given a stored row and a new one, whether the new one repeats the stored one and is left out. It is
            called under the lock, as another process may have stored the row in the meantime.

    Returns:
        The stored row for each of `rows`: itself, or the older one in its place.

    Raises:
        UserError: the file holds a line that cannot be read (nothing is appended behind it), a row was changed
            since it was read, or the file cannot be written.
    """
    if not rows:
        return []
    for row in rows:
        if row.fault:
            raise UserError(f"{row.where or 'a row'} {row.fault}; it is not stored again")
    with hold(path.parent):
        sweep(path.parent, f".{path.name}.*.part", older_than=0.0)
        before = _content(path)
        stored = _parse(before, path, type(rows[0]))
        kept = [next((old for old in stored if stands is not None and stands(old, row)), row) for row in rows]
        added = "".join(_line(row) for row, one in zip(rows, kept, strict=True) if one is row).encode()
        if added:
            if before and not before.endswith(b"\n"):
                before += b"\n"
            with atomic_write(path) as file:
                file.write(before + added)
    return kept


def hold(folder: Path) -> BaseFileLock:
    """Take the lock of a folder of rows, creating the folder; to be released, or used as a context manager.

    Raises:
        UserError: rows cannot be written there, or its file system has no locks.
    """
    make_folder(folder)
    # A separate file is locked, as the rows' file is replaced while the lock is held.
    return locked(folder / ".lock", "choose --results on another one")


def read(path: Path, kind: type[R]) -> list[R]:
    """Read all rows of one kind from one JSONL file in their order; a missing file has none.

    A row whose digest is broken is returned; its `intact` is False.

    Raises:
        UserError: the file cannot be opened, a line is cut short or not JSON, or has an unknown, missing or wrong
            field. The sentence names file, line and field. Nothing is dropped.
    """
    return _parse(_content(path), path, kind)


def refuse_changed(rows: Sequence[Row]) -> None:
    """Check that no row was changed since it was stored.

    Raises:
        UserError: one was.
    """
    for row in rows:
        if not row.intact:
            raise UserError(f"{row.where} {row.fault}; restore it")


def _content(path: Path) -> bytes:
    """Return the content of a file; empty without one, but a dangling link is an error."""
    return read_bytes(path) if path.exists() or path.is_symlink() else b""


def _parse(content: bytes, path: Path, kind: type[R]) -> list[R]:
    rows = []
    lines = content.split(b"\n")  # bytes: str.splitlines would split at other characters, too
    if lines[-1] == b"":
        lines.pop()
    for number, line in enumerate(lines, start=1):
        where = f"{path}, line {number}"
        try:
            fields = json.loads(line.decode(), object_pairs_hook=_unique)
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                message = f"{where}: the last row is cut short or damaged; remove that line or restore it"
            else:
                message = f"{where}: this row is not JSON ({error}); restore it"
            raise UserError(message) from error
        if not isinstance(fields, dict):
            raise UserError(f"{where}: a row is a JSON object, {{...}}")
        if not fields.get("row_digest"):
            raise UserError(f"{where}: the field 'row_digest' is missing; only `append` writes rows")
        rows.append(decode(kind, kind.upgraded(fields), where, where=where))
    return rows


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a field stands twice")
    return fields


def _fields(row: Row) -> dict[str, Any]:
    return {each.name: getattr(row, each.name) for each in dataclasses.fields(row) if each.name not in _OF_ITSELF}


def _line(row: Row) -> str:
    fields = {**_fields(row), "row_digest": row.digest}
    return json.dumps(fields, ensure_ascii=False, allow_nan=False) + "\n"
