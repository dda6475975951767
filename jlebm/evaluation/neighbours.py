"""Nearest neighbours by Euclidean distance, exact to float64 and in bounded memory."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64, Shaped

from jlebm.errors import UserError

QUERIES, AMONG = 500, 2_000  # rows of the two sides whose distances are in memory together: 4 MB
WIDE = 2**23  # most numbers of either side that are in memory as float64: 64 MB


class Nearest(NamedTuple):
    """The nearest row of each query."""

    distance: Float64[np.ndarray, " queries"]
    row: Int64[np.ndarray, " queries"]


def nearest_rows(
    queries: Shaped[np.ndarray, "queries ..."],
    among: Shaped[np.ndarray, "n ..."],
    chunk: tuple[int, int] = (QUERIES, AMONG),
) -> Nearest:
    """Return the nearest row of `among` to each query, and the Euclidean distance; of several, the first.

    A float32 matrix product finds the rows that may be nearest, by a bound on its rounding; their distances are then
    computed in float64, each from its own two rows. So the answer is that of a search in float64, and does not depend
    on `chunk` by a bit.

    Args:
        queries: uint8 or float rows of any shape; may be memory-mapped.
        among: rows of the same shape.
        chunk: rows of either side that are compared at a time.

    Raises:
        UserError: the shapes differ, a side is empty, or a value is not finite.
    """
    if queries.shape[1:] != among.shape[1:] or not len(queries) or not len(among):
        raise UserError(f"nearest rows of {queries.shape} cannot be found among {among.shape}")
    size = max(1, queries[0].size)
    first, second = (max(1, min(one, WIDE // size)) for one in chunk)
    middle = among[: min(len(among), 1000)].reshape(-1, size).mean(0, dtype=np.float64)
    distance, index = np.full(len(queries), np.inf), np.zeros(len(queries), np.int64)
    for begin, ours in _chunks(queries, first):
        best, where = distance[begin : begin + len(ours)], index[begin : begin + len(ours)]
        a = (ours - middle).astype(np.float32)
        a_norm = np.square(a).sum(1)
        for start, theirs in _chunks(among, second):
            b = (theirs - middle).astype(np.float32)
            b_norm = np.square(b).sum(1)
            # Rounding of the product and the norms, sums of `size` terms, and of the values themselves.
            slack = (size + 16) * np.float32(2.0**-23) * (a_norm + b_norm.max())
            near = a @ b.T
            near *= -2
            near += b_norm
            near += a_norm[:, None]
            if not np.isfinite(near).all():
                raise UserError("nearest rows cannot be found of values that are not finite")
            limit = np.minimum(best**2, near.min(1) + slack) + slack
            rows, columns = np.nonzero(near <= limit[:, None])
            for part in range(0, len(rows), AMONG):
                r, c = rows[part : part + AMONG], columns[part : part + AMONG]
                exact = np.sqrt(np.square(ours[r].astype(np.float64) - theirs[c]).sum(1))
                order = np.lexsort((c, exact, r))
                r, c, exact = r[order], c[order], exact[order]
                head = np.flatnonzero(np.r_[True, r[1:] != r[:-1]])
                r, c, exact = r[head], c[head], exact[head]
                closer = exact < best[r]
                best[r[closer]], where[r[closer]] = exact[closer], start + c[closer]
    return Nearest(distance, index)


def _chunks(rows: np.ndarray, size: int) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, len(rows), size):
        part = np.asarray(rows[start : start + size])
        yield start, part.reshape(len(part), -1)
