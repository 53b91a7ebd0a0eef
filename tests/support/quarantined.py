"""What a project's quarantine holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ijson

from tests.conftest import Project


def held(project: Project) -> list[Path]:
    """Files of the quarantine."""
    return sorted((project.folder / "state" / "test" / "quarantine").rglob("*.jsonl"))


def lines(path: Path) -> list[dict[str, Any]]:
    """Its records; those that are nested too deep for Python's parser are read by another one."""
    found = []
    for line in path.read_bytes().splitlines():
        try:
            found.append(json.loads(line))
        except RecursionError:
            found.append(next(iter(ijson.items(line, ""))))
    return found
