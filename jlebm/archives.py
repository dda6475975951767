"""Read the zip archives that torch and numpy write, after checking every byte of them.

The members of such an archive fill the file from its first byte up to the directory, and the directory repeats each
member's local header, size and CRC-32. All of it is compared before any member is returned. Nothing larger than the
caller's limit is unpacked, and a size is believed only if the file is long enough for it.
"""

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

END, END_64, LOCATOR_64 = struct.Struct("<4s4H2LH"), struct.Struct("<4sQ2H2L4Q"), struct.Struct("<4sLQL")
ENTRY, LOCAL, EXTRA = struct.Struct("<4s6H3L5H2L"), struct.Struct("<4s5H3L2H"), struct.Struct("<2H")
DESCRIPTOR = b"PK\x07\x08"
MADE_BY = (0x031E, 45)  # torch and Python's zipfile
MAGIC = b"PK\x03\x04"
WITH_DESCRIPTOR = 0x08  # the flag of a member whose sizes and CRC follow it
FULL_32 = 0xFFFFFFFF  # in place of a size that has 64 bits elsewhere
MOST_MEMBERS, LARGEST_DIRECTORY = 2**16, 2**24  # a deep hierarchy with its optimiser has 25,000 members
PIECE = 2**20  # bytes

Readable = io.BufferedReader | io.BytesIO


class Damaged(ValueError):
    """The content of a file is damaged. The reader adds which file it is and what to do about it."""


@dataclass(frozen=True)
class Archive:
    """An archive whose members have all been checked."""

    file: Readable
    members: dict[str, zipfile.ZipInfo]
    starts: dict[str, int]
    """The offset of each member's bytes."""

    @property
    def sizes(self) -> dict[str, int]:
        """The unpacked size of each member, in bytes."""
        return {name: info.file_size for name, info in self.members.items()}

    def read(self, name: str) -> bytes:
        """Return the unpacked bytes of a member."""
        return b"".join(_pieces(self.file, self.members[name], self.starts[name]))


def open_archive(file: Readable, packed: int = 0) -> Archive:
    """Open an archive and check everything in it, including the CRC-32 of each member.

    A file written with `torch.serialization.set_crc32_options(False)` has zeros in their place; everything else in it
    is checked.

    Args:
        file: seekable, from its start; it stays open.
        packed: the most bytes that all compressed members may unpack to; 0 if none may be compressed.

    Raises:
        Damaged: something does not agree, or exceeds its limit.
    """
    end = _directory(file)
    try:
        infos = zipfile.ZipFile(file).infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, OverflowError) as error:
        raise Damaged("its directory is damaged") from error
    members = sorted(infos, key=lambda info: info.header_offset)
    if len(members) != end.entries or len({info.filename for info in members}) != len(members):
        raise Damaged("its directory names a member twice or not at all")
    _refuse_packed(members, packed)
    if len({_made(info) for info in members}) > 1:
        raise Damaged("its directory is not as one program writes it")
    at, starts = 0, {}
    for info in members:
        if info.header_offset != at:
            raise Damaged("its members do not follow one another")
        start = starts[info.filename] = at + _compare_local(file, info)
        at = start + info.compress_size + _compare_descriptor(file, info, start + info.compress_size)
    if at != end.offset:
        raise Damaged("its members do not reach to its directory")
    if any(info.CRC for info in members):
        _compare_contents(file, members, starts)
    return Archive(file, {info.filename: info for info in members}, starts)


@dataclass(frozen=True)
class _Directory:
    entries: int
    offset: int


def _directory(file: Readable) -> _Directory:
    """Find the directory by the record at the very end, before `zipfile` makes an object of each of its entries."""
    size = file.seek(0, io.SEEK_END)
    end = size - END.size
    tail = _at(file, end, END.size)
    if len(tail) < END.size or tail[:4] != b"PK\x05\x06" or tail[-2:] != b"\0\0":
        raise Damaged("it is cut short, or something follows its end")
    _, disk, first_disk, here, entries, length, offset, _ = END.unpack(tail)
    locator = _at(file, end - LOCATOR_64.size, LOCATOR_64.size)
    if locator[:4] == b"PK\x06\x07":
        _, large_disk, at, disks = LOCATOR_64.unpack(locator)
        record = _at(file, end - LOCATOR_64.size - END_64.size, END_64.size)
        if len(record) < END_64.size or at != end - LOCATOR_64.size - END_64.size or (large_disk, disks) != (0, 1):
            raise Damaged("its end is damaged")
        signature, rest, made, needed, *disk_64, here_64, entries_64, length_64, offset_64 = END_64.unpack(record)
        small, large = (here, entries, length, offset), (here_64, entries_64, length_64, offset_64)
        full = (0xFFFF, 0xFFFF, FULL_32, FULL_32)
        agree = all(a in (b, c) for a, b, c in zip(small, large, full, strict=True))
        known = (signature, rest, needed) == (b"PK\x06\x06", END_64.size - 12, 45) and made in MADE_BY
        if not known or any(disk_64) or not agree:
            raise Damaged("its end is damaged")
        here, entries, length, offset = large
        end = at
    if disk or first_disk or here != entries or offset + length != end:
        raise Damaged("its end is damaged")
    if entries > MOST_MEMBERS or length > LARGEST_DIRECTORY:
        raise Damaged(f"it has {entries} members, more than {MOST_MEMBERS} or with longer names than any file here")
    directory, read = _at(file, offset, length), 0
    while read + ENTRY.size <= length:
        read += ENTRY.size + sum(
            ENTRY.unpack_from(directory, read)[10:13]
        )  # lengths of the name, the extra fields and a comment
    if read != length:
        raise Damaged("its directory is damaged")
    return _Directory(entries, offset)


def _made(info: zipfile.ZipInfo) -> tuple[object, ...]:
    """Return the fields that are equal in all members that one program wrote in one pass."""
    versions = (info.create_version, info.create_system, info.extract_version, info.reserved, info.volume)
    flags = (info.flag_bits & ~WITH_DESCRIPTOR, info.internal_attr, info.external_attr, info.compress_type)
    return (*versions, *flags, info.date_time, info.comment)


def _refuse_packed(members: list[zipfile.ZipInfo], packed: int) -> None:
    for info in members:
        if info.compress_type not in (zipfile.ZIP_STORED, *((zipfile.ZIP_DEFLATED,) if packed else ())):
            raise Damaged("its members are compressed, as the program that writes such files never does")
        if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
            raise Damaged("an uncompressed member has two different sizes")
    total = sum(info.file_size for info in members)
    if packed and total > packed:
        raise Damaged(f"it unpacks to {total / 1e6:.0f} MB, and at most {packed / 1e6:.0f} MB are read")


def _compare_local(file: Readable, info: zipfile.ZipInfo) -> int:
    """Compare a member's local header with its directory entry; return the header's length."""
    head = _at(file, info.header_offset, LOCAL.size)
    if len(head) < LOCAL.size:
        raise Damaged("a member is cut short")
    signature, version, flags, method, _, _, crc, packed, size, name_length, extra_length = LOCAL.unpack(head)
    name, extra = file.read(name_length), file.read(extra_length)
    encoded = info.orig_filename.encode("utf-8" if info.flag_bits & 0x800 else "cp437")
    time = struct.unpack_from("<2H", head, 10)
    year, month, day, hour, minute, second = info.date_time
    directory_time = (hour << 11 | minute << 5 | second // 2, (year - 1980) << 9 | month << 5 | day)
    same = (
        (signature, method, flags, name) == (MAGIC, info.compress_type, info.flag_bits, encoded)
        and version == info.extract_version | info.reserved << 8
        and time == directory_time
    )
    sizes = _sizes(extra)
    if flags & WITH_DESCRIPTOR:
        same &= crc == 0 and (_wide(info) or ((packed, size) == (0, 0) and sizes is None))
    elif sizes is None:
        same &= (crc, packed, size) == (info.CRC, info.compress_size, info.file_size)
    else:
        same &= (crc, packed, size, *sizes) == (info.CRC, FULL_32, FULL_32, info.file_size, info.compress_size)
    if not same:
        raise Damaged(f"the header of its member {safe_name(info.filename)} does not match its directory")
    return LOCAL.size + name_length + extra_length


def _wide(info: zipfile.ZipInfo) -> bool:
    return info.header_offset >= FULL_32 or info.file_size >= FULL_32


def _sizes(extra: bytes) -> tuple[int, int] | None:
    """Return the 64-bit sizes, unpacked and packed, from a member's extra field; None if it holds only padding."""
    sizes = None
    while extra:
        if len(extra) < EXTRA.size:
            raise Damaged("the padding of a member is damaged")
        kind, length = EXTRA.unpack_from(extra)
        value, extra = extra[EXTRA.size : EXTRA.size + length], extra[EXTRA.size + length :]
        if len(value) != length:
            raise Damaged("the padding of a member is damaged")
        if kind == 1 and length >= 16:
            sizes = struct.unpack_from("<2Q", value)
        elif kind != 0x4246 or value.strip(b"Z"):  # "FB": torch's padding
            raise Damaged("the padding of a member is damaged")
    return sizes


def _compare_descriptor(file: Readable, info: zipfile.ZipInfo, at: int) -> int:
    """Compare the sizes and CRC that follow a member; return their length in bytes."""
    if not info.flag_bits & WITH_DESCRIPTOR:
        return 0
    expected = DESCRIPTOR + struct.pack("<L2Q" if _wide(info) else "<L2L", info.CRC, info.compress_size, info.file_size)
    if _at(file, at, len(expected)) != expected:
        raise Damaged(f"the record after its member {safe_name(info.filename)} does not match its directory")
    return len(expected)


def _compare_contents(file: Readable, members: list[zipfile.ZipInfo], starts: dict[str, int]) -> None:
    for info in members:
        crc = size = 0
        for piece in _pieces(file, info, starts[info.filename]):
            crc, size = zlib.crc32(piece, crc), size + len(piece)
        if (crc, size) != (info.CRC, info.file_size):
            raise Damaged(f"the bytes of its member {safe_name(info.filename)} do not have its CRC-32")


def _pieces(file: Readable, info: zipfile.ZipInfo, start: int) -> Iterator[bytes]:
    """Unpack a member, and never more bytes than its directory entry says."""
    file.seek(start)
    left, given = info.compress_size, 0
    inflate = zlib.decompressobj(-zlib.MAX_WBITS) if info.compress_type == zipfile.ZIP_DEFLATED else None
    while left or (inflate is not None and not inflate.eof):
        rest = inflate.unconsumed_tail if inflate is not None else b""
        if not rest and left:
            rest = file.read(min(left, PIECE))
            left -= len(rest)
        try:
            piece = rest if inflate is None else inflate.decompress(rest, PIECE)
        except zlib.error as error:
            raise Damaged(f"the bytes of its member {safe_name(info.filename)} are damaged") from error
        given += len(piece)
        if given > info.file_size or not (piece or rest):
            raise Damaged(f"its member {safe_name(info.filename)} does not unpack to the size that its directory says")
        yield piece
    if inflate is not None and (inflate.unused_data or inflate.unconsumed_tail):
        raise Damaged(f"something follows the end of its member {safe_name(info.filename)}")


def _at(file: Readable, offset: int, length: int) -> bytes:
    if offset < 0:
        return b""
    file.seek(offset)
    return file.read(length)


def safe_name(name: str) -> str:
    """Return a name from a file as a message can show it: short, with control characters escaped."""
    return re.sub(r"\s+", " ", repr(name if len(name) <= 80 else name[:77] + "..."))
