"""The estimate of disk beside what real migrations took."""

from __future__ import annotations

import pytest

from hybridrag.planner.estimate import disk_bytes


@pytest.mark.parametrize(
    ("size", "records", "vectors", "dim", "tables", "indexes", "hnsw"),
    [
        (2_168_921, 2_432, 794, 64, 1_998_848, 1_679_360, 491_520),
        (42_725_415, 18_617, 5_647, 384, 27_639_808, 16_531_456, 11_591_680),
        (218_539_052, 63_949, 20_554, 1024, 150_806_528, 181_911_552, 168_402_944),
        (1_061_930_855, 311_031, 100_779, 1024, 727_662_592, 889_405_440, 825_606_144),
    ],
)
def test_the_estimate_lies_a_little_above_what_was_taken(
    size: int, records: int, vectors: int, dim: int, tables: int, indexes: int, hnsw: int
) -> None:
    """Measured in our own server after LightRAG databases were moved; the log is about as large as the rows."""
    taken = tables + indexes + (tables + indexes - hnsw)
    need = disk_bytes(size, records, vectors, dim, logs_index=False)
    assert taken <= need <= 1.3 * taken


def test_what_is_there_already_is_not_needed_again() -> None:
    """The rows that are left shrink; the index is built at the end, and always counts."""
    whole = disk_bytes(10_000_000, 1000, 500, 1024, logs_index=False)
    rest = disk_bytes(10_000_000, 1000, 500, 1024, present=1000, present_vectors=500, logs_index=False)
    assert 500 * 8192 <= rest < whole
