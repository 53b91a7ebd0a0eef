"""The declared volume: whose it is, what it holds, who else works on it. Nothing here changes it, but for `sign`.

Called by `docker_look.py` and `docker_server.py`. A volume is ours by its labels. Docker cannot label one that
exists already, so an empty one that the user made is signed, by a file beside the cluster that we set up in it.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from .docker_engine import first_names, put_file, read_file
from .docker_facts import BACKEND, ENVIRONMENT, SUPERUSER, Actual, Wanted, owned

SIGNATURE = "hybridrag-owner.json"
_MEANINGLESS = frozenset({"lost+found"})


def foreign(client: Any, wanted: Wanted, actual: Actual | None) -> str | None:
    """Whose the declared volume is, in words, when it is not ours; None when it is ours, absent, or free to take."""
    labels = _labels(client, wanted.volume)
    if labels is None or _is_ours(labels, wanted):
        return None
    mounted = actual if actual is not None and actual.volume == wanted.volume else None
    if mounted is not None and owned(wanted, mounted) and mounted.status != "created":
        return None  # its data was made by a container of ours, which has run on it
    signature = _text(client, wanted, mounted, SIGNATURE)
    if signature is not None:
        with suppress(ValueError):
            labels = {ENVIRONMENT: None, BACKEND: None} | json.loads(signature)
            if _is_ours(labels, wanted):
                return None
    if by := _user(client, wanted):
        return f'is used by the container "{by}", which is not ours'
    names = _names(client, wanted, mounted)
    if not names:
        return None
    if labels.get(ENVIRONMENT) is not None:
        return f'belongs to backend "{labels.get(BACKEND)}" of environment "{labels[ENVIRONMENT]}"'
    what = "a Postgres cluster" if "PG_VERSION" in names else f'files ("{sorted(names)[0]}")'
    return f"holds {what} and does not have our labels"


def sign(client: Any, wanted: Wanted, actual: Actual) -> None:
    """Note in a volume without labels, which was empty when we came, that its cluster is ours."""
    labels = _labels(client, wanted.volume) or {}
    if not _is_ours(labels, wanted) and _text(client, wanted, actual, SIGNATURE) is None:
        place = PurePosixPath(actual.data_dir) / SIGNATURE
        put_file(client, actual.id, place, json.dumps(wanted.owner))


def data_major_of(client: Any, wanted: Wanted, actual: Actual | None) -> int | None:
    """Which Postgres made the data of the declared volume; None where nobody could look."""
    text = _text(client, wanted, actual, "PG_VERSION")
    return int(text) if text is not None and text.strip().isdigit() else None


def superusers(client: Any, wanted: Wanted, actual: Actual) -> list[str]:
    """Who may be the first user of the data, the likeliest first: the data is older than the container."""
    labels = _labels(client, wanted.volume) or {}
    names = [labels.get(SUPERUSER), actual.superuser, "postgres"]
    return list(dict.fromkeys(name for name in names if name))


def sharing(client: Any, volume: str, but: str | None) -> str | None:
    """Another container that runs on this volume."""
    for other in client.containers(filters={"volume": [volume]}):
        if other["Id"] != but and _mounts(other, volume):
            return name_of(other)
    return None


def name_of(container: Any) -> str:
    """The name of a container in Docker's list."""
    return str(container["Names"][0]).lstrip("/")


def _user(client: Any, wanted: Wanted) -> str | None:
    """A container without our labels that works on the volume when it runs, whether it does or not."""
    for other in client.containers(all=True, filters={"volume": [wanted.volume]}):
        if _mounts(other, wanted.volume) and not _is_ours(other.get("Labels") or {}, wanted):
            return name_of(other)
    return None


def _mounts(container: Any, volume: str) -> bool:
    return any(mount.get("Name") == volume for mount in container["Mounts"])


def _is_ours(labels: Any, wanted: Wanted) -> bool:
    return wanted.owner.items() <= labels.items()


def _labels(client: Any, volume: str) -> dict[str, Any] | None:
    """None when there is no such volume."""
    from docker.errors import NotFound

    try:
        return dict(client.inspect_volume(volume).get("Labels") or {})
    except NotFound:
        return None


def _folder(client: Any, volume: str) -> Path:
    return Path(client.inspect_volume(volume)["Mountpoint"])


def _text(client: Any, wanted: Wanted, actual: Actual | None, name: str) -> str | None:
    from docker.errors import NotFound

    if actual is not None and actual.volume == wanted.volume:
        return read_file(client, actual.id, f"{actual.data_dir}/{name}")
    # Most users may not look there; then the container tells, once it is made.
    with suppress(OSError, NotFound):
        return (_folder(client, wanted.volume) / name).read_text(encoding="utf-8", errors="replace")
    return None


def _names(client: Any, wanted: Wanted, actual: Actual | None) -> set[str]:
    """Some of the names in the volume; empty when it is empty, or when nobody could look."""
    from docker.errors import NotFound

    if actual is not None:
        return set(first_names(client, actual.id, actual.data_dir)) - _MEANINGLESS
    with suppress(OSError, NotFound):
        return {path.name for path in _folder(client, wanted.volume).iterdir()} - _MEANINGLESS
    return set()
