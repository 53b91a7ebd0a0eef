"""`writer.kind: docker`: a container is stopped and started.

A container that was stopped by hand is not started again by its restart policy, only by somebody, or (policy `always`) with
the engine; so the policy stays as it is, and the container is looked at once more before the switch.
"""

from __future__ import annotations

import asyncio
import contextlib
import posixpath
import time
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from hybridrag.adapters.env_file import EnvFile, Surroundings
from hybridrag.backends.postgres.docker_engine import engine, explanation, last_words
from hybridrag.errors import BackendUnavailable, PlanRefused
from hybridrag.model.selection import Selection
from hybridrag.model.storages import storages_of

_LOOK_S, _STAYS_S = 0.2, 3.0


class DockerHalter:
    """See `model.services.Halter`. After `timeout_s` the engine kills what does not stop."""

    def __init__(
        self, database: str, *, container: str, env_file: tuple[Path, str] | None, timeout_s: int
    ) -> None:
        self._database = database
        self._container = container
        self._timeout_s = timeout_s
        self._stopped: str | None = None
        self._file = (
            None
            if env_file is None
            else EnvFile(env_file[0], key=env_file[1], surroundings=self._surroundings)
        )

    async def pause(self) -> str:
        return await asyncio.to_thread(self._pause)

    def _pause(self) -> str:
        with _asked(self._database) as client:
            told = self._inspect(client)
            if told["HostConfig"].get("AutoRemove") and told["State"]["Running"]:
                raise PlanRefused(
                    f'the container "{self._container}" would be removed when it stops (docker run --rm)',
                    hint="start it without --rm, then: hybridrag apply",
                )
            if self._file is not None:
                self._file.check()
            self._stop(client)
        return f'the container "{self._container}" is stopped'

    def _stop(self, client: Any) -> None:
        client.stop(self._container, timeout=self._timeout_s)
        state = self._inspect(client)["State"]
        if _up(state):
            raise PlanRefused(
                f'the container "{self._container}" was stopped, but it is {state["Status"]} again',
                hint="see what starts it (docker events), then: hybridrag apply",
            )
        self._stopped = state["StartedAt"]

    @contextlib.contextmanager
    def sealed(self) -> Iterator[None]:
        with _asked(self._database) as client:
            state = self._inspect(client)["State"]
        if _up(state) or state["StartedAt"] != self._stopped:
            raise PlanRefused(
                f'the container "{self._container}" was started while it had to stand; nothing was switched',
                hint="see what started it (docker events), then: hybridrag apply",
            )
        yield

    async def resume(self, selection: Selection) -> str | None:
        return await asyncio.to_thread(self._resume, selection)

    def _resume(self, selection: Selection) -> str | None:
        with _asked(self._database) as client:
            told = self._inspect(client)
            self._refuse_fixed(told, selection)
            changed = self._file is not None and self._file.bring(selection)
            if changed and _up(told["State"]):
                self._stop(client)
            if changed or not _up(told["State"]):
                client.start(self._container)
            self._see_it_stay(client)
        return None if self._file is None or not selection.secrets else self._file.exposed()

    def _refuse_fixed(self, told: Mapping[str, Any], selection: Selection) -> None:
        given = _given(told)
        for name, wanted in storages_of(selection).items():
            if given.get(name, wanted) != wanted:
                raise PlanRefused(
                    f'the container "{self._container}" was made with {name}={given[name]}, which nothing can change '
                    f"while it lasts; {wanted} serves now",
                    hint=f"make it anew without {name}, with its .env mounted, and name that as writer.env_file",
                )

    def _see_it_stay(self, client: Any) -> None:
        """Running for a while, and healthy where it says so."""
        state = self._inspect(client)["State"]
        since, began = time.monotonic(), state["StartedAt"]
        while True:
            health = (state.get("Health") or {}).get("Status")
            if not state["Running"] or state["Restarting"] or state["StartedAt"] != began:
                said = last_words(client, self._container, 3)
                raise PlanRefused(
                    f'the container "{self._container}" does not stay up: {state["Status"]}, '
                    f"exit code {state['ExitCode']}\n{said}",
                    hint=f"docker logs {self._container}",
                )
            waited = time.monotonic() - since
            if health == "healthy" or (health in (None, "none") and waited > _STAYS_S):
                return
            if health == "unhealthy" or waited > max(self._timeout_s, _STAYS_S):
                raise PlanRefused(
                    f'the container "{self._container}" runs, but its health check says {health}',
                    hint=f"docker logs {self._container}",
                )
            time.sleep(_LOOK_S)
            state = self._inspect(client)["State"]

    async def withdraw(self) -> None:
        await asyncio.to_thread(self._withdraw)

    def _withdraw(self) -> None:
        with _asked(self._database) as client:
            self._stop(client)
        if self._file is not None:
            self._file.put_back()

    def _inspect(self, client: Any) -> Any:
        from docker.errors import NotFound

        try:
            return client.inspect_container(self._container)
        except NotFound:
            raise PlanRefused(
                f'databases.{self._database}.writer.container: there is no container "{self._container}"',
                hint="docker ps -a lists them",
            ) from None

    def _surroundings(self) -> Surroundings:
        with _asked(self._database) as client:
            told = self._inspect(client)
        mounts = [
            (each["Source"], each["Destination"]) for each in told.get("Mounts", ()) if each.get("Source")
        ]

        def seen(path: str) -> str | None:
            for source, destination in sorted(mounts, key=lambda each: -len(each[0])):
                if path == source or path.startswith(source.rstrip("/") + "/"):
                    return posixpath.normpath(f"{destination}/{path[len(source) :]}")
            return None

        return Surroundings(
            folder=PurePosixPath(told["Config"].get("WorkingDir") or "/"), seen=seen, given=_given(told)
        )


def _up(state: Mapping[str, Any]) -> bool:
    return bool(state["Running"] or state["Restarting"] or state.get("Paused"))


def _given(told: Mapping[str, Any]) -> dict[str, str]:
    """The variables that the container was made with."""
    pairs = (each.partition("=") for each in told["Config"].get("Env") or ())
    return {name: value for name, _, value in pairs}


@contextlib.contextmanager
def _asked(database: str) -> Iterator[Any]:
    """A client; what the engine refuses is about the writer here."""
    from docker.errors import APIError

    try:
        with engine() as client:
            try:
                yield client
            except APIError as error:
                raise PlanRefused(
                    f'the writer of "{database}": Docker refuses: {explanation(error)}',
                    hint="correct what it says, then: hybridrag apply",
                ) from error
    except BackendUnavailable as error:
        raise PlanRefused(
            f'the writer of "{database}": {error.what}', hint="docker info shows it; then: hybridrag apply"
        ) from error
