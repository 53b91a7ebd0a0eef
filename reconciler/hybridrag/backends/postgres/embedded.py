"""A Postgres of our own on this machine: created, started, looked at and stopped, without Docker.

Called by the Postgres backend's provisioner (in a thread: everything here blocks). It must not touch a
server it did not create, must not listen anywhere but on 127.0.0.1, and must not show the password: no
argument list, no log, no error holds it. `observe()` writes nothing and starts nothing.

Every method may be killed at any line; `ensure()` goes on from what it finds. What makes this true: the
password is on the disk before initdb uses it, initdb works in `data.new` which becomes `data` by a rename,
and the lock outlives us for as long as an initdb of ours does.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_incrementing

from hybridrag.errors import BackendUnavailable
from hybridrag.model.room import Room
from hybridrag.model.secret import Secret

from .embedded_account import passable_folder
from .embedded_cluster import Cluster, NotYet
from .embedded_files import Postmaster, Record
from .embedded_place import (
    Place,
    coming_data,
    existing_place,
    find_data,
    foreign,
    free_port,
    is_free,
    new_place,
)
from .server_files import Password, locked

_AGAIN = "hybridrag apply"
_WHAT = "embedded Postgres"


class EmbeddedServer:
    """One cluster with one role and one database.

    `home` (`state/<environment>/embedded/<backend>`) holds the password (0600), server.json, server.log
    and, if the account that runs the server may go there, the cluster in `data`. `port` None: pick a free
    one and keep it. `password` None: make one and keep it. `wait_s`: how long a start may take.

    All methods raise BackendUnavailable with the next command to run; only `observe` never raises.
    """

    def __init__(
        self,
        home: Path,
        *,
        user: str,
        database: str,
        port: int | None,
        password: Secret | None,
        wait_s: float = 30.0,
    ) -> None:
        self.home = home.absolute()
        self._user = user
        self._database = database
        self._port = port
        self._wait_s = wait_s
        self._record_file = self.home / "server.json"
        self._password = Password(file=self.home / "password", given=password, what=_WHAT)
        self._lock_file = self.home / "lock"

    # Looking

    def observe(self) -> dict[str, str | int | None]:
        """`state` (absent, stopped, running, broken), `port`, `pid`, `version`, `data_dir`, `detail`.

        None means absent. `port` is the real one while running, else the one that is remembered; `detail`
        says why it is broken. Nobody logs in: a wrong password is found by `ensure` only.
        """
        record, pid = Record(), None
        try:
            record = Record.read(self._record_file)
            data = find_data(self.home, record)
            if data is None:
                return _facts("absent", record)
            record = replace(record, data_dir=str(data))
            if (problem := foreign(data)) is not None:
                return _facts("broken", record, detail=problem)
            postmaster = Postmaster.read(data)
            if postmaster is None or not postmaster.alive:
                return _facts("stopped", record)
            record, pid = replace(record, port=postmaster.port), postmaster.pid
            if postmaster.accepts():
                return _facts("running", record, pid=pid)
            return _facts("broken", record, pid=pid, detail="runs, but does not take connections")
        except BackendUnavailable as error:
            return _facts("broken", record, pid=pid, detail=error.what)
        except OSError as error:
            return _facts("broken", record, pid=pid, detail=f'"{error.filename}": {error.strerror}')

    def port(self) -> int | None:
        port = self.observe()["port"]
        return port if isinstance(port, int) else None

    def room(self) -> Room | None:
        try:
            data = find_data(self.home, Record.read(self._record_file)) or coming_data(self.home)
        except (BackendUnavailable, OSError):
            return None
        return Room.holding(data)

    def password(self) -> Secret:
        """The given password, or the one that was made and is kept in `home`."""
        return self._password.read()

    # Doing

    def ensure(self) -> None:
        """Creates the cluster, starts it, adds role, database and extension: whatever is missing."""
        with self._told():
            self.home.parent.mkdir(parents=True, exist_ok=True)
            passable_folder(self.home)
            with self._locked() as holding:
                password = self._password.keep()
                cluster = self._existing(holding) or self._created(holding, password)
                for attempt in self._patiently():
                    with attempt:
                        port = self._running(cluster)
                        cluster.ensure_database(self._database, port=port, user=self._user, password=password)

    def start(self) -> None:
        """Starts the existing cluster, on the port it should have; a running one stays as it is."""
        with self._told():
            if not self.home.is_dir():
                raise BackendUnavailable("there is no embedded Postgres here yet", hint=_AGAIN)
            with self._locked() as holding:
                cluster = self._existing(holding)
                if cluster is None:
                    raise BackendUnavailable("there is no embedded Postgres here yet", hint=_AGAIN)
                for attempt in self._patiently():
                    with attempt:
                        self._running(cluster)

    def stop(self) -> None:
        """Stops the server; open connections are ended, nothing is lost. Absent or stopped is fine."""
        with self._told():
            if not self.home.is_dir():
                return
            with self._locked() as holding:
                cluster = self._existing(holding)
                if cluster is not None:
                    cluster.stop()

    # How

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Gives every error the words a user needs: which server, and what to do next."""
        try:
            yield
        except BackendUnavailable as error:
            error.where = error.where or str(self.home)
            raise
        except OSError as error:
            raise BackendUnavailable(
                f'embedded Postgres: "{error.filename or self.home}": {error.strerror or error}',
                where=str(self.home),
                hint=f"correct this, then: {_AGAIN}",
            ) from error
        except subprocess.TimeoutExpired:
            # Not chained: it carries the child's argument list and output.
            raise BackendUnavailable(
                f"the embedded Postgres does not answer within {self._wait_s:g} s",
                where=str(self.home / "server.log"),
                hint=f"see what the log says, then: {_AGAIN}",
            ) from None

    def _locked(self) -> AbstractContextManager[int]:
        return locked(self._lock_file, wait_s=self._wait_s, what=_WHAT)

    def _patiently(self) -> Retrying:
        return Retrying(
            retry=retry_if_exception_type(NotYet),
            wait=wait_incrementing(start=0.2, increment=0.2, max=1.0),
            stop=stop_after_delay(self._wait_s),
            reraise=True,
        )

    def _existing(self, holding: int) -> Cluster | None:
        data = find_data(self.home, Record.read(self._record_file))
        return None if data is None else self._cluster(existing_place(data), holding)

    def _created(self, holding: int, password: Secret) -> Cluster:
        cluster = self._cluster(new_place(self.home), holding)
        cluster.create(user=self._user, password=password)
        return cluster

    def _cluster(self, place: Place, holding: int) -> Cluster:
        log = self.home / "server.log"
        return Cluster(place=place, log=log, wait_s=self._wait_s, holding=holding)

    def _running(self, cluster: Cluster) -> int:
        """Makes the server run on the port it should have; returns that port. One try: NotYet asks for more."""
        postmaster = cluster.postmaster()
        current = postmaster.port if postmaster is not None and postmaster.alive else None
        if postmaster is not None and postmaster.alive and not postmaster.accepts():
            raise NotYet(
                f"the embedded Postgres (process {postmaster.pid}) runs, but does not take connections",
                where=str(cluster.log),
                hint=f"see what the log says, then: {_AGAIN}",
            )
        record = Record.read(self._record_file)
        if current is not None and self._port in (None, current):
            port = current
        elif self._port is None:
            port = record.port if record.port is not None and is_free(record.port) else free_port()
        elif is_free(self._port):
            port = self._port
        elif (again := cluster.postmaster()) is not None and again.alive and again != postmaster:
            raise NotYet("the embedded Postgres is being started by someone else")
        else:
            raise BackendUnavailable(
                f"port {self._port} is taken by another program, the embedded Postgres cannot have it",
                hint=f"stop that program, or give this backend another port (or none) in the spec; then: {_AGAIN}",
            )
        # A server that goes on running is of the version it was started with, not of the one installed since.
        version = record.version if port == current and record.version else cluster.place.binaries.version
        # Before the start: a kill between the two must not lose the port.
        replace(record, port=port, data_dir=str(cluster.place.data), version=version).write(self._record_file)
        if port != current:
            cluster.stop()
            cluster.start(name=self.home.name, port=port)
        return port


def _facts(
    state: str, record: Record, *, pid: int | None = None, detail: str | None = None
) -> dict[str, str | int | None]:
    return {
        "state": state,
        "port": record.port,
        "pid": pid,
        "version": record.version,
        "data_dir": record.data_dir,
        "detail": detail,
    }
