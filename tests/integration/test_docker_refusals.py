"""Postgres in Docker, when it cannot be: each reason in its own words, with the next thing to do, and nothing harmed."""

from __future__ import annotations

import http.server
import os
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hybridrag.backends.postgres import docker_look, docker_volume
from hybridrag.backends.postgres.docker_server import DockerServer
from hybridrag.backends.postgres.embedded_place import free_port
from hybridrag.backends.postgres.spec import DockerProvision
from hybridrag.errors import BackendUnavailable
from tests.support.docker.case import Case, ask, eventually
from tests.support.docker.engine import BASE


def refused(server: DockerServer, verb: str = "ensure") -> str:
    """All words of the refusal."""
    with pytest.raises(BackendUnavailable) as caught:
        getattr(server, verb)()
    assert caught.value.hint
    return str(caught.value)


@contextmanager
def listening(port: int) -> Iterator[None]:
    with socket.create_server(("127.0.0.1", port)):
        yield


@pytest.mark.slow
def test_a_taken_port(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told before anything is made; lost in a race, the made container is used once the port is free."""
    port = free_port()
    server = case.server(port=port)
    with listening(port):
        assert server.observe()["change"] == "refused"
        said = refused(server)
        assert f"port {port} is taken by another program" in said
        assert "backends.pg.port" in said
        assert not case.exists()
        with monkeypatch.context() as patch:
            patch.setattr(docker_look, "is_free", lambda _: True)
            assert f"port {port} is taken" in refused(server)
        assert case.inspect()["State"]["Status"] == "created"
        assert f"port {port} is taken" in refused(server)
    server.ensure()
    assert ask(server, "SELECT 1") == 1
    other = case.server(container=f"{case.name}-b", volume=f"{case.name}-b-data", home="b", port=port)
    assert f'port {port} is taken by the container "{case.name}"' in refused(other)
    moving = case.server(container=f"{case.name}-b", volume=f"{case.name}-b-data", home="b")
    moving.ensure()
    assert f"port {port} is taken" in refused(other)  # and the one that runs goes on
    assert ask(moving, "SELECT 1") == 1


def test_a_picked_port_that_was_taken_meanwhile(case: Case) -> None:
    """Nobody named the port, so another one is picked, and said."""
    server = case.server()
    server.ensure()
    server.stop()
    port = server.port()
    assert port is not None
    with listening(port):
        facts = server.observe()
        assert facts["change"] == "replace"
        assert "a free one is picked" in str(facts["differs"])
        server.ensure()
        assert ask(server, "SELECT 1") == 1
        assert server.port() != port


def test_a_foreign_container_with_our_name(case: Case) -> None:
    """It is neither started nor stopped nor removed."""
    case.by_hand(BASE, "sleep", "600")
    before = case.inspect()
    server = case.server()
    facts = server.observe()
    assert facts["change"] == "refused"
    for verb in ("ensure", "start", "stop"):
        said = refused(server, verb)
        assert "does not have our labels" in said
        assert "provision.container" in said
    after = case.inspect()
    assert (after["Id"], after["State"]["StartedAt"]) == (before["Id"], before["State"]["StartedAt"])


def volume_files(case: Case) -> str:
    """Name, owner, mode, size and change time of everything in the volume, seen from a container that only looks."""
    look = ["find", "/v", "-printf", "%P %u %m %s %C@\\n"]
    return case.docker("run", "--rm", "-v", f"{case.volume}:/v:ro", BASE, *look)


@pytest.mark.parametrize("visible", [True, False])
@pytest.mark.parametrize("container", ["running", "stopped", "removed"])
def test_the_volume_of_another_program(
    case: Case, container: str, visible: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster without our labels is refused before anything starts on it, whether or not its own container runs.

    Not `visible`: as for most users, who may not look into Docker's folders.
    """
    shop = f"{case.name}-shop"
    case.docker("run", "-d", "--name", shop, "-e", "POSTGRES_PASSWORD=x", "-v",
                f"{case.volume}:/var/lib/postgresql/data", case.image)  # fmt: skip
    eventually(lambda: case.docker("exec", shop, "pg_isready", "-q", "-h", "127.0.0.1", "-t", "1", check=False) == ""
               and "accepting" in case.docker("exec", shop, "pg_isready", "-h", "127.0.0.1", check=False))  # fmt: skip
    if container != "running":
        case.docker("stop", shop)
    if container == "removed":
        case.docker("rm", shop)
    before = volume_files(case) if container != "running" else ""
    if not visible:
        monkeypatch.setattr(docker_volume, "_folder", lambda *_: Path("/nonexistent"))
    server = case.server(container=f"{case.name}-ours")
    said = refused(server)
    assert f'"{case.volume}"' in said
    if container != "running":
        assert "labels" in said or f'"{shop}", which is not ours' in said
        assert volume_files(case) == before
    assert f"{case.name}-ours" not in case.docker("ps", "-a", "--format", "{{.Names}}").split()
    if visible:
        assert server.observe()["change"] == "refused"


def test_an_empty_volume_made_by_hand(case: Case) -> None:
    """It is taken, and its cluster is known as ours without any container; by another environment it is refused."""
    case.docker("volume", "create", case.volume)
    server = case.server()
    server.ensure()
    assert ask(server, "SELECT 1") == 1
    server.ensure()
    case.docker("rm", "-f", case.name)
    said = refused(case.server(environment="prod", home="prod"))
    assert 'belongs to backend "pg" of environment "test"' in said
    server.ensure()
    assert ask(server, "SELECT 1") == 1


def test_a_container_of_another_environment(case: Case) -> None:
    """Two environments never share a container."""
    case.server().ensure()
    said = refused(case.server(environment="prod", home="prod"))
    assert 'belongs to backend "pg" of environment "test"' in said


def test_a_volume_in_use(case: Case) -> None:
    """Two servers on one volume would destroy it: the second is not even made."""
    server = case.server()
    server.ensure()
    second = case.server(container=f"{case.name}-b", home="b")
    said = refused(second)
    assert f'the running container "{case.name}" works on volume "{case.volume}"' in said
    server.stop()
    case.docker("rm", case.name)
    second.ensure()
    assert ask(second, "SELECT 1") == 1


def test_start_of_nothing(case: Case) -> None:
    """There is nothing to start; stopping nothing is fine."""
    assert "hybridrag apply" in refused(case.server(), "start")
    case.server().stop()


def test_an_image_without_a_network(case: Case) -> None:
    """An image that is not here and cannot be fetched; nothing is made."""
    server = case.server(image="registry.invalid/pgvector:pg16")
    assert "has to be pulled first" in str(server.observe()["differs"])
    said = refused(server)
    assert "its registry cannot be reached" in said
    assert "docker load" in said
    assert not case.exists()
    assert not case.docker("volume", "ls", "-q", "--filter", f"name={case.name}")


def test_an_image_that_does_not_exist(case: Case) -> None:
    """A registry that answers, and does not know the image."""

    class Registry(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path.rstrip("/") == "/v2" else 404)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            if self.path.rstrip("/") != "/v2":
                self.wfile.write(b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}')

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry) as registry:
        threading.Thread(target=registry.serve_forever, daemon=True).start()
        try:
            said = refused(case.server(image=f"127.0.0.1:{registry.server_port}/no/such:pg16"))
        finally:
            registry.shutdown()
    assert "cannot be pulled" in said
    assert "manifest unknown" in said
    assert "provision.image" in said


@pytest.fixture
def alone(tmp_path: Path) -> DockerServer:
    """A server that is asked for where no engine answers."""
    return DockerServer(tmp_path / "home", DockerProvision(driver="docker"), environment="test", backend="pg",
                        user="u", database="d", port=None, password=None)  # fmt: skip


@pytest.mark.parametrize("verb", ["ensure", "start", "stop"])
def test_docker_is_not_installed(
    alone: DockerServer, verb: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No socket and no program: how to get it, and what needs no Docker."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    monkeypatch.setenv("PATH", str(tmp_path))
    said = refused(alone, verb)
    assert "Docker is not installed" in said
    assert "driver: embedded" in said
    facts = alone.observe()
    assert (facts["state"], facts["change"]) == ("unknown", "refused")
    assert "not installed" in str(facts["refusal"])


def test_the_engine_does_not_run(
    alone: DockerServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Installed, but no socket, or one that nobody listens on any more."""
    program = tmp_path / "docker"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    path = tmp_path / "dead.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    assert "its engine does not run" in refused(alone)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert stat.S_ISSOCK(path.stat().st_mode)
    said = refused(alone)
    assert "its engine does not run" in said
    assert "systemctl start docker" in said


def test_no_permission_on_the_socket(case: Case) -> None:
    """A user outside the group is told which command lets them in."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody without that permission")
    path = Path((case.engine.host or "unix:///var/run/docker.sock").removeprefix("unix://"))
    if path.stat().st_mode & 0o007:
        pytest.skip("everybody may use this engine")
    server = case.server()
    os.seteuid(65534)
    try:
        facts = server.observe()
    finally:
        os.seteuid(0)
    assert "may not use Docker" in str(facts["refusal"])
    assert "usermod -aG docker" in str(facts["way_out"])


def test_an_engine_on_another_machine(alone: DockerServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container there could not be reached on 127.0.0.1, so it is not made."""
    monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.1:2375")
    assert "another machine" in refused(alone)
