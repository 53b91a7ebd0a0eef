"""Debian's Postgres, which has no pgvector: a throwaway cluster on TCP and a unix socket, with TLS where wanted."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hybridrag.backends.postgres.embedded_place import free_port


@dataclass(frozen=True, slots=True)
class Plain:
    """`folder` holds the socket. The superuser is "owner"."""

    port: int
    folder: Path
    password: str

    def reconfigure(self, hba: str) -> None:
        (self.folder / "data" / "pg_hba.conf").write_text(hba)
        pid = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(pid, 1)


@contextlib.contextmanager
def plain_postgres(password: str, *, certificate: bytes | None = None) -> Iterator[Plain]:
    """Started and stopped here. `certificate` is key and certificate in PEM; with it TLS is offered."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found or list(Path("/usr/share/postgresql").glob("*/extension/vector.control")):
        pytest.skip("needs a Postgres without pgvector: apt-get install postgresql")
    bin_folder = found[-1].parent
    folder = Path(tempfile.mkdtemp(prefix="hybridrag-plain-"))
    account: dict[str, Any] = {}
    options = f"-k {folder} -c listen_addresses=127.0.0.1,::1 -c fsync=off"
    word = folder / "word"
    word.write_text(password)
    if certificate is not None:
        (folder / "tls.pem").write_bytes(certificate)
        (folder / "tls.pem").chmod(0o600)
        options += f" -c ssl=on -c ssl_cert_file={folder}/tls.pem -c ssl_key_file={folder}/tls.pem"
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        for path in (folder, *folder.iterdir()):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
        account = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    port = free_port()

    def program(name: str, *args: str) -> None:
        subprocess.run(
            [str(bin_folder / name), "-D", str(folder / "data"), *args],
            cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, timeout=60, **account,
        )  # fmt: skip

    try:
        program(
            "initdb", "-U", "owner", "--auth=scram-sha-256", f"--pwfile={word}", "-E", "UTF8", "--no-sync"
        )
        program("pg_ctl", "start", "-w", "-l", str(folder / "log"), "-o", f"-p {port} {options}")
        try:
            yield Plain(port, folder, password)
        finally:
            program("pg_ctl", "stop", "-m", "immediate")
    finally:
        shutil.rmtree(folder)
