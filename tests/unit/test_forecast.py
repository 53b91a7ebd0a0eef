"""The forecast: right for straight growth, unmoved by odd values, silent where nothing can be said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridrag.model.wanted import Thresholds
from hybridrag.planner.forecast import DAY_S, forecast, growth

NOW = 1_800_000_000.0
LIMITS = Thresholds()


def straight(per_day: float, last: float, days: int, *, every_h: float = 6) -> list[tuple[float, str, int]]:
    """Sizes that grew evenly up to now."""
    count = int(days * 24 / every_h)
    return [
        (NOW - step * every_h * 3600, "vdb.json", max(0, round(last - per_day * step * every_h / 24)))
        for step in range(count, -1, -1)
    ]


@given(per_day=st.floats(1e6, 5e7), days_left=st.floats(1, 300), days=st.integers(3, 30))
def test_even_growth_reaches_its_threshold_when_it_says(per_day: float, days_left: float, days: int) -> None:
    """For every slope, whatever the time that was recorded."""
    last = LIMITS.file_bytes - per_day * days_left
    if last - per_day * days < 0:
        return
    found = forecast(straight(per_day, last, days), NOW, LIMITS, ["vdb.json"])
    assert found is not None
    assert found.file == "vdb.json"
    assert found.per_day == pytest.approx(per_day, rel=0.05)
    assert found.days == pytest.approx(days_left, rel=0.06, abs=0.3)


@given(sizes=st.lists(st.integers(0, 400_000_000), min_size=2, max_size=60))
def test_what_does_not_grow_is_not_forecast(sizes: list[int]) -> None:
    """Sizes that only fall, or stay."""
    falling = sorted(sizes, reverse=True)
    told = [(NOW - DAY_S * (len(falling) - index), "vdb.json", size) for index, size in enumerate(falling)]
    assert forecast(told, NOW, LIMITS, ["vdb.json"]) is None


@given(odd=st.integers(0, 10**12), at=st.integers(8, 100))
def test_one_odd_value_changes_little(odd: int, at: int) -> None:
    """A restore, a half-written file: the median of the slopes stays where it was."""
    points = [(at_, size) for at_, _, size in straight(5e6, 3e8, 30)]
    points[at] = (points[at][0], odd)
    slope = growth(points)
    assert slope is not None
    assert slope * DAY_S == pytest.approx(5e6, rel=0.1)


@given(
    told=st.lists(
        st.tuples(st.floats(0, 2e9), st.sampled_from(["a", "b"]), st.integers(0, 10**13)), max_size=40
    )
)
def test_anything_that_was_recorded_gives_an_answer(told: list[tuple[float, str, int]]) -> None:
    """Never an error; what it says lies ahead, within a year, and grows."""
    found = forecast(told, NOW, LIMITS, ["a", "b"])
    assert found is None or (0 <= found.days <= 365 and found.per_day > 0)


def test_short_old_or_foreign_records_say_nothing() -> None:
    """Hours are too short; files that are on a server by now do not count; above the threshold it is a warning."""
    assert forecast(straight(1e8, 3e8, 1, every_h=1)[-6:], NOW, LIMITS, ["vdb.json"]) is None
    assert forecast(straight(5e6, 3e8, 30), NOW, LIMITS, []) is None
    assert forecast(straight(5e6, 6e8, 30), NOW, Thresholds(total_bytes=10**12), ["vdb.json"]) is None


def test_the_first_threshold_counts_files_or_all_of_them() -> None:
    """Many files that grow a little reach the total before one of them is big."""
    told = [(at, f"f{number}", size) for at, _, size in straight(5e6, 1.9e8, 30) for number in range(10)]
    found = forecast(told, NOW, LIMITS, [f"f{number}" for number in range(10)])
    assert found is not None
    assert (found.file, round(found.days)) == ("", 2)


def test_time_that_passed_since_the_last_size_counts() -> None:
    """A daemon that stood still for ten days: the file went on growing, or will be there ten days sooner than it says."""
    told = straight(5e6, LIMITS.file_bytes - 100e6, 30)
    fresh = forecast(told, NOW, LIMITS, ["vdb.json"])
    later = forecast(told, NOW + 10 * DAY_S, LIMITS, ["vdb.json"])
    overdue = forecast(told, NOW + 40 * DAY_S, LIMITS, ["vdb.json"])
    assert fresh is not None
    assert later is not None
    assert overdue is not None
    assert fresh.days == pytest.approx(20, abs=0.5)
    assert later.days == pytest.approx(10, abs=0.5)
    assert overdue.days == 0


def test_slow_growth_is_growth() -> None:
    """Less than a byte a second still reaches a near threshold within the year, and a far one is not told of."""
    near = forecast(straight(8e4, LIMITS.file_bytes - 16e6, 30), NOW, LIMITS, ["vdb.json"])
    assert near is not None
    assert near.days == pytest.approx(200, rel=0.05)
    assert forecast(straight(8e4, LIMITS.file_bytes - 40e6, 30), NOW, LIMITS, ["vdb.json"]) is None
