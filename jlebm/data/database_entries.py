"""Write the entries of an LMDB to stdout, in the order of their keys: a script for a child process.

The lmdb library follows the page numbers of a damaged file wherever they lead, which kills its process by a signal.
That process is this one; its parent, `database`, reports the failure. Each entry is written as its two sizes (`SIZES`),
its key and its value; a last entry with an empty key, which LMDB does not allow, marks the complete end.
"""

import struct
import sys
from pathlib import Path

SIZES = struct.Struct("<IQ")  # bytes of the key, bytes of the value
DAMAGED = 3  # the exit code for a database that the library refuses; the reason is on stderr


def main(folder: str, limit: int) -> int:
    """Write the entries; with a limit of 0 only their number, as the value of the last one."""
    import lmdb  # pyright: ignore[reportMissingImports]

    out = sys.stdout.buffer
    try:
        with lmdb.open(folder, readonly=True, lock=False, readahead=False, meminit=False) as database:
            state = database.stat()
            needed = (database.info()["last_pgno"] + 1) * state["psize"]
            present = Path(folder, "data.mdb").stat().st_size
            if present < needed:
                sys.stderr.write(f"its file has {present} bytes of {needed}")
                return DAMAGED
            count = 0
            if limit:
                with database.begin(buffers=True) as transaction:
                    for key, value in transaction.cursor():
                        count += 1
                        if count > state["entries"] or len(value) > limit:
                            sys.stderr.write("its pages contradict each other")
                            return DAMAGED
                        out.write(SIZES.pack(len(key), len(value)))
                        out.write(key)
                        out.write(value)
            if limit and count != state["entries"]:
                sys.stderr.write("its pages contradict each other")
                return DAMAGED
            number = str(state["entries"]).encode()
            out.write(SIZES.pack(0, len(number)) + number)
    except lmdb.Error as error:
        sys.stderr.write(str(error))
        return DAMAGED
    out.flush()
    return 0


if __name__ == "__main__":
    wanted = sys.stdin.readline().split(" ", 1)  # the limit and the folder
    try:
        code = main(wanted[1].removesuffix("\n"), int(wanted[0]))
    except BrokenPipeError:  # the reader has closed the pipe
        code = 0
    sys.stdout = None
    sys.exit(code)
