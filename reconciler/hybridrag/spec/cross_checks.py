"""What only the whole spec can tell: names that lead nowhere, databases that would share their data.

Called by `spec.loader` on plain values, also when other problems exist, so all are told at once; hence
nothing here may rely on the shape of the document.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from hybridrag.backends import NAMED_AFTER_MODEL, declared
from hybridrag.model.address import Address

from .nodes import Node
from .problems import Problem, listing, quote, suggestion


def cross_problems(root: Node, document: object, real_path: Callable[[str], str | None]) -> Iterator[Problem]:
    """Problems between parts of the spec. `real_path` makes a written path absolute, None if it cannot."""
    spec = document if isinstance(document, dict) else {}
    databases = spec.get("databases")
    backends = spec.get("backends")
    if not isinstance(databases, dict):
        return
    places: dict[Address, tuple[str, str]] = {}
    folders: dict[str, str] = {}
    for name, database in databases.items():
        if not isinstance(database, dict):
            continue
        path = database.get("path")
        if isinstance(path, str) and path:
            folder = real_path(path)
            here = ("databases", name, "path")
            if folder is None:
                at = root.nearest(here).at
                yield Problem(text='"path" cannot be resolved: "~" leads to no home folder', at=at, path=here)
            elif folder in folders:
                yield _shared(root, name, folders[folder], "path", "the same folder")
            else:
                folders[folder] = name
        yield from _watcher_problems(root, spec, name, database)
        yield from _model_problems(root, name, database, backends)
        found = _backends_of(database.get("backend"))
        if isinstance(backends, dict):
            for backend, slot in found:
                if backend not in backends:
                    yield _unknown_backend(root, name, slot, backend, backends)
            found = [(backend, slot) for backend, slot in found if backend in backends]
        workspace = database.get("workspace") or name.replace("-", "_")
        if isinstance(workspace, str):
            yield from _same_place(root, name, workspace, _named(found, backends), places)


def _backends_of(named: object) -> list[tuple[str, str | None]]:
    """(backend, the slot that names it; None where one name stands for all)."""
    if isinstance(named, str):
        return [(named, None)]
    slots = named.items() if isinstance(named, dict) else ()
    return [(backend, slot) for slot, backend in slots if isinstance(slot, str) and isinstance(backend, str)]


def _named(found: list[tuple[str, str | None]], backends: object) -> dict[str, Mapping[str, object]]:
    """The entries that a database names, for all of its slots or one by one; those that are there."""
    known = backends if isinstance(backends, dict) else {}
    return {name: known[name] for name, _ in found if isinstance(known.get(name), dict)}


def _same_place(
    root: Node,
    name: str,
    workspace: str,
    entries: Mapping[str, Mapping[str, object]],
    places: dict[Address, tuple[str, str]],
) -> Iterator[Problem]:
    """Databases that would share their data. `places`: which database has one, and through which entry."""
    told: set[str] = set()
    for backend, entry in entries.items():
        for address, what in declared(backend, entry, workspace):
            owner, through = places.setdefault(address, (name, backend))
            if owner == name or owner in told:
                continue
            told.add(owner)
            of = f"backend {quote(backend)}"
            if through != backend:
                of = f"one server, which backends {quote(through)} and {quote(backend)} lead to"
            yield _shared(root, name, owner, "workspace", f"{what} of {of}")


def _watcher_problems(
    root: Node, spec: dict[str, object], name: str, database: dict[str, object]
) -> Iterator[Problem]:
    """What hybridrag's own daemon needs beside itself."""
    writer, embedding = database.get("writer"), database.get("embedding")
    if not isinstance(writer, dict) or writer.get("kind") != "watcher":
        return
    models = spec.get("models")
    declared = models if isinstance(models, dict) else {}
    here = ("databases", name, "writer", "kind")
    wanting: list[tuple[str, str]] = []
    if not database.get("source"):
        wanting.append(("a source", f"databases.{name}.source: {{path: ./notes}}"))
    if not declared.get("llm"):
        wanting.append(
            ("a language model", "models.llm: {binding: openai, model: …, api_key: {env: OPENAI_API_KEY}}")
        )
    if not declared.get("embedding") and not (isinstance(embedding, dict) and embedding.get("function")):
        wanting.append(
            ("an embedding model", "models.embedding: {binding: openai, api_key: {env: OPENAI_API_KEY}}")
        )
    for what, remedy in wanting:
        yield Problem(
            text=f"the watcher of {quote(name)} needs {what}",
            hint=f"add {remedy}",
            at=root.nearest(here).at,
            path=here,
        )


def _model_problems(
    root: Node, name: str, database: dict[str, object], backends: object
) -> Iterator[Problem]:
    """A model that nobody names, where LightRAG's places for vectors are named after it: it would work in other ones."""
    named, embedding = database.get("backend"), database.get("embedding")
    backend = named.get("vector") if isinstance(named, dict) else named
    entry = backends.get(backend) if isinstance(backends, dict) and isinstance(backend, str) else None
    kind = str(entry.get("type")).lower() if isinstance(entry, dict) else ""
    if kind not in NAMED_AFTER_MODEL or not isinstance(embedding, dict) or "model" in embedding:
        return
    here = ("databases", name, "embedding")
    yield Problem(
        text=f"{quote(name)} needs embedding.model: in backend {quote(str(backend))} LightRAG names its {NAMED_AFTER_MODEL[kind]} "
        "of vectors after it",
        hint="set it to what LightRAG is told as EMBEDDING_MODEL (or EmbeddingFunc's model_name); where it is told none: model: null",
        at=root.nearest(here).at,
        path=here,
    )


def _shared(root: Node, name: str, other: str, key: str, what: str) -> Problem:
    here = ("databases", name, key)
    first = root.nearest(("databases", other, key)).at
    return Problem(
        text=f"the databases {quote(other)} and {quote(name)} use {what}",
        hint=f"give one of them its own {key}; the other one stands at {first}",
        at=root.nearest(here).at,
        path=here,
    )


def _unknown_backend(
    root: Node, name: str, slot: str | None, backend: str, backends: dict[str, object]
) -> Problem:
    here = ("databases", name, "backend", *([slot] if slot else []))
    node = root.nearest(here)
    which = "the backend that this variable names" if node.variable else f"backend {quote(backend)}"
    near = "" if node.variable else suggestion(backend, backends)
    return Problem(
        text=f"{which} is not declared{near}",
        hint=f'declared below "backends": {listing(backends)}' if backends else 'declare it below "backends"',
        at=node.at,
        path=here,
    )
