"""`model.watching.Ingester`: the parent's side of the process in which LightRAG ingests."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import json
import logging
import tempfile
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from hybridrag.errors import BackendUnavailable, SpecInvalid
from hybridrag.model.secret import without
from hybridrag.model.selection import Embedding, Selection
from hybridrag.model.watching import Document, Fate, Models, Outcome

from .lightrag_process import environment, start, task_for

_MODULE = "hybridrag.adapters.ingest_child"
_START_S = 300.0
_STOP_S = 15.0
_LINE = 64 * 1024 * 1024
_LOG_BYTES = 5_000_000


class LightRagIngester:
    """One child process, from `start` to `stop`; then it may be started again.

    `inherit`: file descriptors that the child holds too. `log` takes LightRAG's own output, secrets starred; beside it
    lie the table of the tokenizer and the choice of one.
    """

    def __init__(
        self,
        selection: Selection,
        embedding: Embedding,
        models: Models,
        *,
        environ: Mapping[str, str],
        base_dir: Path,
        log: Path,
        inherit: Collection[int] = (),
    ) -> None:
        self._selection = selection
        self._embedding = embedding
        self._models = models
        self._environ = environ
        self._base_dir = base_dir
        self._log = log
        self._inherit = tuple(inherit)
        self._process: asyncio.subprocess.Process | None = None
        self._secrets: list[str] = []
        self._tail: collections.deque[str] = collections.deque(maxlen=3)
        self._open = contextlib.AsyncExitStack()
        self._asking = False

    @property
    def pid(self) -> int | None:
        """Of the child, while there is one."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Returns when LightRAG is up. Raises BackendUnavailable (worth another attempt) or SpecInvalid (not)."""
        await self.stop()
        task, self._secrets = task_for(
            self._selection,
            self._embedding,
            self._models,
            base_dir=str(self._base_dir),
            tokenizer=str(self._log.with_suffix(".tokenizer").absolute()),
        )
        self._log.parent.mkdir(parents=True, exist_ok=True)
        # An empty working folder: LightRAG would take config.ini and .env from there, and writes its log into it.
        folder = self._open.enter_context(tempfile.TemporaryDirectory(prefix="hybridrag-"))
        tables = {"TIKTOKEN_CACHE_DIR": str((self._log.parent / "tiktoken").absolute())}
        self._process = await start(
            _MODULE,
            folder,
            {**tables, **environment(self._environ)},
            inherit=self._inherit,
            limit=_LINE,
        )
        keeping = asyncio.ensure_future(self._keep_log(self._process))
        self._open.push_async_callback(_ended, keeping)
        try:
            await asyncio.wait_for(self._ask(task), _START_S)
        except asyncio.TimeoutError:
            await self.stop()
            raise BackendUnavailable(
                f"LightRAG did not start within {_START_S:.0f} s", hint=f'its words are in "{self._log}"'
            ) from None
        except BaseException:
            await self.stop()
            raise

    async def known(self) -> Mapping[str, str]:
        """Digest of the content by name, of every document that the database's own doc status calls processed."""
        found: dict[str, str] = {}
        async for page in self._pages({"do": "known"}):
            found.update(page)
        return found

    async def ingest(self, documents: Sequence[Document]) -> list[Outcome]:
        """Each document once, whatever was cut off before; one whose name is known with other content replaces that.

        Raises BackendUnavailable where the connection is lost, or the process; then it must be stopped, and the
        documents are asked for again. Raises SpecInvalid where a model is not the one that the database needs.
        """
        told = await self._ask(
            {"do": "ingest", "documents": [dataclasses.asdict(item) for item in documents]}
        )
        return [
            Outcome(
                **{
                    **entry,
                    "fate": Fate(entry["fate"]),
                    "reason": without(entry["reason"], self._secrets) if entry["reason"] else None,
                }
            )
            for entry in told
        ]

    async def stop(self) -> None:
        """Returns when the process is gone: nothing is written any more. Idempotent, never raises.

        A document in hand is cut off; the next start finishes it.
        """
        process, self._process = self._process, None
        if process is not None:
            if not self._asking and process.stdin is not None:
                with contextlib.suppress(OSError, asyncio.TimeoutError):
                    process.stdin.write(b'{"do": "stop"}\n')
                    await process.stdin.drain()
                    await asyncio.wait_for(process.wait(), _STOP_S)
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        self._asking = False
        with contextlib.suppress(OSError):
            await self._open.aclose()

    async def _ask(self, request: dict[str, Any]) -> Any:
        """The answer to a request that has one line."""
        pages = [page async for page in self._pages(request)]
        return pages[-1] if pages else None

    async def _pages(self, request: dict[str, Any]) -> AsyncIterator[Any]:
        """What the child says to a request, until its "ok". Cut off in between, only `stop` may follow."""
        process = self._process
        if process is None or process.stdin is None or process.stdout is None or self._asking:
            raise BackendUnavailable("the process in which LightRAG ingests is not running")
        self._asking = True
        with contextlib.suppress(OSError):  # a dead child is told by what it no longer answers
            process.stdin.write(json.dumps(request).encode() + b"\n")
            await process.stdin.drain()
        while True:
            line = await process.stdout.readline()
            if not line.endswith(b"\n"):
                raise await self._died(process)
            answer = json.loads(line)
            if "error" in answer:
                self._asking = False
                raise self._refused(answer)
            if "page" in answer:
                yield answer["page"]
                continue
            self._asking = False
            if answer["ok"] is not None:
                yield answer["ok"]
            return

    def _refused(self, answer: Mapping[str, Any]) -> BackendUnavailable | SpecInvalid:
        kind = SpecInvalid if answer["code"] == SpecInvalid.code else BackendUnavailable
        hint = without(answer["hint"], self._secrets) if answer["hint"] else None
        return kind(without(answer["error"], self._secrets), hint=hint)

    async def _died(self, process: asyncio.subprocess.Process) -> BackendUnavailable:
        code = await process.wait()
        await asyncio.sleep(0)  # its last words may still be on their way into the log
        words = " | ".join(self._tail) or "it said nothing"
        return BackendUnavailable(
            f"the process in which LightRAG ingests died ({code}): {words}",
            hint=f'its words are in "{self._log}"',
        )

    async def _keep_log(self, process: asyncio.subprocess.Process) -> None:
        """Carry the child's stderr into the log, line by line."""
        handler = RotatingFileHandler(self._log, maxBytes=_LOG_BYTES, backupCount=1, encoding="utf-8")
        try:
            while process.stderr is not None and (line := await process.stderr.readline()):
                text = without(line.decode("utf-8", "replace").rstrip("\n"), self._secrets)
                self._tail.append(text[:300])
                handler.emit(logging.LogRecord("lightrag", logging.INFO, "", 0, text, None, None))
        finally:
            handler.close()


async def _ended(task: asyncio.Task[None]) -> None:
    """Wait a moment for the end of the log, which a killed child may have left to a grandchild."""
    await asyncio.wait({task}, timeout=1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
