"""One Postgres cluster on the disk and the programs that work on it: initdb, pg_ctl, psql, postgres --single.

Called by `embedded.py`, which holds the lock and decides what is wanted; here is how it is done. Nothing
here may put a password into an argument list, a log or an error.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from hybridrag.errors import BackendUnavailable
from hybridrag.model.said import MOST
from hybridrag.model.secret import Secret

from .embedded_account import run
from .embedded_files import Postmaster, forget_stranger
from .embedded_place import HOST, INCLUDE, SETTINGS_FILE, Place
from .server_files import sync_folder, write_file

_SETTINGS = """\
# Rewritten by hybridrag at every start. Your own settings go below the include line of postgresql.conf.
listen_addresses = '{host}'
port = {port}
unix_socket_directories = ''
cluster_name = '{name}'
password_encryption = 'scram-sha-256'
max_connections = 100
shared_buffers = '256MB'
max_wal_size = '4GB'
checkpoint_timeout = '15min'
log_checkpoints = off
# No replica and no archive: loading a table made in the same transaction needs no WAL.
wal_level = 'minimal'
max_wal_senders = 0
jit = off
timezone = 'UTC'
log_timezone = 'UTC'
logging_collector = off
# A query whose client has died stops, instead of holding its locks to the end.
client_connection_check_interval = '2s'
dynamic_shared_memory_type = '{shared_memory}'
"""

# A container's usual /dev/shm of 64 MB makes a parallel build of an HNSW index fail with "disk full".
_ENOUGH_SHARED_MEMORY = 1 << 30

_LOG_LIMIT = 16 << 20

# What passes by itself: the server before this one is still going down, or another start was quicker.
_PASSING = ("lock file", "shared memory block", "is still in use", "could not bind", "did not start in time")
_PASSING_SQL = (
    "the database system is",
    "Connection refused",
    "closed the connection",
    "terminating connection",
)
_WRONG_PASSWORD = "password authentication failed"  # noqa: S105  # the server's words, not a password


class NotYet(BackendUnavailable):
    """May succeed in a moment; the caller meets it when the time is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The cluster at `place`; the server writes `log`, and may take `wait_s` to start or stop.

    `holding` is the descriptor of the lock: programs that write without a server get it too, so that the
    lock outlives us if we are killed while they work. The server must not, it would keep the lock for ever.
    """

    place: Place
    log: Path
    wait_s: float
    holding: int

    def create(self, *, user: str, password: Secret) -> None:
        """initdb with `user` as its superuser. `data` appears complete, or not at all."""
        draft = self.place.data.with_name("data.new")
        password_file = self.place.data.with_name("initdb.password")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        if self.place.account is not None:
            self.place.account.give(draft)
        try:
            write_file(password_file, password.reveal() + "\n", owner=self.place.owner)
            self._initdb(draft, user=user, password_file=password_file)
            main = draft / "postgresql.conf"
            text = main.read_text(encoding="utf-8")
            write_file(main, f"{text}\n{INCLUDE}\n", owner=self.place.owner)
            password_file.unlink()
            draft.rename(self.place.data)
        except BaseException:
            password_file.unlink(missing_ok=True)
            shutil.rmtree(draft, ignore_errors=True)  # a full disk gets its room back
            raise
        sync_folder(self.place.data.parent)

    def _initdb(self, draft: Path, *, user: str, password_file: Path) -> None:
        """Sorts by bytes (fast, and the same on every machine) but knows the letters of UTF-8 if it can."""
        for letters in ("C.UTF-8", "C"):
            done = run(
                self.place.binaries.program("initdb"),
                *("-D", str(draft), "-U", user, f"--pwfile={password_file}"),
                *("--auth-local=scram-sha-256", "--auth-host=scram-sha-256", "--data-checksums"),
                *("-E", "UTF8", "--locale=C", f"--lc-ctype={letters}", "--no-instructions"),
                account=self.place.account,
                holding=self.holding,
            )
            if done.returncode == 0:
                return
            if "invalid locale" not in done.stderr:
                break
        raise BackendUnavailable(
            f'initdb could not create "{self.place.data}":\n{_indent(done.stderr)}',
            hint="correct what it says, then: hybridrag apply",
        )

    def postmaster(self) -> Postmaster | None:
        return Postmaster.read(self.place.data)

    def start(self, *, name: str, port: int) -> None:
        """Starts the server and returns when it takes logins; it lives on without us.

        NotYet when another try may succeed.
        """
        settings = _SETTINGS.format(
            host=HOST,
            port=port,
            name=f"hybridrag-{re.sub(r'[^A-Za-z0-9._-]', '_', name)[:40]}",
            shared_memory=_shared_memory(),
        )
        write_file(self.place.data / SETTINGS_FILE, settings, owner=self.place.owner)
        if (postmaster := self.postmaster()) is not None:
            forget_stranger(self.place.data, postmaster)
        if self.log.exists() and self.log.stat().st_size > _LOG_LIMIT:
            self.log.replace(self.log.with_suffix(".log.1"))
        if not self.log.exists():
            write_file(self.log, "")
        with self.log.open("ab") as log:
            before = log.tell()
            done = self._pg_ctl("start", "-t", str(max(1, round(self.wait_s))), log=log)
        if done.returncode == 0:
            return
        with self.log.open("rb") as log:
            log.seek(before)
            said = log.read().decode(errors="replace")
        problem = NotYet if any(words in said for words in _PASSING) else BackendUnavailable
        raise problem(
            f"the embedded Postgres does not start:\n{_indent(said)}",
            where=str(self.log),
            hint="correct what the log says, then: hybridrag apply",
        )

    def stop(self) -> None:
        """Ends open connections and stops the server; returns when it is down."""
        postmaster = self.postmaster()
        if postmaster is None or not postmaster.alive:
            return
        done = self._pg_ctl("stop", "-m", "fast", "-t", str(max(1, round(self.wait_s))))
        postmaster = self.postmaster()
        if done.returncode != 0 and postmaster is not None and postmaster.alive:
            raise BackendUnavailable(
                f"the embedded Postgres (process {postmaster.pid}) does not stop within {self.wait_s:g} s:\n"
                f"{_indent(done.stderr)}",
                where=str(self.log),
                hint="end what it is busy with, then run the command again",
            )

    def ensure_database(self, database: str, *, port: int, user: str, password: Secret) -> None:
        """Logs in as `user`, and creates `database` and its extension if absent.

        A login that is refused is put right from inside (`postgres --single`, so the server restarts):
        the spec names a new user or password, or the password file was lost. NotYet as in `start`.
        """
        look = "SELECT 1 FROM pg_extension WHERE extname = 'vector'"
        login = {"PGPORT": str(port), "PGUSER": user, "PGPASSWORD": password.reveal()}
        done = self._psql(database, look, login)
        if _WRONG_PASSWORD in done.stderr:
            self._admit(user, password)
            raise NotYet(f'the embedded Postgres refuses user "{user}", although it was told the password')
        if done.returncode == 0 and done.stdout.strip() == "1":
            return
        find = f"SELECT 1 FROM pg_database WHERE datname = {_literal(database)}"
        if not self._sql("postgres", find, login):
            self._sql("postgres", f"CREATE DATABASE {_identifier(database)}", login)
        self._sql(database, "CREATE EXTENSION IF NOT EXISTS vector", login)

    def _sql(self, database: str, statement: str, login: Mapping[str, str]) -> str:
        done = self._psql(database, statement, login)
        if done.returncode == 0:
            return done.stdout.strip()
        problem = NotYet if any(words in done.stderr for words in _PASSING_SQL) else BackendUnavailable
        raise problem(
            f"the embedded Postgres refuses: {statement}\n{_indent(done.stderr)}",
            where=str(self.log),
            hint="correct what it says, then: hybridrag apply",
        )

    def _psql(
        self, database: str, statement: str, login: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        # By variables, not by arguments: those show in `ps`, and a database named "a=b" would be parsed.
        return run(
            self.place.binaries.program("psql"),
            *("-X", "-w", "-q", "-A", "-t", "-c", statement),
            account=None,  # ours: the account's other processes may read its environment
            env={"PGHOST": HOST, "PGDATABASE": database, "PGCONNECT_TIMEOUT": "5", **login},
            timeout=self.wait_s,
        )

    def _admit(self, user: str, password: Secret) -> None:
        """Makes `user` a superuser with this password, with the server down and so without any login."""
        self.stop()
        name = _identifier(user)
        done = run(
            self.place.binaries.program("postgres"),
            *("--single", "postgres"),
            account=self.place.account,
            env={"PGDATA": str(self.place.data)},
            cwd=self.place.data,
            # The first line keeps the others out of any error message; the second fails if the role exists.
            text="SET log_min_error_statement = panic\n"
            f"CREATE ROLE {name}\n"
            f"ALTER ROLE {name} SUPERUSER LOGIN PASSWORD {_literal(password.reveal())}\n",
            holding=self.holding,
        )
        errors = [
            line for line in done.stderr.splitlines() if "ERROR:" in line and "already exists" not in line
        ]
        if errors or done.returncode != 0:
            raise BackendUnavailable(
                f'the embedded Postgres cannot give user "{user}" its password:\n{_indent(chr(10).join(errors))}',
                where=str(self.place.data),
                hint="correct what it says, then: hybridrag apply",
            )

    def _pg_ctl(self, *args: str, log: IO[bytes] | None = None) -> subprocess.CompletedProcess[str]:
        # The folder by PGDATA, not by -D: pg_ctl builds a shell line, where a "$" of the path would expand.
        return run(
            self.place.binaries.program("pg_ctl"),
            *args,
            *("-w", "-s"),
            account=self.place.account,
            env={"PGDATA": str(self.place.data)},
            cwd=self.place.data,
            log=log,
        )


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _indent(said: str) -> str:
    """The last lines of what a program said, set off from our own words."""
    return "\n".join(f"    {line[:MOST]}" for line in said.strip().splitlines()[-8:])


def _shared_memory() -> str:
    try:
        room = os.statvfs("/dev/shm")  # noqa: S108  # asked for its size, nothing is put there by us
    except OSError:
        return "posix"  # no such folder on macOS, where Postgres does not need it
    return "posix" if room.f_blocks * room.f_frsize >= _ENOUGH_SHARED_MEMORY else "mmap"
