"""What lies between a container and its declaration, without Docker: nothing, start, in place, replace, refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from hybridrag.backends.postgres.docker_facts import (
    BACKEND,
    DIGEST,
    ENVIRONMENT,
    Actual,
    Change,
    Wanted,
    compare,
    full_name,
    major_of,
)
from hybridrag.backends.postgres.spec import PostgresSpec, size_bytes

GB = 1 << 30
WANTED = Wanted(
    environment="dev",
    backend="pg",
    container="box",
    image="pgvector/pgvector:pg16",
    volume="data",
    port=5432,
    memory=4 * GB,
    shm_size=GB,
    major=16,
    settings="x",
)
OURS = Actual(
    id="1",
    status="running",
    health="healthy",
    image="pgvector/pgvector:pg16",
    image_id="sha256:aa",
    address="127.0.0.1",
    port=5432,
    volume="data",
    memory=4 * GB,
    shm_size=GB,
    restart="unless-stopped",
    environment="dev",
    backend="pg",
    digest=WANTED.digest,
    data_dir="/var/lib/postgresql/data",
    superuser="hybridrag",
    data_major=16,
)
FOREIGN = replace(
    OURS, environment=None, backend=None, digest=None, memory=0, shm_size=64 << 20, restart="no"
)


@pytest.mark.parametrize(
    ("actual", "kind", "differs"),
    [
        (None, "create", ""),
        (OURS, "none", ""),
        (replace(OURS, health="starting"), "none", ""),
        (replace(OURS, image="docker.io/pgvector/pgvector:pg16"), "none", ""),
        (replace(OURS, status="exited"), "start", ""),
        (replace(OURS, status="created"), "start", ""),
        (replace(OURS, status="paused"), "start", ""),
        (replace(OURS, status="restarting"), "start", ""),
        (replace(OURS, health="unhealthy"), "start", ""),
        (replace(OURS, memory=2 * GB), "update", "memory: 2g → 4g"),
        (replace(OURS, memory=0), "update", "memory: no limit → 4g"),
        (replace(OURS, memory=0, limits_memory=False), "none", ""),
        (replace(OURS, restart="no"), "update", "restart: no → unless-stopped"),
        (replace(OURS, status="exited", memory=2 * GB), "update", "memory: 2g → 4g"),
        (replace(OURS, shm_size=64 << 20), "replace", "shm_size: 64m → 1g"),
        (replace(OURS, port=5433), "replace", "port: 5433 → 5432"),
        (replace(OURS, address="0.0.0.0"), "replace", "published on: 0.0.0.0 → 127.0.0.1"),
        (replace(OURS, digest="old"), "replace", "it was made with other server settings"),
        (
            replace(OURS, image="pgvector/pgvector:0.7.0-pg16", memory=GB),
            "replace",
            "image: pgvector/pgvector:0.7.0-pg16 → pgvector/pgvector:pg16; memory: 1g → 4g",
        ),
    ],
)
def test_our_own_container(actual: Actual | None, kind: str, differs: str) -> None:
    """Each difference leads to the least that takes it up, and is named."""
    change = compare(WANTED, actual)
    assert (change.kind, "; ".join(change.differs)) == (kind, differs)
    assert change.problem is None
    assert change.leaves is None


def test_any_port_is_the_one_it_has() -> None:
    """Without a declared port none is a difference; one that somebody took meanwhile is given up."""
    wanted = replace(WANTED, port=None)
    assert compare(wanted, replace(OURS, port=17_000)).kind == "none"
    taken = compare(wanted, replace(OURS, status="exited", port=17_000, port_taken="another program"))
    assert taken.kind == "replace"
    assert "a free one is picked" in taken.differs[0]


def test_a_lifted_limit_needs_a_new_container() -> None:
    """Docker can change a memory limit in place, but not lift it."""
    assert compare(replace(WANTED, memory=0), OURS).differs == ("memory: 4g → no limit",)
    assert compare(replace(WANTED, memory=0), OURS).kind == "replace"


def test_another_volume_leaves_data() -> None:
    """Going to another volume is a replacement that says which data stays behind."""
    change = compare(replace(WANTED, volume="other"), replace(OURS, data_major=None))
    assert change.kind == "replace"
    assert change.leaves is not None
    assert '"data"' in change.leaves


def refusal(change: Change) -> str:
    assert change.kind == "refused"
    assert change.problem
    assert change.hint
    return f"{change.problem} {change.hint}"


def test_refusals_say_why_and_what_next() -> None:
    """Another major version, a shared volume, a taken port: nothing is touched, and there is a way out."""
    said = refusal(compare(replace(WANTED, image="pgvector/pgvector:pg18", major=18), OURS))
    assert "made by Postgres 16" in said
    assert "pg_dumpall" in said
    assert "docker stop thief" in refusal(compare(WANTED, replace(OURS, status="exited", sharing="thief")))
    said = refusal(compare(WANTED, replace(OURS, status="exited", port_taken='the container "web"')))
    assert 'port 5432 is taken by the container "web"' in said


@pytest.mark.parametrize(
    ("actual", "words"),
    [
        (FOREIGN, "does not have our labels"),
        (replace(FOREIGN, status="exited"), "without provision"),
        (replace(FOREIGN, image="nginx:latest"), "does not have our labels"),
        (replace(OURS, environment="prod"), 'backend "pg" of environment "prod"'),
        (replace(OURS, backend="other"), 'backend "other" of environment "dev"'),
    ],
)
def test_a_container_without_our_labels_is_left_alone(actual: Actual, words: str) -> None:
    """A foreign container with our name is refused by name, also one whose image, volume and port fit."""
    said = refusal(compare(WANTED, actual))
    assert words in said
    assert "provision.container" in said
    assert "docker rm" not in said


def test_reading_what_docker_says() -> None:
    """The facts come from "inspect"; what is absent there is absent here."""
    said: dict[str, Any] = {
        "Id": "1",
        "Image": "sha256:aa",
        "State": {"Status": "running", "Health": {"Status": "healthy"}},
        "Config": {
            "Image": "pgvector/pgvector:pg16",
            "Env": ["PGDATA=/var/lib/postgresql/data/pgdata", "POSTGRES_USER=me"],
            "Labels": {ENVIRONMENT: "dev", BACKEND: "pg", DIGEST: "d"},
        },
        "HostConfig": {
            "PortBindings": {"5432/tcp": [{"HostIp": "127.0.0.1", "HostPort": "5544"}]},
            "RestartPolicy": {"Name": "always"},
            "Memory": GB,
            "ShmSize": GB,
        },
        "Mounts": [
            {"Type": "volume", "Name": "outer", "Destination": "/var/lib/postgresql"},
            {"Type": "volume", "Name": "inner", "Destination": "/var/lib/postgresql/data"},
            {"Type": "bind", "Source": "/x", "Destination": "/var/lib/postgresql/data/pgdata"},
        ],
    }
    actual = Actual.read(said)
    assert (actual.port, actual.volume, actual.memory, actual.superuser) == (5544, "inner", GB, "me")
    assert actual.state == "running"
    bare: dict[str, Any] = {
        "Id": "1",
        "Image": "sha256:aa",
        "State": {"Status": "exited"},
        "Config": {"Image": "x"},
        "HostConfig": {},
    }
    empty = Actual.read(bare)
    assert (empty.port, empty.address, empty.volume, empty.restart) == (None, None, None, "no")
    assert empty.state == "stopped"


def test_names_and_versions_of_images() -> None:
    """Docker's short names mean the same as the full ones; a tag tells the version where nothing else does."""
    assert full_name("postgres") == "docker.io/library/postgres:latest"
    assert full_name("pgvector/pgvector:pg16") == "docker.io/pgvector/pgvector:pg16"
    assert full_name("localhost:5000/pg") == "localhost:5000/pg:latest"
    assert full_name("registry.example.org/a/b:1") == "registry.example.org/a/b:1"
    assert major_of("x", {"PG_MAJOR": "17"}) == 17
    assert major_of("pgvector/pgvector:0.8.0-pg17-trixie", {}) == 17
    assert major_of("postgres:16.4-bookworm", {}) == 16
    assert major_of("timescale/x:2.17", {}) is None


def spec(**provision: object) -> PostgresSpec:
    more = {"port": provision.pop("outer")} if "outer" in provision else {}
    return PostgresSpec.model_validate(
        {"type": "postgres", "provision": {"driver": "docker", **provision}, **more}
    )


def test_the_spec_of_a_container() -> None:
    """Defaults that work, sizes in Docker's words, one port."""
    declared = spec().provision
    assert declared is not None
    assert declared.driver == "docker"
    assert declared.image == "pgvector/pgvector:pg16"
    assert size_bytes("512m") == 512 << 20
    assert spec(port=5555).declared_port == 5555
    assert spec(outer=5555).declared_port == 5555
    assert spec(memory=None).provision is not None
    for wrong in (
        {"memory": "4 GB"},
        {"memory": "100m"},
        {"container": "a b"},
        {"port": 1, "outer": 2},
        {"image": ""},
    ):
        with pytest.raises(ValidationError):
            spec(**wrong)
