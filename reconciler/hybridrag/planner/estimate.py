"""How long steps take, from rates measured on a 2-core machine (`make bench`); estimates, not promises."""

from __future__ import annotations

import math

EXAMINE_MB_S = 100.0
COPY_MB_S = 70.0
VERIFY_MB_S = 130.0
COMPARE_MB_S = 500.0
"""Of a source's own bytes with those of an earlier moment."""
CATCH_UP_S = 1.0
SCHEMA_S = 1.5
INDEX_VALUES_S = 4_000_000.0
"""Vector components indexed per second (HNSW, m 16, ef_construction 64) at 20,000 rows; grows with log(rows)."""


def examine_s(size: int) -> float:
    return size / 1e6 / EXAMINE_MB_S


def migrate_s(size: int, vectors: int, dim: int) -> float:
    """Creating the schema, copying `size` bytes, indexing `vectors` x `dim` components."""
    index = vectors * dim / INDEX_VALUES_S * max(1.0, math.log10(max(vectors, 10)) / math.log10(20_000))
    return SCHEMA_S + size / 1e6 / COPY_MB_S + index


def verify_s(size: int) -> float:
    return size / 1e6 / VERIFY_MB_S


def delta_s(size: int) -> float:
    """Carrying over a few documents of a source of `size` bytes, and stopping and starting its writer."""
    return CATCH_UP_S + size / 1e6 / COMPARE_MB_S


# Of Postgres; for 2 MB to 1 GB of source and 64 to 1,024 dimensions 1 to 14 % above the tables and indexes made.
_PAGE = 8192
_ROWS_PER_SOURCE_BYTE = 0.76
_EMPTY = 2 << 20
_LOG_MOST = 4 << 30
_VECTOR = 1.1
_NODE = 290
"""Bytes beside the vector in a node of the HNSW graph (m 16): header, links, line pointers."""
_MARGIN = 1.2
NEW_SERVER_BYTES = 64 << 20
"""An empty cluster, with the first of its log."""


def disk_bytes(
    size: int,
    records: int,
    vectors: int,
    dim: int,
    *,
    present: int = 0,
    present_vectors: int = 0,
    logs_index: bool,
) -> int:
    """What the target's volume loses: rows that are not there yet, their share of the log (WAL), vector indexes.

    `size` bytes of source hold `records`, of which `vectors` have a vector; of both, some are `present`
    already. `logs_index`: the server also logs what an index build writes (ours do not).
    """
    rows = size * _ROWS_PER_SOURCE_BYTE + _EMPTY
    in_vectors = min(rows, vectors * dim * 4 * _VECTOR)
    left = in_vectors * _share(vectors, present_vectors) + (rows - in_vectors) * _share(records, present)
    index = vectors * _PAGE // max(1, _PAGE // (dim * 4 + _NODE))
    return int(left + index + min(left + (index if logs_index else 0), _LOG_MOST))


def _share(total: int, present: int) -> float:
    return max(0.0, 1 - present / total) if total else 1.0


def cautious(need: int) -> int:
    """An estimate of disk with its safety margin."""
    return int(need * _MARGIN)
