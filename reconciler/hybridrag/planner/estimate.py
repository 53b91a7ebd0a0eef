"""How long steps take, from rates measured on a 2-core machine (`make bench`); estimates, not promises."""

from __future__ import annotations

import math

# Seconds for each byte and for each record; fitted to 2 MB to 1 GB of source with 64 to 1,536 dimensions.
_EXAMINE = (2.4e-9, 23e-6)
_COPY = (3.0e-9, 28e-6)
_VERIFY = (0.6e-9, 15e-6)
_VERIFY_S = 0.3
_SCHEMA_S = 1.5
_FILES_S = 0.3
_FILE_RECORD, _FILE_VALUE = 28e-6, 0.13e-6
"""For each record of a file, and for each component of its vectors, which are compressed."""
_INDEX_VECTOR, _INDEX_VALUE = 95e-6, 0.115e-6
"""For each vector in an index (HNSW, m 16, ef_construction 64) and each of its components, up to 20,000 rows; grows with log(rows)."""
_COMPARE_MB_S = 500.0
"""Of a source's own bytes with those of an earlier moment."""
_CATCH_UP_S = 1.0


def _s(size: int, records: int, rates: tuple[float, float]) -> float:
    return size * rates[0] + records * rates[1]


def examine_s(size: int, records: int) -> float:
    """Reading and judging `records` in `size` bytes."""
    return _s(size, records, _EXAMINE)


def migrate_s(size: int, records: int, vectors: int, dim: int) -> float:
    """Creating a server's schema, copying, indexing `vectors` x `dim` components."""
    growth = max(1.0, math.log10(max(vectors, 10)) / math.log10(20_000))
    index = vectors * (_INDEX_VECTOR + dim * _INDEX_VALUE) * growth
    return _SCHEMA_S + _s(size, records, _COPY) + index


def to_files_s(records: int, vectors: int, dim: int) -> float:
    """Writing JSON files."""
    return _FILES_S + records * _FILE_RECORD + vectors * dim * _FILE_VALUE


def verify_s(size: int, records: int) -> float:
    """Reading both sides back."""
    return _VERIFY_S + _s(size, records, _VERIFY)


def delta_s(size: int) -> float:
    """Carrying over a few documents of a source of `size` bytes, and stopping and starting its writer."""
    return _CATCH_UP_S + size / 1e6 / _COMPARE_MB_S


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
