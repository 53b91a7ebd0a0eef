"""What places say of themselves: read, and taken away, as a stranger would."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from typing import Any

import asyncpg

import hybridrag
from hybridrag.engine.locating import locate
from hybridrag.engine.world import World
from tests.conftest import Project
from tests.support.target import run_sql


def forget_notes(project: Project) -> None:
    """Take our notes out of the folder and the server, as an earlier version of this tool left them: it wrote none."""
    shutil.rmtree(project.data / ".hybridrag" / "notes", ignore_errors=True)
    if project.dsn is not None:
        with contextlib.suppress(asyncpg.UndefinedTableError):
            run_sql(project.dsn, "DELETE FROM hybridrag_ledger.note RETURNING 1")


def forget_state(project: Project) -> None:
    """Remove everything below the state folder."""
    for path in project.folder.glob("state/*"):
        if path.is_dir():
            shutil.rmtree(path)


def notes_in_files(project: Project) -> dict[str, dict[str, Any]]:
    """The notes in the project's folder of JSON files, by their names."""
    found = (project.data / ".hybridrag" / "notes").glob("*.json")
    return {path.stem: json.loads(path.read_text("utf-8")) for path in found}


def located(project: Project) -> World:
    """The project's world after its places were asked."""
    world = hybridrag.load(project.folder / "hybridrag.yaml").world
    asyncio.run(locate(world))
    return world
