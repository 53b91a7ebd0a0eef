"""What only the whole spec can tell: names that lead nowhere, databases that would share their data.

Called by `spec.loader` on plain values, also when other problems exist, so all are told at once; hence
nothing here may rely on the shape of the document.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from hybridrag.backends import own_places

from .nodes import Node
from .problems import Problem, listing, quote, suggestion


def cross_problems(root: Node, document: object, real_path: Callable[[str], str | None]) -> Iterator[Problem]:
    """Problems between parts of the spec. `real_path` makes a written path absolute, None if it cannot."""
    spec = document if isinstance(document, dict) else {}
    databases = spec.get("databases")
    backends = spec.get("backends")
    if not isinstance(databases, dict):
        return
    workspaces: dict[tuple[str, str], str] = {}
    folders: dict[str, str] = {}
    own_places: dict[tuple[str, str], str] = {}
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
        found = _backends_of(database.get("backend"))
        if isinstance(backends, dict):
            for backend, slot in found:
                if backend not in backends:
                    yield _unknown_backend(root, name, slot, backend, backends)
            found = [(backend, slot) for backend, slot in found if backend in backends]
        workspace = database.get("workspace") or name.replace("-", "_")
        yield from _same_place(root, name, workspace, _named(database.get("backend"), backends), own_places)
        for backend in dict.fromkeys(backend for backend, _ in found):
            if _is_json(backends, backend):
                continue  # files are kept apart by their folders
            if isinstance(workspace, str):
                if (backend, workspace) in workspaces:
                    what = f"the same workspace of backend {quote(backend)}"
                    yield _shared(root, name, workspaces[backend, workspace], "workspace", what)
                else:
                    workspaces[backend, workspace] = name


def _backends_of(named: object) -> list[tuple[str, str | None]]:
    """(backend, the slot that names it; None where one name stands for all)."""
    if isinstance(named, str):
        return [(named, None)]
    slots = named.items() if isinstance(named, dict) else ()
    return [(backend, slot) for slot, backend in slots if isinstance(slot, str) and isinstance(backend, str)]


def _named(backend: object, backends: object) -> dict[str, Mapping[str, object]]:
    """The entries that a database names, for all of its slots or one by one; those that are there."""
    names = backend.values() if isinstance(backend, dict) else [backend]
    known = backends if isinstance(backends, dict) else {}
    return {
        name: known[name] for name in names if isinstance(name, str) and isinstance(known.get(name), dict)
    }


def _same_place(
    root: Node,
    name: str,
    workspace: object,
    entries: Mapping[str, Mapping[str, object]],
    taken: dict[tuple[str, str], str],
) -> Iterator[Problem]:
    """Databases whose own places on a server would have the same name."""
    for backend, entry in entries.items():
        for place, words in own_places(backend, entry, workspace) if isinstance(workspace, str) else ():
            if taken.setdefault(place, name) != name:
                yield _shared(root, name, taken[place], "workspace", words)


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


def _is_json(backends: object, name: str) -> bool:
    entry = backends.get(name) if isinstance(backends, dict) else None
    return isinstance(entry, dict) and str(entry.get("type")).lower() == "json"


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
