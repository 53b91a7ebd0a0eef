"""The `postgres` backend: an external server, or one that this tool creates and starts (`drivers.py`)."""

from __future__ import annotations

import asyncio
import functools
from pathlib import Path
from typing import Any

from hybridrag.errors import BackendUnavailable, HybridragError
from hybridrag.model.data import ALL_SLOTS, Slot
from hybridrag.model.facts import Facts, Value
from hybridrag.model.ports import Embedding, SchemaMaker, Selection
from hybridrag.model.secret import Secret, SecretResolver

from . import indexes as vector_index
from .building import budget_of
from .client import Endpoint
from .driver import DECISIVE, LISTENING, ServerDriver
from .drivers import driver_of
from .observe import observe_server, problems
from .spec import PostgresSpec
from .store import PostgresStore

DEFAULT_PORT = 5432


class PostgresBackend:
    """See `model.ports.Backend`. `state` is the folder of the environment, which names what is provisioned."""

    type = "postgres"

    def __init__(
        self,
        name: str,
        spec: PostgresSpec,
        *,
        environment: str,
        state: Path,
        secrets: SecretResolver,
        schema: SchemaMaker,
    ) -> None:
        self.name = name
        self._spec = spec
        self._secrets = secrets
        self._schema = schema
        self._environment = environment
        self._state = state

    @property
    def provisioned(self) -> bool:
        return self._spec.provision is not None

    @functools.cached_property
    def _server(self) -> ServerDriver | None:
        # Made on first use, because a declared password is resolved for it.
        return driver_of(
            self._spec,
            state=self._state,
            environment=self._environment,
            backend=self.name,
            password=self._declared_password() if self.provisioned else None,
        )

    def _declared_password(self) -> Secret | None:
        if self._spec.password is None:
            return None
        return self._secrets.resolve(self._spec.password, used_by=f"backends.{self.name}.password")

    def _password(self) -> Secret | None:
        if self._server is not None and self._spec.password is None:
            return self._server.password()
        return self._declared_password()

    def _endpoint(self) -> Endpoint:
        port = self._server.port() if self._server is not None else None
        return Endpoint(
            name=self.name,
            host=self._spec.host,
            port=port or self._spec.declared_port or DEFAULT_PORT,
            user=self._spec.user,
            database=self._spec.database,
            password=self._password,
            tls=self._spec.tls,
        )

    async def observe(self) -> tuple[Facts, Facts]:
        if self._server is None or self._spec.provision is None:
            return await observe_server(self._endpoint())
        told = dict(await asyncio.to_thread(self._server.observe))
        state = str(told.pop("state"))
        own: dict[str, Value] = {"provision": self._spec.provision.driver, "state": state}
        own |= {name: told.pop(name) for name in DECISIVE if told.get(name) is not None}
        if state in LISTENING:
            facts, details = await observe_server(self._endpoint())
            if facts["reachable"]:
                own["state"] = "running"
            return {**own, **facts}, {**told, **details}
        problem = f'the {own["provision"]} server of backend "{self.name}" is {state}'
        hint = f"hybridrag apply starts it; by hand: hybridrag backend start {self.name}"
        if "refusal" in own:
            problem, hint = str(own["refusal"]), str(own.get("way_out") or hint)
        return {"type": "postgres", **own, "reachable": False, "problem": problem, "hint": hint}, told

    def problems(self, facts: Facts, embedding: Embedding) -> list[HybridragError]:
        return problems(self.name, facts, embedding, self._spec.vector_index)

    async def provision(self) -> None:
        if self._server is not None:
            await asyncio.to_thread(self._server.ensure)

    def _ours(self) -> ServerDriver:
        if self._server is None:
            raise BackendUnavailable(
                f'backend "{self.name}" is an external server; hybridrag does not start or stop it',
                hint=f"start or stop the server at {self._spec.host} with its own tools",
            )
        return self._server

    async def start(self) -> None:
        await asyncio.to_thread(self._ours().start)

    async def stop(self) -> None:
        await asyncio.to_thread(self._ours().stop)

    @property
    def serves(self) -> frozenset[Slot]:
        return ALL_SLOTS

    def store(
        self, path: str, workspace: str, embedding: Embedding, slots: frozenset[Slot] = ALL_SLOTS
    ) -> PostgresStore:
        return PostgresStore(
            self._endpoint(),
            workspace,
            embedding,
            self._schema,
            self._selection,
            slots,
            self._spec.vector_index,
            budget_of(self._spec),
        )

    def _selection(self, workspace: str) -> Selection:
        endpoint, spec = self._endpoint(), self._spec
        variables = {
            "POSTGRES_HOST": endpoint.host,
            "POSTGRES_PORT": str(endpoint.port),
            "POSTGRES_USER": endpoint.user,
            "POSTGRES_DATABASE": endpoint.database,
            "POSTGRES_WORKSPACE": workspace,
            "POSTGRES_MAX_CONNECTIONS": str(spec.pool.max),
            **vector_index.variables(spec.vector_index),
        }
        if searching := vector_index.search_settings(spec.vector_index):
            present = variables.get("POSTGRES_SERVER_SETTINGS")
            variables["POSTGRES_SERVER_SETTINGS"] = vector_index.with_settings(present, searching)
        if spec.tls.mode != "prefer":
            variables["POSTGRES_SSL_MODE"] = spec.tls.mode
        for name, value in (("ROOT_CERT", spec.tls.ca), ("CERT", spec.tls.cert), ("KEY", spec.tls.key)):
            if value is not None:
                variables[f"POSTGRES_SSL_{name}"] = str(value)

        def password() -> str:
            secret = endpoint.password()
            return secret.reveal() if secret else ""

        return Selection(
            kv="PGKVStorage",
            vector="PGVectorStorage",
            graph="PGTableGraphStorage",
            doc_status="PGDocStatusStorage",
            workspace=workspace,
            variables=variables,
            secrets={"POSTGRES_PASSWORD": password},
        )

    def registry_config(self, workspace: str) -> dict[str, Any]:
        endpoint = self._endpoint()
        return {
            "postgres_host": endpoint.host,
            # Where the spec puts it: readers are told of a new port in the plan that changes it.
            "postgres_port": self._spec.declared_port or endpoint.port,
            "postgres_user": endpoint.user,
            "postgres_database": endpoint.database,
            "postgres_workspace": workspace,
            "vector_index_type": self._spec.vector_index.type,
        }
