"""`writer.kind: lightrag-server`: asked over HTTP until it is idle, then stopped; started, and asked what it uses.

What `/health` tells is in `lightrag/api/lightrag_server.py` (1.5.7): whether the pipeline works, to everybody; which storages
serve, to those with its key.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import urlsplit

from hybridrag.adapters.env_file import EnvFile
from hybridrag.errors import HybridragError, PlanRefused
from hybridrag.model.said import said
from hybridrag.model.selection import Selection, Told
from hybridrag.model.storages import STORAGES, storages_of

from .commands import Started, run
from .listeners import alive, listeners

_LOOK_S, _ANSWER_S = 0.25, 5.0
_UNFINISHED = ("pending", "parsing", "analyzing", "preprocessed", "processing")
Health = Mapping[str, Any]


class _Trouble(Exception):
    """It is there, but does not answer as a lightrag-server does; the text says how."""


class ServerHalter:
    """See `model.services.Halter`. `timeout_s`: until it is idle, until it is gone, until it answers again.

    `serving` is what it should be using before it is stopped.
    """

    def __init__(
        self,
        database: str,
        *,
        url: str,
        api_key: Callable[[], str] | None,
        serving: Callable[[], Selection],
        env_file: EnvFile,
        stop: tuple[str, ...],
        start: tuple[str, ...],
        timeout_s: int,
        folder: Path,
        environ: Mapping[str, str],
    ) -> None:
        self._key = f"databases.{database}.writer"
        self._url = url.rstrip("/")
        self._api_key = api_key
        self._file = env_file
        self._commands = {"stop": stop, "start": start}
        self._timeout_s = timeout_s
        self._folder = folder
        self._environ = environ
        self._serving = serving
        self._started: Started | None = None
        self._left_alone = False

    async def pause(self) -> str:
        self._left_alone = True  # then there is nothing to resume either
        self._file.check()
        await self._idle()
        self._left_alone = False
        await self._stop()
        return f"lightrag-server at {self._url} is stopped"

    async def embedding(self) -> Told | None:
        """What it says of its embedding; None where it is not there, or says nothing. Read-only, never raises."""
        return await asyncio.to_thread(self._told)

    def _told(self) -> Told | None:
        """Its key is resolved only where it asks for one."""
        for keyed in (False, True)[: 2 if self._api_key else 1]:
            try:
                told = self._get("/health", keyed=keyed)
            except PlanRefused:  # it wants the key
                continue
            except (HybridragError, _Trouble, OSError):
                return None
            used = told.get("configuration") if isinstance(told, dict) else None
            if isinstance(used, dict) and "embedding_model" in used:
                model = used["embedding_model"]
                return Told(where=f"{self._url}/health", model=str(model) if model else "")
        return None

    async def _idle(self) -> None:
        """Until nothing is worked on. The server is left alone where that does not come."""
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                told = await self._ask()
            except _Trouble as trouble:
                raise self._refused(f"{trouble}; it was left running") from None
            if told is None:
                return
            if "configuration" not in told:
                raise self._refused(
                    "it does not tell what it uses; it was left running",
                    hint=f"give its LIGHTRAG_API_KEY: {self._key}.api_key: {{env: …}}",
                )
            if (differs := _differs(told, self._serving())) is not None:
                raise self._refused(
                    f"{differs}; it was left running",
                    hint=f"see whether {self._key}.url is the server of this database (in a container: kind: docker)",
                )
            if not told.get("pipeline_active", told.get("pipeline_busy")):
                return
            if time.monotonic() > deadline:
                raise self._refused(
                    f"its pipeline was not idle within {self._timeout_s} s; it was left running",
                    hint=f"wait until it has worked off its documents, or raise {self._key}.timeout",
                )
            await asyncio.sleep(_LOOK_S)

    async def _stop(self) -> None:
        """Returns when it does not answer any more, and its processes (where they can be seen) are gone."""
        deadline = time.monotonic() + self._timeout_s
        silent = await self._silent()
        running = await asyncio.to_thread(self._listeners)
        argv = self._commands["stop"]
        ended = await run(
            f"{self._key}.stop",
            argv,
            timeout_s=self._timeout_s,
            folder=self._folder,
            environ=self._environ,
            limit=f"{self._key}.timeout",
        )
        if ended.code != 0 and not silent:  # what does not run cannot be stopped
            raise self._refused(f'"{argv[0]}" {ended}', hint=f"correct {self._key}.stop in the spec")
        while not await self._silent() or any(map(alive, running)):
            if time.monotonic() > deadline:
                raise self._refused(
                    f"it still runs {self._timeout_s} s after it was stopped",
                    hint=f"correct {self._key}.stop in the spec, then: hybridrag apply",
                )
            await asyncio.sleep(_LOOK_S)

    def _listeners(self) -> frozenset[int]:
        place = urlsplit(self._url)
        if place.hostname not in ("127.0.0.1", "localhost", "::1"):
            return frozenset()
        return listeners(place.port or (443 if place.scheme == "https" else 80))

    @contextlib.contextmanager
    def sealed(self) -> Iterator[None]:
        try:
            silent = self._look() is None
        except _Trouble:
            silent = False
        if not silent:
            raise self._refused(
                "it was started while it had to stand; nothing was switched",
                hint="see what started it, then: hybridrag apply",
            )
        yield

    async def resume(self, selection: Selection) -> str | None:
        if self._left_alone:
            return None
        changed = self._file.bring(selection)
        if not await self._silent():
            # Not stopped by us, or started by somebody: it is right where it uses what serves.
            told = await self._answering()
            if not changed and _differs(told, selection) is None:
                return None
            await self._stop()
        self._started = Started(f"{self._key}.start", self._commands["start"], self._folder, self._environ)
        told = await self._answering()
        self._started.let_go()
        self._started = None
        if (differs := _differs(told, selection)) is not None:
            raise self._refused(
                f"it was started, but {differs}",
                hint="variables that it is started with win over its .env: take LIGHTRAG_*_STORAGE, WORKSPACE and the "
                "connection's out of them",
            )
        words = [self._file.exposed() if selection.secrets else None, await self._left_over()]
        return "; ".join(each for each in words if each) or None

    async def _left_over(self) -> str | None:
        """Documents that it had taken in, but not worked off, when it was stopped: it only goes on with them when asked."""
        try:
            told = await asyncio.to_thread(self._get, "/documents/status_counts")
            found = told["status_counts"]
            number = sum(found.get(status, 0) for status in _UNFINISHED)
        except (_Trouble, PlanRefused, ConnectionRefusedError, LookupError, TypeError):
            return None
        return (
            f"{number} of its documents wait unfinished; the next upload, or POST {self._url}/documents/reprocess_failed, "
            "goes on with them"
            if number
            else None
        )

    async def _answering(self) -> Health:
        """What it tells as soon as it answers."""
        deadline = time.monotonic() + self._timeout_s
        trouble = "nothing answers there"
        while True:
            ended = self._started.ended() if self._started is not None else None
            if ended is not None and ended.code != 0:
                argv = self._commands["start"]
                raise self._refused(f'"{argv[0]}" {ended}', hint=f"correct {self._key}.start in the spec")
            try:
                if (told := await self._ask()) is not None:
                    return told
            except _Trouble as error:
                trouble = str(error)
            if time.monotonic() > deadline:
                raise self._refused(
                    f"it was started, but did not come up within {self._timeout_s} s: {trouble}",
                    hint="its own log says why",
                )
            await asyncio.sleep(_LOOK_S)

    async def withdraw(self) -> None:
        if self._started is not None:
            self._started.kill(all_of_it=True)
            self._started = None
        await self._stop()
        self._file.put_back()

    async def _silent(self) -> bool:
        try:
            return await self._ask() is None
        except _Trouble:
            return False

    async def _ask(self) -> Health | None:
        return await asyncio.to_thread(self._look)

    def _look(self) -> Health | None:
        """What `/health` tells; None where nobody listens. Raises _Trouble."""
        try:
            told = self._get("/health")
        except ConnectionRefusedError:
            return None
        if not isinstance(told, dict) or "status" not in told:
            raise _Trouble(f"what answers at {self._url} is not a lightrag-server")
        return told

    def _get(self, path: str, *, keyed: bool = True) -> Any:
        """The answer in JSON. Raises ConnectionRefusedError where nobody listens, and _Trouble."""
        request = urllib.request.Request(self._url + path)  # noqa: S310 - the spec allows http(s) only
        if keyed and self._api_key is not None:
            request.add_header("X-API-Key", self._api_key())
        try:
            with _DIRECT.open(request, timeout=_ANSWER_S) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in (401, 403):
                raise self._refused(
                    "it does not accept the key", hint=f"give its LIGHTRAG_API_KEY as {self._key}.api_key"
                ) from None
            raise _Trouble(f"{self._url}{path} answers with status {error.code}") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, ConnectionRefusedError):
                raise reason from None
            if isinstance(reason, TimeoutError):
                words = f"nothing comes within {_ANSWER_S:.0f} s"
            elif isinstance(reason, ValueError):
                words = "it is not JSON"
            else:
                words = getattr(reason, "strerror", None) or type(reason).__name__
            raise _Trouble(f"{self._url}{path} does not answer: {words}") from None

    def _refused(self, why: str, *, hint: str = "see what runs there, then: hybridrag apply") -> PlanRefused:
        return PlanRefused(f"lightrag-server at {self._url}: {said(why)}", hint=hint)


_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _differs(told: Health, selection: Selection) -> str | None:
    """In words, where the server uses other stores than those of the selection."""
    used = told.get("configuration")
    if not isinstance(used, dict):
        return "it does not tell what it uses"
    workspaces = used.get("storage_workspaces") or {}
    names = {value for name, value in selection.variables.items() if name.endswith("_WORKSPACE")}
    for variable, wanted in storages_of(selection).items():
        slot = variable.removeprefix("LIGHTRAG_").lower()
        if used.get(slot) != wanted:
            return f"it uses {used.get(slot)} where {wanted} serves"
        workspace = workspaces.get(slot) or ""
        if wanted != STORAGES[variable]:
            if names and workspace not in names:
                return (
                    f'it uses workspace "{workspace}" of {wanted} where "{", ".join(sorted(names))}" serves'
                )
        elif selection.working_dir is not None:
            folder = PurePath(str(told.get("working_directory")), workspace)
            if Path(folder).resolve() != Path(selection.working_dir).resolve():
                return f'it uses the files in "{folder}" where those in "{selection.working_dir}" serve'
    return None
