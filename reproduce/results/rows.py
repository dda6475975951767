"""JSONL files of rows that keep their own digest: appended whole or not at all, read strictly."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

from jlebm.errors import UserError
from jlebm.files import atomic_write
from reproduce.results.records import decode


@dataclass(frozen=True)
class Row:
    """What every kind of row has beside its own fields.

    Attributes:
        row_digest: SHA-256 over the canonical JSON of all other fields; "" until the row is stored.
        where: the file and line that it was read from; not stored.
    """

    row_digest: str = field(default="", compare=False, repr=False, kw_only=True)
    where: str = field(default="", compare=False, repr=False, kw_only=True, metadata={"stored": False})

    @property
    def intact(self) -> bool:
        """Whether the stored digest is that of the other fields: False for a row that was changed by hand."""
        return self.row_digest in ("", _digest(self))


R = TypeVar("R", bound=Row)


def append(path: Path, rows: Sequence[Row]) -> None:
    """Add rows to the end of a JSONL file, all of them or none; what stands there already is kept byte for byte.

    The folder's lock, its file `.lock`, is held while the file is read and replaced, so that two processes that
    append at once both keep their rows. Rows that answer the same question as an older one are kept beside it.

    Raises:
        UserError: the file holds a line that cannot be read (nothing is appended behind it), a row was changed
            since it was read, or the disk is full.
    """
    if not rows:
        return
    for row in rows:
        if not row.intact:
            raise UserError(f"{row.where or 'a row'} was changed since it was stored; it is not stored again")
    added = "".join(_line(row) for row in rows).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    # A file of its own is locked: the rows' file is replaced by another one while the lock is held.
    with FileLock(path.parent / ".lock"):
        before = path.read_bytes() if path.exists() else b""
        _parse(before, path, type(rows[0]))
        if before and not before.endswith(b"\n"):
            before += b"\n"
        with atomic_write(path) as file:
            file.write(before + added)


def read(path: Path, kind: type[R]) -> list[R]:
    """Read all rows of one kind from one JSONL file in their order; a file that does not exist has none.

    A row whose digest is broken is returned; its `intact` is False.

    Raises:
        UserError: a line is cut short or not JSON, or has an unknown, missing or wrong field. The sentence names
            file, line and field. Nothing is dropped.
    """
    return _parse(path.read_bytes(), path, kind) if path.exists() else []


def refuse_changed(rows: Sequence[Row]) -> None:
    """Check that no row was changed since it was stored.

    Raises:
        UserError: one was.
    """
    for row in rows:
        if not row.intact:
            raise UserError(f"{row.where} was changed since it was stored; restore it")


def _parse(content: bytes, path: Path, kind: type[R]) -> list[R]:
    rows = []
    lines = content.split(b"\n")  # bytes: a text may hold characters that str.splitlines takes for line ends
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
        rows.append(dataclasses.replace(decode(kind, fields, where), where=where))
    return rows


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a field stands twice")
    return fields


def _fields(row: Row) -> dict[str, Any]:
    fields = dataclasses.asdict(row)
    del fields["row_digest"], fields["where"]
    return fields


def _digest(row: Row) -> str:
    text = json.dumps(_fields(row), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _line(row: Row) -> str:
    fields = {**_fields(row), "row_digest": _digest(row)}
    return json.dumps(fields, ensure_ascii=False, allow_nan=False) + "\n"
