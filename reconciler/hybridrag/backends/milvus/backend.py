"""The `milvus` backend: an external server that keeps the vectors of LightRAG databases."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from hybridrag.errors import BackendUnavailable, HybridragError
from hybridrag.model.data import Slot
from hybridrag.model.facts import Facts
from hybridrag.model.secret import Secret, SecretRef, SecretResolver
from hybridrag.model.selection import Embedding, SchemaMaker, Selection

from .client import Endpoint
from .observe import observe_server, problems
from .spec import MilvusSpec
from .store import SLOTS, MilvusStore


class MilvusBackend:
    """See `model.ports.Backend`."""

    type = "milvus"
    provisioned = False
    serves = SLOTS
    mends = True

    def __init__(self, name: str, spec: MilvusSpec, *, secrets: SecretResolver, schema: SchemaMaker) -> None:
        self.name = name
        self._spec = spec
        self._secrets = secrets
        self._schema = schema

    def _secret(self, ref: SecretRef | None, field: str) -> Secret | None:
        if ref is None:
            return None
        return self._secrets.resolve(ref, used_by=f"backends.{self.name}.{field}")

    def _endpoint(self) -> Endpoint:
        spec = self._spec
        return Endpoint(
            name=self.name,
            uri=spec.uri.rstrip("/"),
            database=spec.database,
            user=spec.user,
            password=lambda: self._secret(spec.password, "password"),
            token=lambda: self._secret(spec.token, "token"),
        )

    async def observe(self) -> tuple[Facts, Facts]:
        return await observe_server(self._endpoint())

    def problems(self, facts: Facts, embedding: Embedding) -> list[HybridragError]:
        return problems(self.name, facts, embedding)

    def words(self, facts: Facts) -> tuple[str, ...]:
        version = str(facts.get("version") or "")
        return (f"Milvus {version.removeprefix('v')}",) if version else ()

    async def room(self) -> None:
        """A server elsewhere: nobody can tell."""

    async def provision(self) -> None:
        """An external server is there, or it is not."""

    def _external(self) -> BackendUnavailable:
        return BackendUnavailable(
            f'backend "{self.name}" is an external server; hybridrag does not start or stop it',
            hint=f"start or stop the server at {self._spec.uri} with its own tools",
        )

    async def start(self) -> None:
        raise self._external()

    async def stop(self) -> None:
        raise self._external()

    def store(
        self, path: str, workspace: str, embedding: Embedding, slots: frozenset[Slot] = SLOTS
    ) -> MilvusStore:
        return MilvusStore(self._endpoint(), workspace, embedding, self._schema, self._selection)

    def _selection(self, workspace: str) -> Selection:
        endpoint, index = self._endpoint(), self._spec.index
        variables = {
            "MILVUS_URI": endpoint.uri,
            "MILVUS_DB_NAME": endpoint.database,
            "MILVUS_WORKSPACE": workspace,
            "MILVUS_INDEX_TYPE": index.type.upper(),
            "MILVUS_METRIC_TYPE": index.metric.upper(),
            "MILVUS_HNSW_M": str(index.m),
            "MILVUS_HNSW_EF_CONSTRUCTION": str(index.ef_construction),
            "MILVUS_HNSW_EF": str(index.ef),
            "MILVUS_HNSW_SQ_TYPE": index.sq_type.upper(),
            "MILVUS_IVF_NLIST": str(index.nlist),
            "MILVUS_IVF_NPROBE": str(index.nprobe),
        }
        if endpoint.user is not None:
            variables["MILVUS_USER"] = endpoint.user
        declared = {"MILVUS_PASSWORD": endpoint.password, "MILVUS_TOKEN": endpoint.token}
        if self._spec.password is None:
            del declared["MILVUS_PASSWORD"]
        if self._spec.token is None:
            del declared["MILVUS_TOKEN"]
        return Selection(
            vector="MilvusVectorDBStorage",
            # Not `workspace`: the variable decides here, and the database's other slots may have another.
            variables=variables,
            secrets={name: functools.partial(_reveal, get) for name, get in declared.items()},
        )

    def mislaid(self, database: str, known: Mapping[str, Any] | None) -> None:
        """One place for each database, whatever the spec says."""

    def registry_config(self, workspace: str) -> dict[str, Any]:
        endpoint = self._endpoint()
        return {
            "milvus_uri": endpoint.uri,
            "milvus_database": endpoint.database,
            "milvus_user": endpoint.user,
            "milvus_workspace": workspace,
            "index_type": self._spec.index.type,
            "metric_type": self._spec.index.metric,
        }


def _reveal(get: Callable[[], Secret | None]) -> str:
    secret = get()
    return secret.reveal() if secret else ""
