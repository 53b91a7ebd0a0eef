"""Postgres in Docker, against a real engine: it starts, lasts, is changed and repaired, and loses nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from hybridrag.backends.postgres import docker_container, docker_server
from hybridrag.backends.postgres.docker_facts import Change
from hybridrag.backends.postgres.docker_server import DockerServer
from hybridrag.backends.postgres.embedded_place import free_port
from hybridrag.errors import BackendUnavailable
from tests.support.docker.case import Case, ask, eventually
from tests.support.docker.engine import Unavailable, image

CANARY = "p@cAn4ry0wl:/?#% 'x' \"y\" \\ü$HOME `z`"
KEEP = "CREATE TABLE kept AS SELECT 42 AS answer"


def kept(server: DockerServer, patience_s: float = 0.0) -> bool:
    return bool(ask(server, "SELECT answer FROM kept", patience_s=patience_s) == 42)


def refused(server: DockerServer, verb: str = "ensure") -> str:
    """All words of the refusal."""
    with pytest.raises(BackendUnavailable) as caught:
        getattr(server, verb)()
    assert caught.value.hint
    return str(caught.value)


def test_from_nothing_and_twice_is_once(case: Case, record_property: Any) -> None:
    """Looking creates nothing; one call makes a database that is locked, private and limited; another changes nothing."""
    server = case.server()
    assert server.observe()["state"] == "absent"
    assert not case.exists()
    assert not case.docker("volume", "ls", "-q", "--filter", f"name={case.name}")
    assert not case.folder.exists()
    started = time.monotonic()
    server.ensure()
    seconds = time.monotonic() - started
    record_property("seconds from nothing to a database", round(seconds, 2))
    print(f"from nothing to a working database: {seconds:.2f} s")
    assert seconds < 60
    assert ask(server, "SELECT '[1,2]'::vector <-> '[1,4]'::vector") == 2.0
    assert ask(server, "SELECT count(*) FROM pg_hba_file_rules WHERE type = 'host' AND address = 'all'") == 1
    assert ask(server, "SHOW data_checksums") == "on"
    for wrong in ("wrong", ""):
        with pytest.raises((asyncpg.InvalidPasswordError, asyncpg.InterfaceError)):
            ask(server, "SELECT 1", password=wrong)

    said = case.inspect()
    host, config = said["HostConfig"], said["Config"]
    assert host["PortBindings"] == {"5432/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(server.port())}]}
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    assert (host["ShmSize"], host["Memory"]) == (1 << 30, 4 << 30)
    assert config["Healthcheck"]["Test"][1] == "pg_isready"
    labels = {key.rpartition(".")[2]: value for key, value in config["Labels"].items() if "hybridrag" in key}
    assert (labels["environment"], labels["backend"]) == ("test", "pg")
    assert len(labels["spec-digest"]) == 16
    names = {key.rpartition(".")[2]: value for key, value in case.inspect(case.volume)["Labels"].items()}
    assert names == {"environment": "test", "backend": "pg", "superuser": "hybridrag"}

    before = server.observe()
    server.ensure()
    server.start()
    again = case.inspect()
    assert (again["Id"], again["State"]["StartedAt"]) == (said["Id"], said["State"]["StartedAt"])
    assert {**server.observe(), "health": None} == {**before, "health": None}
    assert (before["state"], before["change"]) == ("running", None)
    password = case.folder / "home" / "password"
    assert password.stat().st_mode & 0o777 == 0o600


def test_the_secret_is_kept(case: Case) -> None:
    """Awkward passwords work, also as a change, and show in no argument list, inspection, log or file."""
    seen: list[bytes] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            for entry in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    if b"cAn4ry0wl" in (text := entry.read_bytes()):
                        seen.append(text)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        server = case.server(password=CANARY)
        server.ensure()
        assert ask(server, "SELECT 1") == 1
        changed = case.server(password=CANARY + "-new", user='an "other" user', database="second = db")
        changed.ensure()
        replaced = case.server(
            password=CANARY + "-new", user='an "other" user', database="second = db", shm_size="900m"
        )
        replaced.ensure()
    finally:
        done.set()
        watcher.join()
    assert seen == []
    assert ask(replaced, "SELECT current_user || '/' || current_database()") == 'an "other" user/second = db'
    shown = case.docker("inspect", case.name, case.volume) + case.docker("logs", case.name)
    shown += case.docker("inspect", "--size", case.name) + case.docker("history", case.image)
    assert "cAn4ry0wl" not in shown
    for path in (case.folder / "home").iterdir():
        assert b"cAn4ry0wl" not in path.read_bytes()
    assert str(replaced.observe()).find("cAn4ry0wl") == -1


@pytest.mark.slow
def test_every_sick_state_is_repaired(case: Case) -> None:
    """Stopped, paused, killed and removed: the next call brings it back with its data."""
    server = case.server()
    server.ensure()
    ask(server, KEEP)
    port = server.port()
    server.stop()
    server.stop()
    assert server.observe()["state"] == "stopped"
    server.start()
    assert kept(server)
    case.docker("pause", case.name)
    assert server.observe()["state"] == "paused"
    server.ensure()
    assert kept(server)
    case.docker("kill", case.name)  # Docker does not restart what was stopped on purpose
    server.ensure()
    assert kept(server)
    os.kill(case.inspect()["State"]["Pid"], signal.SIGKILL)  # the server itself dies
    server.ensure()
    assert kept(server)
    case.docker("rm", "-f", case.name)
    assert server.observe()["state"] == "absent"
    server.ensure()
    assert kept(server)
    assert server.port() == port


@pytest.mark.slow
def test_a_new_user_of_old_data(case: Case) -> None:
    """The volume outlives its container and its first user: another user, by another container, is let in."""
    server = case.server(user="first")
    server.ensure()
    ask(server, KEEP, "GRANT SELECT ON kept TO public")
    both = case.server(user="second", shm_size="512m")
    both.ensure()
    assert kept(both)
    case.docker("rm", "-f", case.name)
    (case.folder / "home" / "password").unlink()
    third = case.server(user="third")
    third.ensure()
    assert kept(third)


def test_a_kill_before_the_password_was_told(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that was made and nothing more is finished by the next call."""
    with monkeypatch.context() as patch:
        patch.setattr(docker_container, "put_private", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            case.server().ensure()
    assert case.inspect()["State"]["Status"] == "created"
    server = case.server()
    server.ensure()
    assert ask(server, "SELECT 1") == 1


def test_it_comes_back_by_itself(case: Case) -> None:
    """After SIGKILL of Postgres the engine restarts it; nobody of us is needed."""
    server = case.server()
    server.ensure()
    ask(server, KEEP)
    os.kill(case.inspect()["State"]["Pid"], signal.SIGKILL)
    assert kept(server, patience_s=20)


@pytest.mark.slow
def test_restart_of_the_engine(case: Case) -> None:
    """A restart of the engine brings a running server back, and leaves a stopped one stopped."""
    if not case.engine.own:
        pytest.skip("the engine was not started by these tests, so they do not restart it")
    server = case.server()
    server.ensure()
    ask(server, KEEP)
    case.engine.stop()
    said = refused(server)
    assert "its engine does not run" in said
    assert server.observe()["state"] == "unknown"
    case.engine.start()
    assert kept(server, patience_s=30)
    server.ensure()
    server.stop()
    case.engine.stop()
    case.engine.start()
    assert server.observe()["state"] == "stopped"
    server.ensure()
    assert kept(server)


def test_limits_are_changed_in_place(case: Case) -> None:
    """Another memory limit needs no restart; a restart policy that somebody changed is put back."""
    case.server().ensure()
    before = case.inspect()
    case.docker("update", "--restart", "no", case.name)
    server = case.server(memory="2g")
    facts = server.observe()
    assert facts["change"] == "update"
    assert facts["differs"] == "memory: 4g → 2g; restart: no → unless-stopped"
    assert not facts["restarts"]
    server.ensure()
    after = case.inspect()
    assert after["HostConfig"]["Memory"] == 2 << 30
    assert after["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
    assert (after["Id"], after["State"]["StartedAt"]) == (before["Id"], before["State"]["StartedAt"])
    assert server.observe()["change"] is None


def test_a_replacement_keeps_the_data(case: Case) -> None:
    """Another shm_size, another image tag, another port: a new container on the same volume, with the same rows."""
    server = case.server()
    server.ensure()
    ask(server, KEEP)
    port, first = server.port(), case.inspect()["Id"]
    case.docker("tag", case.image, "pgvector/pgvector:0.8.5-pg16")
    other = case.server(image="pgvector/pgvector:0.8.5-pg16", shm_size="512m")
    facts = other.observe()
    assert facts["change"] == "replace"
    assert facts["restarts"] is True
    assert facts["differs"] == f"image: {case.image} → pgvector/pgvector:0.8.5-pg16; shm_size: 1g → 512m"
    other.ensure()
    assert kept(other)
    assert other.port() == port
    assert case.inspect()["Id"] != first
    moved = case.server(image="pgvector/pgvector:0.8.5-pg16", shm_size="512m", port=free_port())
    moved.ensure()
    assert moved.port() not in (None, port)
    assert kept(moved)
    assert moved.observe()["change"] is None
    assert case.docker("ps", "-a", "--format", "{{.Names}}", "--filter", f"name={case.name}") == case.name
    case.docker("rmi", "pgvector/pgvector:0.8.5-pg16", check=False)


@pytest.mark.parametrize(
    ("entrypoint", "words"),
    [('["sh", "-c", "echo no luck; exit 3"]', "no luck"), ('["/no/such/program"]', "no such file")],
)
def test_a_replacement_that_fails_is_undone(case: Case, entrypoint: str, words: str) -> None:
    """A new container that does not run gives its place back: the old one serves, and the reason is told."""
    server = case.server()
    server.ensure()
    ask(server, KEEP)
    first = case.inspect()["Id"]
    broken = "hybridrag-test/broken:pg16"
    case.engine.docker(
        "build",
        "-q",
        "-t",
        broken,
        "-",
        text=f"FROM {case.image}\nENTRYPOINT {entrypoint}",
    )
    said = refused(case.server(image=broken))
    assert words in said
    assert case.inspect()["Id"] == first
    assert kept(server, patience_s=10)
    case.docker("rmi", broken)


def test_a_killed_replacement_goes_on(case: Case) -> None:
    """Whatever a kill in the middle of a replacement left, the next call ends with one container and all data."""
    server = case.server()
    server.ensure()
    ask(server, KEEP)
    case.docker("create", "--name", f"{case.name}.new", "--label", "io.github.hybridrag.environment=test",
                "--label", "io.github.hybridrag.backend=pg", case.image)  # fmt: skip
    case.docker("stop", case.name)
    case.docker("rename", case.name, f"{case.name}.old")
    assert server.observe()["state"] == "stopped"
    server.ensure()
    assert kept(server)
    case.docker("stop", case.name)
    case.docker("rename", case.name, f"{case.name}.old")
    case.docker("create", "--name", case.name, "--label", "io.github.hybridrag.environment=test",
                "--label", "io.github.hybridrag.backend=pg", case.image)  # fmt: skip
    server.ensure()
    assert kept(server)
    assert case.docker("ps", "-a", "--format", "{{.Names}}", "--filter", f"name={case.name}") == case.name


def test_another_major_version_is_refused(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data stays readable: Postgres 18 does not get the volume of Postgres 16, and the way out is told."""
    try:
        newer = image(case.engine, 18)
    except Unavailable as error:
        pytest.skip(str(error))
    server = case.server()
    server.ensure()
    ask(server, KEEP)
    other = case.server(image=newer)
    facts = other.observe()
    assert facts["change"] == "refused"
    assert "made by Postgres 16" in str(facts["refusal"])
    assert "pg_dumpall" in str(facts["way_out"])
    assert "made by Postgres 16" in refused(other)
    assert kept(server)
    case.docker("rm", "-f", case.name)
    assert other.observe()["change"] == "refused"
    monkeypatch.setattr(
        docker_server, "obstacle", lambda *_: Change(kind="create")
    )  # who may not read volumes
    assert "made by Postgres 16" in refused(other)
    assert not case.exists()
    monkeypatch.undo()
    server.ensure()
    assert kept(server)


def test_a_created_container_is_started(case: Case) -> None:
    """What a taken port left in state Created is started once the port is free."""
    port = free_port()
    server = case.server(password="right", port=port, shm_size="64m")
    case.by_hand("--restart", "unless-stopped", "-e", "POSTGRES_USER=hybridrag", "-e", "POSTGRES_PASSWORD=right", *case.labels(server), "-v",
                 f"{case.volume}:/var/lib/postgresql/data", "-p", f"127.0.0.1:{port}:5432", case.image, how="create")  # fmt: skip
    assert server.observe()["state"] == "created"
    server.ensure()
    assert ask(server, "SELECT 1") == 1


@pytest.mark.slow
def test_an_unhealthy_container_is_restarted(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose health check fails and that does not answer is restarted; one that answers is left running."""
    monkeypatch.setattr(docker_container, "_SICK_S", 1)
    monkeypatch.setattr(docker_server, "_SLOW_S", 1.0)
    health = [
        "--health-interval=300ms",
        "--health-retries=1",
        "--health-cmd",
        "pg_isready -q -h 127.0.0.1 -t 1",
    ]
    server = case.server(password="right", shm_size="64m")
    case.by_hand(*health, "-e", "POSTGRES_USER=hybridrag", "-e", "POSTGRES_PASSWORD=right", *case.labels(server), "-v",
                 f"{case.volume}:/var/lib/postgresql/data", "-p", f"127.0.0.1:{free_port()}:5432",
                 "--restart", "unless-stopped", case.image)  # fmt: skip
    server.ensure()
    ask(server, KEEP)
    pid = case.inspect()["State"]["Pid"]
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: server.observe()["state"] == "unhealthy")
    os.kill(pid, signal.SIGCONT)
    server.ensure()
    assert case.inspect()["State"]["Pid"] == pid
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: server.observe()["state"] == "unhealthy")
    server.ensure()
    assert case.inspect()["State"]["Pid"] != pid
    assert kept(server)
