"""A Postgres with Apache AGE and pgvector: the one that is named, or Debian's in a folder of its own.

`HYBRIDRAG_TEST_AGE_URL` names a server (a superuser's URL). Otherwise root with debootstrap gets one: Debian trixie
carries both extensions; its packages are unpacked once below `HYBRIDRAG_TEST_AGE` (default: a folder in /var/tmp)
and every test run starts a cluster of its own in there.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from hybridrag.backends.postgres.embedded_place import free_port

ROOT = Path(os.environ.get("HYBRIDRAG_TEST_AGE", "/var/tmp/hybridrag-test-age"))
SUITE = "trixie"
PACKAGES = "postgresql-17,postgresql-17-pgvector,postgresql-17-age"
BIN = "/usr/lib/postgresql/17/bin"
_numbers = itertools.count()


def _system() -> Path:
    """The folder that holds Debian with the packages; made once, whoever asks at the same time."""
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        pytest.skip("needs Apache AGE: set HYBRIDRAG_TEST_AGE_URL, or be root with debootstrap")
    ROOT.mkdir(parents=True, exist_ok=True)
    system = ROOT / SUITE
    with (ROOT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (system / BIN[1:] / "initdb").exists():
            begun = ROOT / f"{SUITE}.begun"
            shutil.rmtree(begun, ignore_errors=True)
            done = subprocess.run(
                ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(begun)],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                pytest.skip(f"needs Apache AGE; debootstrap says: {done.stdout.strip()[-300:]}")
            begun.rename(system)
    return system


@contextlib.contextmanager
def _cluster(system: Path, password: str) -> Iterator[int]:
    """Port of a cluster that lives as long as the block."""
    place = f"/var/lib/postgresql/test-{os.getpid()}-{time.monotonic_ns()}"
    folder = system / place[1:]

    def program(*argv: str) -> None:
        done = subprocess.run(
            ["chroot", "--userspec=postgres:postgres", str(system), *argv],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout

    folder.mkdir(parents=True)
    shutil.copystat(system / "var/lib/postgresql", folder)
    owner = (system / "var/lib/postgresql").stat()
    (folder / "word").write_text(password)
    for path in (folder, folder / "word"):
        os.chown(path, owner.st_uid, owner.st_gid)
    port = free_port()
    settings = (
        f"-p {port} -k {place} -c listen_addresses=127.0.0.1 -c fsync=off -c dynamic_shared_memory_type=mmap"
    )
    try:
        program(
            *(f"{BIN}/initdb", "-D", f"{place}/data", "-U", "tester", "--auth=scram-sha-256", "-E", "UTF8"),
            *(f"--pwfile={place}/word", "--no-sync"),
        )
        program(f"{BIN}/pg_ctl", "-D", f"{place}/data", "start", "-w", "-l", f"{place}/log", "-o", settings)
        try:
            yield port
        finally:
            program(f"{BIN}/pg_ctl", "-D", f"{place}/data", "stop", "-m", "immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def age_server() -> Iterator[object]:
    """The run's Postgres with Apache AGE; tests skip with the reason where none can be had."""
    from tests.conftest import Server

    if url := os.environ.get("HYBRIDRAG_TEST_AGE_URL"):
        parts = urlsplit(url)
        yield Server(
            parts.hostname or "127.0.0.1", parts.port or 5432, parts.username or "", parts.password or ""
        )
        return
    with _cluster(_system(), "word") as port:
        yield Server("127.0.0.1", port, "tester", "word")


@pytest.fixture
async def age_database(age_server: object) -> AsyncIterator[str]:
    """Name of a fresh, empty database on it, as an administrator prepares it."""
    name = f"t{os.getpid()}_{next(_numbers)}"
    url = age_server.dsn(name)  # type: ignore[attr-defined]
    admin = await asyncpg.connect(age_server.dsn("postgres"))  # type: ignore[attr-defined]
    try:
        await admin.execute(f"CREATE DATABASE {name}")
        await admin.execute(f"ALTER DATABASE {name} SET session_preload_libraries = 'age'")
        opened = await asyncpg.connect(url)
        await opened.execute("CREATE EXTENSION age")
        await opened.close()
        yield name
        await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    finally:
        await admin.close()
