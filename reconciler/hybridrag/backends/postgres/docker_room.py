"""Room on the volume that holds a container's data. Called by `docker_server.py`; nothing here changes anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hybridrag.model.room import Room

from .docker_engine import run_inside
from .docker_facts import Actual, Wanted
from .docker_look import inspect


def room_of(client: Any, wanted: Wanted) -> Room | None:
    """Asked inside while the container runs, else of its volume, else of where Docker will put one.

    None where the engine keeps its data out of our sight, as Docker Desktop does in a machine of its own.
    """
    said = inspect(client, wanted.container)
    if said is not None and (actual := Actual.read(said)).status == "running":
        return _inside(client, wanted, actual)
    folder = _folder(client, wanted)
    return Room.holding(folder) if folder is not None and folder.is_dir() else None


def _folder(client: Any, wanted: Wanted) -> Path | None:
    from docker.errors import NotFound

    try:
        volume = client.inspect_volume(wanted.volume)
    except NotFound:
        volume = {}
    if volume.get("Options"):  # mounted by Docker, and only while a container uses it
        return None
    # Beside the volumes' own folders, which only root may enter.
    return Path(client.info()["DockerRootDir"])


def _inside(client: Any, wanted: Wanted, actual: Actual) -> Room | None:
    """`df` in its POSIX form, which every image has: free and total in units of 1,024 bytes."""
    code, output = run_inside(client, wanted.container, ["df", "-Pk", actual.data_dir])
    columns = output.strip().rpartition("\n")[2].rsplit(maxsplit=5)
    if code != 0 or len(columns) != 6 or not (columns[1].isdigit() and columns[3].isdigit()):
        return None
    place = f'volume "{actual.volume}"' if actual.volume else f'"{actual.data_dir}"'
    where = f'{place} of container "{wanted.container}"'
    return Room(free=int(columns[3]) << 10, total=int(columns[1]) << 10, where=where)
