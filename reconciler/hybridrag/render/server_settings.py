"""What an unchanged lightrag-server needs to use a database as it is now: its `.env`, and a Compose service around it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import yaml

from hybridrag.model.selection import Embedding, Selection
from hybridrag.model.storages import storages_of
from hybridrag.model.watching import Models
from hybridrag.model.workspaces import of_server
from hybridrag.spec.env_text import quoted


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One database as it is now. `backend` in words.

    `references` say where each secret comes from: the variable of the environment that holds it, None for any other place.
    `secrets` are their values, where those are to be shown.
    """

    database: str
    backend: str
    selection: Selection
    embedding: Embedding
    models: Models
    references: Mapping[str, str | None]
    secrets: Mapping[str, str] = field(default_factory=dict)


def env(served: Served) -> str:
    """A `.env`, as python-dotenv reads it. A secret is a reference to the variable that holds it, or left to be filled in."""
    lines = [
        f'# LightRAG on the database "{served.database}" as backend {served.backend} serves it now; made by',
        f"# hybridrag render {served.database} --as env, and again after each move.",
    ]
    looked_in = of_server(served.selection.workspace)
    if looked_in != served.selection.workspace:
        lines.append(
            f'# lightrag-server makes "{looked_in}" of WORKSPACE; what ends in _WORKSPACE below is what counts, so keep it.'
        )
    lines += [f"{name}={quoted(value)}" for name, value in _variables(served).items()]
    for name, reference in served.references.items():
        if name in served.secrets:
            lines.append(f"{name}={quoted(served.secrets[name])}")
        elif reference is not None:
            lines.append(f"{name}=${{{reference}}}" if reference != name else f"# {name} comes from outside")
        else:
            lines.append(f"# {name}=   is secret: fill it in, or let --with-secrets write it")
    return "\n".join(lines) + "\n"


def _variables(served: Served) -> dict[str, str]:
    selection, models = served.selection, served.models
    found = {**storages_of(selection), **selection.variables}
    if selection.working_dir is not None:
        found |= {"WORKING_DIR": selection.working_dir, "WORKSPACE": ""}
    else:
        found["WORKSPACE"] = selection.workspace
    found |= {"EMBEDDING_MODEL": served.embedding.model} if served.embedding.model else {}
    found["EMBEDDING_DIM"] = str(served.embedding.dim)
    for prefix, model in (("LLM", models.llm), ("EMBEDDING", models.embedding)):
        if model is not None:
            found[f"{prefix}_BINDING"] = model.binding
            found |= {f"{prefix}_MODEL": model.name} if model.name else {}
            found |= {f"{prefix}_BINDING_HOST": model.base_url} if model.base_url else {}
    return found


def compose(served: Served) -> str:
    """A Compose file with one service, which mounts the `.env` that `--as env` makes: so it can be rewritten later."""
    name = f"lightrag-{served.database.lower()}"
    volumes = [f"./{name}.env:/app/.env", "./inputs:/app/inputs"]
    if served.selection.working_dir is not None:
        folder = served.selection.working_dir.replace("$", "$$")
        volumes.append(f"{folder}:{folder}")  # the same path inside, so that the .env holds on both sides
    service: dict[str, object] = {
        "image": "${LIGHTRAG_IMAGE:?name the image of your LightRAG server}",
        "restart": "unless-stopped",
    }
    if any("127.0.0.1" in value or "localhost" in value for value in served.selection.variables.values()):
        service["network_mode"] = "host"  # the backend listens on this machine only
    else:
        service["ports"] = ["127.0.0.1:9621:9621"]
    service["volumes"] = volumes
    head = (
        f'# LightRAG on the database "{served.database}" as backend {served.backend} serves it now.\n'
        f"# First: (umask 077; hybridrag render {served.database} --as env --with-secrets > {name}.env)\n"
    )
    return head + yaml.safe_dump({"services": {name: service}}, sort_keys=False, allow_unicode=True)
