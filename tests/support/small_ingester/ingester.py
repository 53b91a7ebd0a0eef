"""The parent's side: `model.watching.Ingester` over a child process that answers lines of JSON."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hybridrag.errors import BackendUnavailable, SpecInvalid
from hybridrag.model.watching import Document, Fate, Outcome

CHILD = Path(__file__).with_name("child.py")


class LightRagIngester:
    def __init__(
        self, *, selection: Any, environ: Mapping[str, str], log: Path, inherit: tuple[int, ...], **_: Any
    ) -> None:
        secrets = {name: get() for name, get in selection.secrets.items()}
        self._environ = {**environ, **selection.variables, **secrets}
        self._where = {
            "folder": selection.working_dir,
            "workspace": selection.workspace,
            "kind": selection.doc_status,
        }
        self._log = log
        self._inherit = inherit
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, str(CHILD), json.dumps(self._where),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log, env=self._environ,
                pass_fds=self._inherit, start_new_session=True, limit=1 << 28,
            )  # fmt: skip
        await self._ask({"do": "start"})

    async def _ask(self, message: dict[str, Any]) -> Any:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(message).encode() + b"\n")
            await process.stdin.drain()
            line = await process.stdout.readline()
        except OSError:
            line = b""
        if not line:
            raise BackendUnavailable("LightRAG's process was lost")
        answer = json.loads(line)
        if "spec" in answer:
            raise SpecInvalid(answer["spec"])
        if "lost" in answer:
            raise BackendUnavailable(answer["lost"])
        return answer["ok"]

    async def known(self) -> Mapping[str, str]:
        return dict(await self._ask({"do": "known"}))

    async def ingest(self, documents: Sequence[Document]) -> list[Outcome]:
        asked = [{"name": each.name, "text": each.text, "digest": each.digest} for each in documents]
        told = await self._ask({"do": "ingest", "documents": asked})
        return [Outcome(**{**each, "fate": Fate(each["fate"])}) for each in told]

    async def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
