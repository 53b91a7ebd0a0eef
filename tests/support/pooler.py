"""PgBouncer as Debian ships it, before a Postgres: `apt-get install pgbouncer`, or its path in HYBRIDRAG_TEST_PGBOUNCER."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hybridrag.backends.postgres.embedded_place import free_port
from tests.conftest import Server


@contextlib.contextmanager
def pgbouncer(server: Server, *, mode: str = "session", **settings: str) -> Iterator[Server]:
    """The same server through a pooler in this mode. What Debian's own file sets stays as it is (auth_type = md5)."""
    program = os.environ.get("HYBRIDRAG_TEST_PGBOUNCER") or shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
    if not Path(program).exists():
        pytest.skip("needs pgbouncer: apt-get install pgbouncer")
    folder = Path(tempfile.mkdtemp(prefix="hybridrag-pgbouncer-"))
    port = free_port()
    told = {
        "listen_addr": "127.0.0.1", "listen_port": port, "auth_type": "md5", "auth_file": folder / "users",
        "pool_mode": mode, "unix_socket_dir": "", "pidfile": folder / "pid", **settings,
    }  # fmt: skip
    lines = "\n".join(f"{name} = {value}" for name, value in told.items())
    (folder / "ini").write_text(
        f"[databases]\n* = host={server.host} port={server.port}\n[pgbouncer]\n{lines}\n"
    )
    (folder / "users").write_text(f'"{server.user}" "{server.password}"\n')
    account: dict[str, Any] = {}
    if os.geteuid() == 0:  # it refuses to run as root
        nobody = pwd.getpwnam("nobody")
        for path in (folder, *folder.iterdir()):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
        account = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    process = subprocess.Popen(
        [program, "-q", str(folder / "ini")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **account
    )
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert process.poll() is None, "pgbouncer ended"
            time.sleep(0.05)
        yield Server("127.0.0.1", port, server.user, server.password)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)
        shutil.rmtree(folder)
