"""Looking at Docker: the container, its image, its volume, and who is in the way. Nothing here changes anything.

Called by `docker_server.py`; what is found is judged in `docker_facts.py`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .docker_facts import (
    Actual,
    Change,
    Wanted,
    foreign_volume,
    major_of,
    other_major,
    port_taken,
    volume_in_use,
)
from .docker_volume import data_major_of, foreign, name_of, sharing
from .embedded_place import is_free


def inspect(client: Any, container: str) -> Any:
    """Docker's own words on a container; None when there is none."""
    from docker.errors import NotFound

    try:
        return client.inspect_container(container)
    except NotFound:
        return None


def image_of(client: Any, image: str) -> Any:
    """Docker's own words on an image; empty when it is not on this machine."""
    from docker.errors import NotFound

    try:
        return client.inspect_image(image)
    except NotFound:
        return {}


def declared(client: Any, wanted: Wanted) -> Wanted:
    """What is declared, with the Postgres version of its image, as far as this machine knows it."""
    lines = (image_of(client, wanted.image).get("Config") or {}).get("Env") or ()
    variables = dict(line.partition("=")[::2] for line in lines)
    return replace(wanted, major=major_of(wanted.image, variables))


def look(client: Any, wanted: Wanted) -> tuple[Wanted, Actual | None]:
    """What is declared, and the container, if any. One that a killed replacement set aside counts."""
    wanted = declared(client, wanted)
    said = inspect(client, wanted.container) or inspect(client, f"{wanted.container}.old")
    if said is None:
        return wanted, None
    actual = Actual.read(said, wanted_image_id=image_of(client, wanted.image).get("Id"))
    actual = replace(
        actual,
        data_major=data_major_of(client, wanted, actual),
        port_taken=_taken(client, wanted, actual),
        sharing=sharing(client, wanted.volume, actual.id),
        foreign=foreign(client, wanted, actual),
    )
    if actual.memory != wanted.memory:
        actual = replace(actual, limits_memory=bool(client.info().get("MemoryLimit")))
    return wanted, actual


def obstacle(client: Any, wanted: Wanted) -> Change:
    """Why a container cannot be created now, else "create"."""
    if whose := foreign(client, wanted, None):
        return foreign_volume(wanted, whose)
    data_major = data_major_of(client, wanted, None)
    if wanted.major and data_major and wanted.major != data_major:
        return other_major(wanted, data_major)
    if by := sharing(client, wanted.volume, None):
        return volume_in_use(wanted, by)
    if wanted.port is not None and not is_free(wanted.port):
        return port_taken(wanted, wanted.port, holder(client, wanted.port))
    return Change(kind="create")


def holder(client: Any, port: int) -> str:
    """Who listens on a port that is not free, as far as Docker knows."""
    for other in client.containers(filters={"publish": [str(port)]}):
        return f'the container "{name_of(other)}"'
    return "another program"


def _taken(client: Any, wanted: Wanted, actual: Actual) -> str | None:
    port = wanted.port or actual.port
    holds = actual.status in ("running", "paused", "restarting") and actual.port == port
    return None if port is None or holds or is_free(port) else holder(client, port)
