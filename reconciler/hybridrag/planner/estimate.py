"""How long steps take, from rates measured on a 2-core machine (`make bench`); estimates, not promises."""

from __future__ import annotations

import math

EXAMINE_MB_S = 100.0
COPY_MB_S = 70.0
VERIFY_MB_S = 130.0
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
