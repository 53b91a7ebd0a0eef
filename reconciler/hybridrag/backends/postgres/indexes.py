"""Vector indexes as LightRAG makes them: their statements, their limits, and the settings that make them find enough.

Source: `lightrag/kg/postgres_impl.py` 1.5.7 (`_create_vector_index`, `_pg_create_table`, `ClientManager`). LightRAG looks
for an index by its name; under another name it would build a second one. Pure functions, no connection.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from hybridrag.errors import BackendUnavailable, HybridragError
from hybridrag.model.facts import Facts
from hybridrag.model.selection import Embedding

from .spec import VectorIndexSpec
from .tables import index_name

ITERATIVE = (0, 8, 0)
"""pgvector that goes on searching when the workspace's filter has left too few rows."""


@dataclass(frozen=True, slots=True)
class IndexKind:
    """One value of POSTGRES_VECTOR_INDEX_TYPE. `pgvector` is the oldest version that has it; `dim` the most it takes."""

    method: str
    column: str
    dim: int
    pgvector: tuple[int, ...]


KINDS: Mapping[str, IndexKind] = {
    "hnsw": IndexKind("hnsw", "vector", 2000, (0, 5, 0)),
    "hnsw_halfvec": IndexKind("hnsw", "halfvec", 4000, (0, 7, 0)),
    "ivfflat": IndexKind("ivfflat", "vector", 2000, (0, 1, 0)),
    "none": IndexKind("", "vector", 16000, (0, 1, 0)),
}
"""LightRAG knows VCHORDRQ as well, which needs another extension."""


def column_type(index: VectorIndexSpec) -> str:
    """Type of `content_vector`: LightRAG makes the column itself halfvec, not only the index."""
    return KINDS[index.type].column


def name_of(table: str, index: VectorIndexSpec) -> str | None:
    """Name of LightRAG's vector index on a table; None where it keeps none."""
    return index_name(table, f"{index.type}_cosine") if KINDS[index.type].method else None


def definition(table: str, index: VectorIndexSpec) -> str | None:
    """The statement that creates LightRAG's vector index on a table; None where it keeps none."""
    kind = KINDS[index.type]
    if not kind.method:
        return None
    options = f"lists = {index.lists}"
    if kind.method == "hnsw":
        options = f"m = {index.m}, ef_construction = {index.ef_construction}"
    return (
        f'CREATE INDEX "{name_of(table, index)}" ON {table} USING {kind.method} '
        f"(content_vector {kind.column}_cosine_ops) WITH ({options})"
    )


def variables(index: VectorIndexSpec) -> dict[str, str]:
    """What tells LightRAG to keep this index; an empty type is its way to say none."""
    return {
        "POSTGRES_VECTOR_INDEX_TYPE": "" if index.type == "none" else index.type.upper(),
        "POSTGRES_HNSW_M": str(index.m),
        "POSTGRES_HNSW_EF": str(index.ef_construction),
        "POSTGRES_IVFFLAT_LISTS": str(index.lists),
    }


def search_settings(index: VectorIndexSpec) -> dict[str, str]:
    """Server settings of a session that searches.

    All workspaces share a table and its index, and the workspace's filter comes after the search: without these, most
    of the nearest rows can be a neighbour's. An older pgvector leaves out what it does not know.
    """
    match KINDS[index.type].method:
        case "hnsw":
            return {"hnsw.ef_search": str(index.ef_search), "hnsw.iterative_scan": "relaxed_order"}
        case "ivfflat":
            probes = max(1, round(math.sqrt(index.lists)))
            return {"ivfflat.probes": str(probes), "ivfflat.iterative_scan": "relaxed_order"}
    return {}


def with_settings(present: str | None, settings: Mapping[str, str]) -> str:
    """POSTGRES_SERVER_SETTINGS (`key=value&key=value`) with `settings` added; a key that is there keeps its value."""
    pairs = dict(pair.split("=", 1) for pair in (present or "").split("&") if "=" in pair)
    return "&".join(f"{key}={value}" for key, value in {**settings, **pairs}.items())


def index_problems(
    name: str, index: VectorIndexSpec, facts: Facts, embedding: Embedding
) -> list[HybridragError]:
    """Why this index cannot be had on a server, as observed. LightRAG itself would only log it and run without."""
    kind = KINDS[index.type]
    found: list[HybridragError] = []
    where = f"backends.{name}.vector_index.type"
    if embedding.dim > kind.dim:
        what = "an HNSW" if index.type == "hnsw" else "an IVFFlat" if index.type == "ivfflat" else "a halfvec"
        if index.type == "none":
            problem = f"pgvector holds at most {kind.dim:,} dimensions"
        else:
            problem = f"{what} index holds at most {kind.dim:,} dimensions"
        hint = "keep this database on its present backend"
        if embedding.dim <= KINDS["hnsw_halfvec"].dim:
            hint = f"{where}: hnsw_halfvec takes {KINDS['hnsw_halfvec'].dim:,} (vectors are then held as float16)"
        elif embedding.dim <= KINDS["none"].dim:
            hint = f"{where}: none takes {KINDS['none'].dim:,}, and searches every vector"
        found.append(
            BackendUnavailable(
                f'backend "{name}": {problem}, the database has {embedding.dim:,}; LightRAG would run unindexed',
                hint=hint,
            )
        )
    made, there = facts.get("pgvector"), facts.get("pgvector_available")
    present = made or there
    if isinstance(present, str) and version_of(present) < kind.pgvector:
        wanted = ".".join(map(str, kind.pgvector))
        newer = isinstance(there, str) and version_of(there) >= kind.pgvector
        how = (
            "as an administrator, in that database: ALTER EXTENSION vector UPDATE"
            if made and newer
            else "install a newer pgvector on the server"
        )
        found.append(
            BackendUnavailable(
                f'backend "{name}": pgvector {present} is too old for vector_index.type {index.type}, which needs {wanted}',
                hint=f"{how}; or choose another {where}; then run hybridrag plan",
            )
        )
    return found


def version_of(text: str) -> tuple[int, ...]:
    """`0.8.0` as numbers; what is no number counts as 0."""
    return tuple(int(part) if part.isdigit() else 0 for part in text.split("."))
