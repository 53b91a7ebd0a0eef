"""A Postgres in a Docker container on this machine: looked at, created, changed, repaired, started, stopped.

Called by the Postgres backend's provisioner (in a thread: everything here blocks). It must not touch a
container or a volume without our labels, must never remove a named volume, publishes
on 127.0.0.1 only, and must not show the password. `observe()` writes nothing and creates nothing.

Every method may be killed at any line; `ensure()` goes on from what it finds. A replacement is made beside
the old container, which keeps its name with `.old` until the new one takes logins, and comes back when it
does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from hybridrag.errors import BackendUnavailable
from hybridrag.model.facts import Facts, Value
from hybridrag.model.room import Room
from hybridrag.model.secret import Secret

from .docker_container import SETTINGS, STOP_S, Form, create, start, tell_password, update
from .docker_engine import engine, last_words, pull
from .docker_facts import (
    Actual,
    Change,
    Wanted,
    compare,
    foreign_volume,
    other_major,
    owned,
)
from .docker_login import Login, Refused, Unready, admit, prepare
from .docker_look import declared, image_of, inspect, look, obstacle
from .docker_room import room_of
from .docker_volume import data_major_of, foreign, sign, superusers
from .embedded_files import Record
from .embedded_place import free_port, is_free
from .server_files import Password, locked
from .spec import DockerProvision, size_bytes

_AGAIN = "hybridrag apply"
_SLOW_S = 5.0


class DockerServer:
    """One container with one role and one database; see `driver.ServerDriver`.

    `home` (`state/<environment>/docker/<backend>`) holds the password (0600) if the spec names none, the
    port that was picked, and a lock. The cluster is in the named volume.
    """

    def __init__(
        self,
        home: Path,
        provision: DockerProvision,
        *,
        environment: str,
        backend: str,
        user: str,
        database: str,
        port: int | None,
        password: Secret | None,
        wait_s: float = 90.0,
    ) -> None:
        self._home = home.absolute()
        self._user = user
        self._database = database
        self._wait_s = wait_s
        self._record_file = self._home / "server.json"
        container = provision.container or f"hybridrag-{environment}-{backend}"
        self._what = f'Postgres container "{container}"'
        self._password = Password(file=self._home / "password", given=password, what=self._what)
        self._wanted = Wanted(
            environment=environment,
            backend=backend,
            container=container,
            image=provision.image,
            volume=provision.volume or f"{container}-data",
            port=port,
            memory=size_bytes(provision.memory) if provision.memory else 0,
            shm_size=size_bytes(provision.shm_size),
            major=None,
            settings=SETTINGS,
        )

    # Looking

    def observe(self) -> Facts:
        facts: dict[str, Value] = {"server": self._what, "port": self._wanted.port or self._remembered()}
        try:
            with engine() as client:
                wanted, actual = look(client, self._wanted)
                change = obstacle(client, wanted) if actual is None else compare(wanted, actual)
                missing = not image_of(client, wanted.image)
        except BackendUnavailable as error:
            return {
                **facts,
                "state": "unknown",
                **_told(Change(kind="refused", problem=error.what, hint=error.hint)),
            }
        if missing and change.kind in ("create", "replace"):
            change = replace(
                change, differs=(*change.differs, f"image {wanted.image} has to be pulled first")
            )
        facts |= {"state": "absent", **_told(change)}
        if actual is not None:
            facts |= {"state": actual.state, "port": actual.port or facts["port"]}
            facts |= {"container": wanted.container, "image": actual.image, "volume": actual.volume}
            facts |= {"health": actual.health, "memory": actual.memory or None}
            facts["restarts"] = (change.kind == "replace" and actual.status == "running") or None
        return facts

    def port(self) -> int | None:
        with suppress(BackendUnavailable), engine() as client:
            if (said := inspect(client, self._wanted.container)) is not None:
                return Actual.read(said).port
        return self._wanted.port or self._remembered()

    def room(self) -> Room | None:
        with suppress(BackendUnavailable), engine() as client:
            return room_of(client, self._wanted)
        return None

    def password(self) -> Secret:
        return self._password.read()

    # Doing

    def ensure(self) -> None:
        with self._at_work() as client:
            password = self._password.keep()
            self._recover(client)
            wanted, actual = look(client, self._wanted)
            change = compare(wanted, actual)
            if actual is None:
                self._create(client, name=wanted.container)
            elif change.kind == "refused":
                raise _refusal(change)
            elif change.kind == "replace":
                return self._replace(client, wanted, actual, password)
            elif change.kind == "update":
                update(client, wanted)
            self._run(client, password)
            return None

    def start(self) -> None:
        with self._at_work() as client:
            self._recover(client)
            wanted, actual = look(client, self._wanted)
            if actual is None:
                raise BackendUnavailable(f"there is no {self._what} yet", hint=_AGAIN)
            change = compare(wanted, actual)
            if change.kind == "refused":
                raise _refusal(change)
            self._run(client, self._password.read())

    def stop(self) -> None:
        with self._at_work() as client:
            wanted, actual = look(client, self._wanted)
            if actual is None or actual.state == "stopped":
                return
            if not owned(wanted, actual):
                raise _refusal(compare(wanted, actual))
            if actual.status == "paused":
                client.unpause(actual.id)
            client.stop(actual.id, timeout=STOP_S)

    # How

    def _remembered(self) -> int | None:
        with suppress(OSError):
            return Record.read(self._record_file).port
        return None

    @contextmanager
    def _at_work(self) -> Iterator[Any]:
        """A client, under the lock; every error says which server, and what to do next."""
        try:
            self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
            with locked(self._home / "lock", wait_s=self._wait_s, what=self._what), engine() as client:
                yield client
        except BackendUnavailable as error:
            error.where = error.where or self._what
            raise
        except OSError as error:
            raise BackendUnavailable(
                f'"{error.filename or self._home}": {error.strerror or error}',
                where=self._what,
                hint=f"correct this, then: {_AGAIN}",
            ) from error

    def _recover(self, client: Any) -> None:
        """Clears up after a replacement that was killed: the old container counts until the new one has run."""
        name = self._wanted.container
        if self._ours(client, f"{name}.new"):
            client.remove_container(f"{name}.new", v=True, force=True)
        if not self._ours(client, f"{name}.old"):
            return
        new = inspect(client, name)
        if new is None:
            client.rename(f"{name}.old", name)
        elif new["State"]["Status"] == "created":
            client.remove_container(name, v=True)
            client.rename(f"{name}.old", name)
        else:
            client.remove_container(f"{name}.old", v=True)

    def _ours(self, client: Any, container: str) -> bool:
        said = inspect(client, container)
        return said is not None and owned(self._wanted, Actual.read(said))

    def _create(
        self, client: Any, *, name: str, port: int | None = None, before: Actual | None = None
    ) -> None:
        """Makes the container, not started. `port`: the one that its predecessor, `before`, will leave to it."""
        wanted = self._wanted
        if not image_of(client, wanted.image):
            pull(client, wanted.image)
        wanted = declared(client, wanted)
        if port is None and (change := obstacle(client, wanted)).kind == "refused":
            raise _refusal(change)
        # On existing data the first user is of no effect, but says who may let others in.
        first = superusers(client, wanted, before)[0] if before is not None else self._user
        form = Form(user=first, database=self._database, port=wanted.port or port or self._pick_port())
        create(client, name, wanted, form, self._password.read())
        made = Actual.read(inspect(client, name))  # it does not run yet, and lets everybody look into its volume
        data_major, change = data_major_of(client, wanted, made), None
        if whose := foreign(client, wanted, before if before and before.volume == wanted.volume else made):
            change = foreign_volume(wanted, whose)
        elif wanted.major and data_major and data_major != wanted.major:
            change = other_major(wanted, data_major)
        if change is not None:
            client.remove_container(name, v=True)
            raise _refusal(change)

    def _pick_port(self) -> int:
        remembered = self._remembered()
        return remembered if remembered is not None and is_free(remembered) else free_port()

    def _replace(self, client: Any, wanted: Wanted, actual: Actual, password: Secret) -> None:
        """Another container on the same volume. What can fail is done before the old one stops."""
        name = wanted.container
        kept = actual.port if actual.port and not actual.port_taken else self._pick_port()
        self._create(client, name=f"{name}.new", port=kept, before=actual)
        if actual.status == "paused":
            client.unpause(actual.id)
        client.stop(actual.id, timeout=STOP_S)
        client.rename(actual.id, f"{name}.old")
        client.rename(f"{name}.new", name)
        try:
            self._run(client, password)
        except Exception as error:  # of Docker's own as well: nothing may keep the old one from coming back
            client.remove_container(name, v=True, force=True)
            client.rename(f"{name}.old", name)
            if actual.status == "running":
                client.start(name)
                if isinstance(error, BackendUnavailable):
                    error.what += "; the container before it is back and serves"
            raise
        client.remove_container(f"{name}.old", v=True)

    def _run(self, client: Any, password: Secret) -> None:
        """Makes the container run, and returns when its database takes our login."""
        wanted, name = self._wanted, self._wanted.container
        said = inspect(client, name)
        actual = Actual.read(said)
        record = Record(port=actual.port)
        record.write(self._record_file)
        login = Login(
            name=wanted.backend,
            port=actual.port or 0,
            user=self._user,
            database=self._database,
            password=password,
        )
        restarts = int(said.get("RestartCount") or 0)

        def alive() -> None:
            state = inspect(client, name)
            now = Actual.read(state)
            if (
                now.status in ("running", "restarting")
                and int(state.get("RestartCount") or 0) <= restarts + 2
            ):
                return
            words = last_words(client, name).replace(password.reveal(), "***")
            raise BackendUnavailable(
                f"it does not stay up ({now.status}, exit code {state['State'].get('ExitCode')}); its last words:\n{words}",
                hint=f"docker logs {name} tells more; correct what it says, then: {_AGAIN}",
            )

        if actual.state == "unhealthy":  # perhaps only slow: connections tell
            with suppress(Unready):
                self._admitted(client, actual, login, alive, wait_s=_SLOW_S)
                return
        if actual.status in ("created", "exited", "restarting"):
            tell_password(client, name, password)  # a kill after it was made may have come before this
        start(client, wanted, actual)
        self._admitted(client, actual, login, alive, wait_s=self._wait_s)

    def _admitted(
        self, client: Any, actual: Actual, login: Login, alive: Callable[[], None], *, wait_s: float
    ) -> None:
        try:
            prepare(login, alive=alive, wait_s=wait_s)
        except Refused:
            admit(client, self._wanted.container, login, superusers(client, self._wanted, actual))
            prepare(login, alive=alive, wait_s=wait_s)
        sign(client, self._wanted, actual)


def _told(change: Change) -> dict[str, Value]:
    """A change in the words of `driver.DECISIVE`."""
    return {
        "change": change.kind if change.kind in ("update", "replace", "refused") else None,
        "differs": "; ".join(change.differs) or None,
        "refusal": change.problem,
        "way_out": change.hint,
        "leaves": change.leaves,
    }


def _refusal(change: Change) -> BackendUnavailable:
    return BackendUnavailable(change.problem or "refused", hint=change.hint)
