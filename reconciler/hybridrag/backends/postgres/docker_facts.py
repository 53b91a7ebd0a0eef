"""Facts of a Postgres container, and what lies between them and what is declared. Pure: nothing is asked here.

Called by `docker_server.py`. Reading the facts of what Docker says is here too, so that a test needs no
Docker: `Actual.read` takes the answer of "inspect".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hybridrag.model.facts import digest_of

DATA = "/var/lib/postgresql/data"
PORT = "5432/tcp"
ADDRESS = "127.0.0.1"
RESTART = "unless-stopped"
SHM_DEFAULT = 64 << 20

LABEL = "io.github.hybridrag"
ENVIRONMENT, BACKEND, DIGEST = f"{LABEL}.environment", f"{LABEL}.backend", f"{LABEL}.spec-digest"
SUPERUSER = f"{LABEL}.superuser"
"""On a volume: the user that its data was made with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The declared container. Sizes in bytes; `memory` 0: no limit; `port` None: any; `major`: of the image.

    `settings` is everything that only a new container can take up and that has no fact of its own.
    """

    environment: str
    backend: str
    container: str
    image: str
    volume: str
    port: int | None
    memory: int
    shm_size: int
    major: int | None
    settings: str

    @property
    def digest(self) -> str:
        """Of what cannot be changed in place. In-place changes must not make the label untrue."""
        return digest_of([self.image, self.volume, self.shm_size, self.settings])[:16]

    @property
    def owner(self) -> dict[str, str]:
        return {ENVIRONMENT: self.environment, BACKEND: self.backend}

    @property
    def labels(self) -> dict[str, str]:
        return {**self.owner, DIGEST: self.digest}


@dataclass(frozen=True, slots=True, kw_only=True)
class Actual:
    """A container as Docker describes it. `data_major`: the Postgres that made the data of the *declared* volume.

    `port_taken`: who else holds the port that this container is to have.
    `sharing`: another running container that works on the declared volume.
    `foreign`: whose the declared volume is, where it is not ours.
    """

    id: str
    status: str
    health: str | None
    image: str
    image_id: str
    address: str | None
    port: int | None
    volume: str | None
    memory: int
    shm_size: int
    restart: str
    environment: str | None
    backend: str | None
    digest: str | None
    data_dir: str
    superuser: str
    data_major: int | None = None
    port_taken: str | None = None
    sharing: str | None = None
    foreign: str | None = None
    wanted_image_id: str | None = None
    limits_memory: bool = True

    @classmethod
    def read(cls, said: Mapping[str, Any], **more: Any) -> Actual:
        """From the answer to "inspect container"."""
        config, host, state = said["Config"], said["HostConfig"], said["State"]
        variables = dict(line.partition("=")[::2] for line in config.get("Env") or ())
        bindings = (host.get("PortBindings") or {}).get(PORT) or [{}]
        number = str(bindings[0].get("HostPort") or "")
        labels = config.get("Labels") or {}
        data_dir = variables.get("PGDATA") or DATA
        mounts = [mount for mount in said.get("Mounts") or () if mount.get("Type") == "volume"]
        holding = [
            mount for mount in mounts if f"{data_dir}/".startswith(f"{mount['Destination'].rstrip('/')}/")
        ]
        nearest: Mapping[str, Any] = max(holding, key=lambda mount: len(mount["Destination"]), default={})
        return cls(
            id=said["Id"],
            status=state["Status"],
            health=(state.get("Health") or {}).get("Status"),
            image=config["Image"],
            image_id=said["Image"],
            address=bindings[0].get("HostIp") or ("0.0.0.0" if number else None),  # noqa: S104  # Docker's default
            port=int(number) if number.isdigit() else None,
            volume=nearest.get("Name"),
            memory=host.get("Memory") or 0,
            shm_size=host.get("ShmSize") or SHM_DEFAULT,
            restart=(host.get("RestartPolicy") or {}).get("Name") or "no",
            environment=labels.get(ENVIRONMENT),
            backend=labels.get(BACKEND),
            digest=labels.get(DIGEST),
            data_dir=data_dir,
            superuser=variables.get("POSTGRES_USER") or "postgres",
            **more,
        )

    @property
    def state(self) -> str:
        """In the words of the plan: running, unhealthy, created, stopped, paused, restarting."""
        if self.status == "running":
            return "unhealthy" if self.health == "unhealthy" else "running"
        return "stopped" if self.status in ("exited", "dead", "removing") else self.status


Kind = Literal["create", "none", "start", "update", "replace", "refused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What must happen. A refusal has a `problem` and a `hint`; the others name what `differs`.

    `leaves`: data that is no longer served afterwards.
    """

    kind: Kind
    differs: tuple[str, ...] = ()
    problem: str | None = None
    hint: str | None = None
    leaves: str | None = None


def owned(wanted: Wanted, actual: Actual) -> bool:
    """Whether we made this container, for this backend."""
    return (actual.environment, actual.backend) == (wanted.environment, wanted.backend)


def compare(wanted: Wanted, actual: Actual | None) -> Change:
    """From what there is to what is declared."""
    if actual is None:
        return Change(kind="create")
    if not owned(wanted, actual):
        return _stranger(wanted, actual)
    if actual.foreign:
        return foreign_volume(wanted, actual.foreign)
    if wanted.major and actual.data_major and wanted.major != actual.data_major:
        return other_major(wanted, actual.data_major)
    if actual.sharing:
        return volume_in_use(wanted, actual.sharing)
    fixed = _fixed(wanted, actual)
    if actual.port_taken:
        if wanted.port is not None:
            return port_taken(wanted, wanted.port, actual.port_taken)
        fixed.append(f"port {actual.port} is taken by {actual.port_taken}, a free one is picked")
    leaves = None
    if actual.volume != wanted.volume:
        leaves = f'the data in volume "{actual.volume}" stays there and is no longer served; the new volume may be empty'
    movable = _movable(wanted, actual)
    if fixed:
        return Change(kind="replace", differs=(*fixed, *movable), leaves=leaves)
    if movable:
        return Change(kind="update", differs=tuple(movable))
    return Change(kind="none" if actual.state == "running" else "start")


def _fixed(wanted: Wanted, actual: Actual) -> list[str]:
    """Differences that only another container can take up."""
    found = []
    if not _same_image(wanted, actual):
        found.append(f"image: {actual.image} → {wanted.image}")
    if actual.volume != wanted.volume:
        found.append(f"volume: {actual.volume or 'none'} → {wanted.volume}")
    if wanted.port not in (None, actual.port) or actual.port is None:
        found.append(f"port: {actual.port or 'none'} → {wanted.port or 'a free one'}")
    if actual.address not in (None, ADDRESS):
        found.append(f"published on: {actual.address} → {ADDRESS}")
    if actual.shm_size != wanted.shm_size:
        found.append(f"shm_size: {_size(actual.shm_size)} → {_size(wanted.shm_size)}")
    if actual.memory and not wanted.memory:  # Docker can change a limit in place, but not lift it
        found.append(f"memory: {_size(actual.memory)} → no limit")
    if not found and actual.digest != wanted.digest:
        found.append("it was made with other server settings")
    return found


def _movable(wanted: Wanted, actual: Actual) -> list[str]:
    """Differences that a running container takes up."""
    found = []
    if wanted.memory and actual.memory != wanted.memory and actual.limits_memory:
        found.append(f"memory: {_size(actual.memory)} → {_size(wanted.memory)}")
    if actual.restart != RESTART:
        found.append(f"restart: {actual.restart} → {RESTART}")
    return found


def _stranger(wanted: Wanted, actual: Actual) -> Change:
    """Labels tell whose a container is; a name, an image and a volume that fit tell nothing."""
    if actual.environment is not None:
        whose = f'belongs to backend "{actual.backend}" of environment "{actual.environment}"'
        use = ""
    else:
        whose = "was not made by hybridrag: it does not have our labels"
        use = f"; to use the server in it, declare backends.{wanted.backend} without provision (host, port, user, password)"
    return Change(
        kind="refused",
        problem=f'the container "{wanted.container}" {whose}',
        hint=f"name another backends.{wanted.backend}.provision.container and provision.volume{use}",
    )


def foreign_volume(wanted: Wanted, whose: str) -> Change:
    """Nothing is started on data that is not ours."""
    return Change(
        kind="refused",
        problem=f'the volume "{wanted.volume}" {whose}; a server of ours on it would take over its data',
        hint=f"name another backends.{wanted.backend}.provision.volume; to use the server that this data belongs to, "
        f"declare backends.{wanted.backend} without provision (host, port, user, password)",
    )


def port_taken(wanted: Wanted, port: int, by: str) -> Change:
    return Change(
        kind="refused",
        problem=f'port {port} is taken by {by}; the container "{wanted.container}" cannot have it',
        hint=f"stop that program, or give backends.{wanted.backend}.port a free one (or none); then: hybridrag apply",
    )


def volume_in_use(wanted: Wanted, by: str) -> Change:
    return Change(
        kind="refused",
        problem=f'the running container "{by}" works on volume "{wanted.volume}"; two servers would destroy its data',
        hint=f"docker stop {by}, or name another backends.{wanted.backend}.provision.volume; then: hybridrag apply",
    )


def other_major(wanted: Wanted, data_major: int) -> Change:
    """A Postgres does not read the data of another major version."""
    return Change(
        kind="refused",
        problem=f'the data in volume "{wanted.volume}" was made by Postgres {data_major}, the image {wanted.image} is '
        f"Postgres {wanted.major}, which cannot read it",
        hint=f"set backends.{wanted.backend}.provision.image back to a Postgres {data_major} image; to upgrade, first "
        f"docker exec {wanted.container} pg_dumpall -U <user> > all.sql, then name a new provision.volume, run "
        "hybridrag apply --allow other_data, and load all.sql with psql",
    )


def _same_image(wanted: Wanted, actual: Actual) -> bool:
    # Made by its id: then the id that the declared name stands for here decides.
    by_id = actual.image.startswith("sha256:") or actual.image_id.startswith(f"sha256:{actual.image}")
    return full_name(actual.image) == full_name(wanted.image) or (
        by_id and actual.image_id == actual.wanted_image_id
    )


def full_name(image: str) -> str:
    """An image's name with what Docker fills in: "postgres" is docker.io/library/postgres:latest."""
    first, slash, rest = image.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        image = f"docker.io/{image if slash else f'library/{image}'}"
    elif first == "index.docker.io":
        image = f"docker.io/{rest}"
    return image if "@" in image or ":" in image.rpartition("/")[2] else f"{image}:latest"


def major_of(image: str, variables: Mapping[str, str]) -> int | None:
    """The Postgres major version of an image: from its PG_MAJOR, else from its tag; None when neither says."""
    if (said := variables.get("PG_MAJOR", "")).isdigit():
        return int(said)
    name, _, tag = full_name(image).partition("@")[0].rpartition(":")
    found = re.search(r"(?:^|[-_])pg-?(\d{2})\b", tag)
    if found is None and name.rpartition("/")[2] == "postgres":
        found = re.match(r"(\d{2})\b", tag)
    return int(found.group(1)) if found else None


def _size(count: int) -> str:
    for unit, shift in (("g", 30), ("m", 20), ("k", 10)):
        if count and not count % (1 << shift):
            return f"{count >> shift}{unit}"
    return str(count) if count else "no limit"
