"""What is done with one document in LightRAG: ingested once, replaced by its successor, finished after a kill.

Runs in the ingesting child. Every step may be the last before a kill; the next `ingest` begins from doc status:

    a changed file     the old document is renamed "…%replaced", the new one ingested, then the old one deleted
    killed before      the old one is whole, the new one is cleared away and begun again
    killed after       the new one is whole, the rest of the old one is deleted

An old document is deleted only while the new one is processed, so one of the two is always whole. A document whose
deletion has begun is marked first, so that what is left of it never counts as one.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any

from hybridrag.errors import BackendUnavailable, HybridragError
from hybridrag.model.watching import Document, Fate, Outcome

from .ingest_names import DELETED, digest_of, document_id, file_path, named, replaced, track_id
from .lightrag_child import raise_for
from .lightrag_models import Call, Said, Trouble

PAGE = 1000
_LOOK_S, _PROBE_S = 15.0, 60.0


class _Refused(Exception):
    """LightRAG does not delete a document, though its stores answer."""


class Documents:
    """The documents of one LightRAG. `said`: what its models refuse; `embed` and `complete`: the models themselves."""

    def __init__(self, rag: Any, said: Said, embed: Call, complete: Call) -> None:
        self._rag = rag
        self._said = said
        self._embed = embed
        self._complete = complete
        self._tried = False

    async def repair(self) -> None:
        """Clear away what a kill cut off, of files that may be gone since; those that are not are asked for again.

        LightRAG would go on with it by itself, but killed once more at that it has no proof left of what the document
        wrote, and refuses for good to touch it (1.5.7, `_purge_stale_extraction_if_resuming`).
        """
        for row in [row async for row in self._rows() if not _is_whole(row)]:
            with contextlib.suppress(_Refused):  # told when the file is asked for
                await self._delete(row.id)
        for row in [row async for row in self._rows() if named(row.file_path)[1]]:
            name, _ = named(row.file_path)
            current = await self._row(file_path(name))
            if _is_whole(current):
                with contextlib.suppress(_Refused):
                    await self._delete(row.id)
            elif current is None:
                await self._change(row.id, {"file_path": file_path(name)})

    async def known(self) -> dict[str, str]:
        """Digest by name of the documents of ours that are processed, and are alone under their name."""
        found: dict[str, str] = {}
        unfinished: set[str] = set()
        async for row in self._rows():
            name, old = named(row.file_path)
            if old or not _is_whole(row):
                unfinished.add(name)
            else:
                found[name] = digest_of(row.track_id) or ""
        return {name: digest for name, digest in found.items() if name not in unfinished}

    async def _rows(self) -> AsyncIterator[Any]:
        """All documents of ours, whatever their state."""
        from lightrag.base import CURSOR_END, CURSOR_START, DocStatus

        position = CURSOR_START
        while position is not CURSOR_END:
            page = await self._rag.doc_status.get_docs_by_statuses_page(
                list(DocStatus), limit=PAGE, position=position, strict=True
            )
            for row in page.docs.values():
                if row.file_path and digest_of(row.track_id):
                    yield row
            position = page.next_position

    async def ingest(self, documents: Sequence[Document]) -> list[Outcome]:
        """All together, then those that failed one by one: where one failed, LightRAG gives up its neighbours too.

        Raises BackendUnavailable where the backend or a model's server is away, SpecInvalid where a model is wrong.
        """
        outcomes: dict[str, Outcome] = {}
        began = time.monotonic()
        failed = await self._together(documents, outcomes)
        for document, _ in failed:
            again = await self._together([document], outcomes)
            for name, reason in ((item.name, reason) for item, reason in again):
                outcomes[name] = _outcome(document, Fate.FAILED, reason)
        return _timed([outcomes[item.name] for item in documents], time.monotonic() - began)

    async def _together(
        self, documents: Sequence[Document], outcomes: dict[str, Outcome]
    ) -> list[tuple[Document, str]]:
        """Ingest them; the outcomes of those that did not fail are added, the others come back with the reason."""
        self._said.forget()
        waiting: list[Document] = []
        failed: list[tuple[Document, str]] = []
        try:
            for document in documents:
                try:
                    outcome = await self._prepare(document, waiting)
                except _Refused as refused:
                    outcome = _outcome(document, Fate.FAILED, str(refused))
                if outcome is None:
                    waiting.append(document)
                else:
                    outcomes[document.name] = outcome
            if waiting:
                await self._watched(self._rag.apipeline_process_enqueue_documents())
            for document in waiting:
                reason = await self._settle(document)
                if reason is None:
                    outcomes[document.name] = _outcome(document, Fate.INGESTED)
                else:
                    failed.append((document, reason))
        except HybridragError:
            raise
        except Exception as error:
            await self._still_there()
            raise BackendUnavailable(
                f"LightRAG failed: {type(error).__name__}: {_line(str(error))}",
                hint="hybridrag status shows the backend's health",
            ) from error
        if failed:
            # What they left in the buffers would be embedded with the next document, and fail that one too.
            for store in (self._rag.chunks_vdb, self._rag.entities_vdb, self._rag.relationships_vdb):
                await store.drop_pending_index_ops()
            await self._still_there()
        return failed

    async def _prepare(self, document: Document, waiting: Sequence[Document]) -> Outcome | None:
        """Bring the document to where LightRAG's own pipeline takes over (None), or say what became of it."""
        from lightrag.utils import sanitize_text_for_encoding

        text = sanitize_text_for_encoding(document.text)
        current = await self._row(file_path(document.name))
        old = await self._row(replaced(document.name))
        if isinstance(current, str) or isinstance(old, str):
            return _outcome(document, Fate.FAILED, "several documents have its name in the database")
        if current is not None and digest_of(current.track_id) is None:
            return await self._foreign(document, text, current)
        if old is not None and (_is_whole(current) or _is_going(old)):
            await self._delete(old.id)
            old = None
        if current is not None and _is_going(current):
            await self._delete(current.id)
            current = None
        if not text.strip():
            await self._delete_all(current, old)
            return _outcome(document, Fate.KNOWN, "it holds no text")

        same = await self._with_content(text)
        mine = {row.id for row in (current, old) if row is not None}
        digest = document.digest
        if current is not None and (digest_of(current.track_id) == digest or current.id in same):
            if _is_whole(current):
                await self._relabel(current.id, document)
                return _outcome(document, Fate.KNOWN)
            await self._delete(current.id)
            current = None
        if old is not None and (digest_of(old.track_id) == digest or old.id in same):
            await self._delete_all(current)
            await self._relabel(old.id, document)
            return _outcome(document, Fate.KNOWN)

        for holder in [row for row in same.values() if row.id not in mine]:
            beside = {document_id(item.name, item.digest) for item in waiting}
            if _is_whole(holder) or holder.id in beside:
                await self._delete_all(current, old)
                return _outcome(document, Fate.KNOWN, f'"{_shown(holder)}" has the same content')
            if digest_of(holder.track_id) is None:
                return _outcome(
                    document,
                    Fate.FAILED,
                    f'"{_shown(holder)}" of another writer, unfinished, has the same content',
                )
            await self._delete(holder.id)

        if current is not None and _is_whole(current):
            await self._change(current.id, {"file_path": replaced(document.name)})
        elif current is not None:
            await self._delete(current.id)
        return await self._enqueue(document)

    async def _foreign(self, document: Document, text: str, current: Any) -> Outcome:
        if current.id in await self._with_content(text):
            return _outcome(document, Fate.KNOWN, "another writer has ingested it")
        return _outcome(
            document,
            Fate.FAILED,
            "another writer's document has its name and other content; delete that one through LightRAG",
        )

    async def _enqueue(self, document: Document) -> Outcome | None:
        if not self._tried:  # before anything is stored: an answer of another dimension, a missing server
            try:
                await self._embed(["hybridrag"])
            except Exception:
                raise_for(self._said)
                raise
            self._tried = True
        try:
            await self._rag.apipeline_enqueue_documents(
                document.text,
                ids=[document_id(document.name, document.digest)],
                file_paths=[file_path(document.name)],
                track_id=track_id(document.digest),
            )
        except Exception as error:
            await self._still_there()
            return _outcome(document, Fate.FAILED, _line(f"{type(error).__name__}: {error}"))
        return None

    async def _settle(self, document: Document) -> str | None:
        """After the pipeline: None where the document is in and its predecessor is gone, else why not."""
        row = await self._row(file_path(document.name))
        if row is None or isinstance(row, str):
            return "LightRAG did not keep it"
        if not _is_whole(row):
            stored = await self._rag.doc_status.get_by_id(row.id) or {}
            return _line(str(stored.get("error_msg") or "")) or "LightRAG left it unfinished"
        old = await self._row(replaced(document.name))
        if old is not None and not isinstance(old, str):
            try:
                await self._delete(old.id)
            except _Refused as refused:
                return str(refused)
        return None

    async def _watched(self, work: Coroutine[Any, Any, None]) -> None:
        """Wait for LightRAG's work, and look now and then whether the backend still answers: it may wait for ever."""
        task = asyncio.ensure_future(work)
        while not (await asyncio.wait({task}, timeout=_LOOK_S))[0]:
            try:
                await asyncio.wait_for(self._rag.doc_status.get_by_id_strict("hybridrag"), _PROBE_S)
            except Exception as error:
                task.cancel()
                raise BackendUnavailable(
                    f"the backend no longer answers: {type(error).__name__}: {_line(str(error))}",
                    hint="hybridrag status shows the backend's health",
                ) from error
        await task

    async def _still_there(self) -> None:
        """After a failure: raises where it is not the document's own."""
        if Trouble.WRONG in self._said.words:
            raise_for(self._said)
        try:
            await asyncio.wait_for(self._read_each(), _PROBE_S)
        except Exception as error:
            raise BackendUnavailable(
                f"the backend is lost: {type(error).__name__}: {_line(str(error))}",
                hint="hybridrag status shows the backend's health",
            ) from error
        if Trouble.LOST in self._said.words:
            try:
                await self._embed(["hybridrag"])
                await self._complete("Answer with one word: ready")
            except Exception:
                raise_for(self._said)

    async def _read_each(self) -> None:
        rag = self._rag
        await rag.doc_status.get_by_id_strict("hybridrag")
        for store in (rag.full_docs, rag.text_chunks, rag.chunks_vdb, rag.entities_vdb):
            await store.get_by_id("hybridrag")
        await rag.chunk_entity_relation_graph.has_node("hybridrag")

    async def _row(self, path: str) -> Any:
        """The one document of that name, None, or "several"."""
        from lightrag.base import SourceAbsent, SourceUnique

        found = await self._rag.doc_status.resolve_doc_source_strict(path)
        if isinstance(found, SourceAbsent):
            return None
        return found.doc if isinstance(found, SourceUnique) else "several"

    async def _with_content(self, text: str) -> dict[str, Any]:
        """Documents with this content, by id: by LightRAG's hash, and by the id that it gave before 1.5."""
        from lightrag.utils import compute_mdhash_id
        from lightrag.utils_pipeline import compute_text_content_hash

        ids = [compute_mdhash_id(text, prefix="doc-")]
        held = await self._rag.doc_status.get_doc_by_content_hash(compute_text_content_hash(text))
        if held:
            ids.append(held[0])
        rows: dict[str, Any] = await self._rag.doc_status.get_docs_by_ids(ids, strict=True)
        return rows

    async def _relabel(self, document: str, to: Document) -> None:
        await self._change(document, {"track_id": track_id(to.digest), "file_path": file_path(to.name)})

    async def _change(self, document: str, fields: dict[str, str]) -> None:
        """Durable when it returns: LightRAG's JSON files are written only when asked."""
        await self._rag.doc_status.update_doc_status_fields(document, fields)
        await self._rag.doc_status.index_done_callback()

    async def _delete_all(self, *rows: Any) -> None:
        for row in rows:
            if row is not None:
                await self._delete(row.id)

    async def _delete(self, document: str) -> None:
        """By LightRAG's own deletion; what the model once extracted stays in its cache."""
        await self._change(document, {"track_id": track_id(DELETED)})
        result = await self._rag.adelete_by_doc_id(document)
        if result.status not in ("success", "not_found"):
            await self._still_there()
            raise _Refused(f'LightRAG cannot delete "{document}": {_line(str(result.message))}')


def _is_going(row: Any) -> bool:
    """Its deletion has begun."""
    return digest_of(row.track_id) == DELETED


def _is_whole(row: Any) -> bool:
    return row is not None and str(row.status.value) == "processed" and not _is_going(row)


def _shown(row: Any) -> str:
    return named(row.file_path or row.id)[0]


def _line(text: str) -> str:
    return (text.strip().splitlines() or [""])[0][:200]


def _outcome(document: Document, fate: Fate, reason: str | None = None) -> Outcome:
    return Outcome(name=document.name, fate=fate, characters=len(document.text), seconds=0.0, reason=reason)


def _timed(outcomes: Sequence[Outcome], seconds: float) -> list[Outcome]:
    """The time they took together, shared among those that were ingested by their length."""
    characters = sum(item.characters for item in outcomes if item.fate is not Fate.KNOWN) or 1
    return [
        Outcome(
            name=item.name,
            fate=item.fate,
            characters=item.characters,
            seconds=0.0 if item.fate is Fate.KNOWN else seconds * item.characters / characters,
            reason=item.reason,
        )
        for item in outcomes
    ]
