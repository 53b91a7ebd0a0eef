"""The estimates of disk and of time beside what real migrations took."""

from __future__ import annotations

import pytest

from hybridrag.planner.estimate import disk_bytes, examine_s, migrate_s, to_files_s, verify_s


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


@pytest.mark.parametrize(
    ("size", "records", "vectors", "dim", "examined", "migrated", "verified"),
    [
        (2_000_000, 2_657, 835, 64, 0.14, 1.73, 0.32),
        (199_800_000, 260_546, 81_666, 64, 6.46, 19.6, 4.43),
        (59_900_000, 38_240, 11_988, 384, 1.16, 4.18, 0.93),
        (200_000_000, 79_780, 25_008, 768, 2.73, 9.0, 1.92),
        (218_539_052, 63_949, 20_554, 1024, 1.99, 7.48, 1.39),
        (1_061_930_855, 311_031, 100_779, 1024, 10.3, 41.4, 5.85),
        (60_100_000, 13_718, 4_302, 1536, 0.57, 3.34, 0.61),
    ],
)
def test_the_estimate_of_time_is_near_what_it_took(
    size: int, records: int, vectors: int, dim: int, examined: float, migrated: float, verified: float
) -> None:
    """Seconds of real moves from files to our own server, on 2 cores."""
    took = examined + migrated + verified
    told = examine_s(size, records) + migrate_s(size, records, vectors, dim) + verify_s(size, records)
    assert 0.8 < told / took < 1.25


@pytest.mark.parametrize(
    ("records", "vectors", "dim", "took"),
    [(26_113, 8_187, 64, 1.06), (79_780, 25_008, 768, 4.94), (13_718, 4_302, 1536, 1.46)],
)
def test_the_estimate_of_writing_files(records: int, vectors: int, dim: int, took: float) -> None:
    assert 0.8 < to_files_s(records, vectors, dim) / took < 1.25
