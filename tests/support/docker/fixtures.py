"""Fixtures: a Docker engine for the tests that need one, started only where it may be, and stopped at the end.

Imported by `tests/conftest.py`, so that all tests share one engine.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.docker.case import Case
from tests.support.docker.engine import Engine, Unavailable, engine, image


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[Engine]:
    """The engine, with the image of Postgres 16 in it; skips with the reason where there is none."""
    started = time.monotonic()
    try:
        found = engine()
    except Unavailable as error:
        pytest.skip(str(error))
    with pytest.MonkeyPatch.context() as patch:
        if found.host:
            patch.setenv("DOCKER_HOST", found.host)
        try:
            image(found, 16)
            print(f"Docker engine and image ready in {time.monotonic() - started:.1f} s")
            yield found
        except Unavailable as error:
            pytest.skip(str(error))
        finally:
            found.stop()


@pytest.fixture
def case(docker_engine: Engine, tmp_path: Path) -> Iterator[Case]:
    """A place for one test's container, cleared afterwards whatever happens."""
    made = Case(docker_engine, tmp_path / "case", image(docker_engine, 16))
    yield made
    made.clear()
