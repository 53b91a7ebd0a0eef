"""When a file reaches its threshold if it goes on growing as it did. Pure; from sizes that the daemon recorded."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import combinations

from hybridrag.model.wanted import Thresholds

DAY_S = 86400.0
BIN_S = DAY_S / 4
LEAST_S = DAY_S
"""Sizes of less than a day say nothing about the next month."""
LEAST_BINS = 3
MOST_DAYS = 365.0
Sizes = Iterable[tuple[float, str, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """`file` ("" for all files together) reaches `threshold` bytes in `days` at `per_day` bytes a day."""

    file: str
    threshold: int
    per_day: float
    days: float


def forecast(sizes: Sizes, now: float, thresholds: Thresholds, files: Collection[str]) -> Forecast | None:
    """The first threshold that will be reached, within a year; None where nothing grows towards one.

    `sizes` are (time, file, bytes) in any order, `files` those that count now.
    """
    by_time: dict[float, dict[str, int]] = defaultdict(dict)
    for at, file, size in sizes:
        if file in files and at <= now:
            by_time[at][file] = size
    series: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for at, found in by_time.items():
        series[""].append((at, sum(found.values())))
        for file, size in found.items():
            series[file].append((at, size))
    made = [
        reached
        for file, points in series.items()
        if (reached := _of(file, points, now, thresholds.file_bytes if file else thresholds.total_bytes))
    ]
    return min(made, key=lambda each: (each.days, each.file), default=None)


def _of(file: str, points: list[tuple[float, int]], now: float, threshold: int) -> Forecast | None:
    at, size = max(points)
    if size > threshold:
        return None  # that is a warning already
    slope = growth(points)
    if slope is None or slope <= 0:
        return None
    days = max(0.0, (threshold - size) / slope - (now - at)) / DAY_S
    if days > MOST_DAYS:
        return None
    return Forecast(file=file, threshold=threshold, per_day=slope * DAY_S, days=days)


def growth(points: Collection[tuple[float, int]]) -> float | None:
    """Bytes a second: the median slope of all pairs (Theil and Sen) of each quarter of a day's largest size.

    A single odd value changes nothing. None where the times lie too close together.
    """
    bins: dict[int, tuple[float, int]] = {}
    for at, size in points:
        place = int(at // BIN_S)
        bins[place] = max(bins.get(place, (at, size)), (at, size), key=lambda point: point[1])
    found = [(place * BIN_S, size) for place, (_, size) in sorted(bins.items())]
    if len(found) < LEAST_BINS or found[-1][0] - found[0][0] < LEAST_S:
        return None
    return statistics.median((y - b) / (x - a) for (a, b), (x, y) in combinations(found, 2))
