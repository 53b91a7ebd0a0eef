"""The `postgres` backend: an external server, or one that this tool creates and starts (`drivers.py`)."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hybridrag.errors import BackendUnavailable, HybridragError, PlanRefused, SpecInvalid
from hybridrag.model.data import ALL_SLOTS, Slot
from hybridrag.model.facts import Facts, Value
from hybridrag.model.room import Room
from hybridrag.model.secret import Secret, SecretRef, SecretResolver
from hybridrag.model.selection import Embedding, SchemaMaker, Selection

from . import indexes as vector_index
from .age_graph import IN_AGE
from .building import budget_of
from .client import serving_host
from .door import AsksOpenly
from .driver import DECISIVE, LISTENING, ServerDriver
from .drivers import driver_of
from .dsn import DEFAULT_PORT, parse_dsn
from .endpoint import CONNECT_TIMEOUT_S, Endpoint
from .graphs import IN_TABLES, Graph
from .isolation import own_database
from .observe import observe_server, problems
from .room import room_beside_us
from .sessions import is_pooled
from .spec import PostgresSpec
from .store import PostgresStore
from .tls import lightrag_variables


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
        if self._spec.connection_string is not None:
            return self._endpoint_of_string(self._spec.connection_string)
        port = self._server.port() if self._server is not None else None
        port = port or self._spec.declared_port or DEFAULT_PORT
        return Endpoint(
            name=self.name,
            hosts=tuple((host, port) for host in self._spec.hosts),
            user=self._spec.user,
            database=self._spec.database,
            password=self._password,
            tls=self._spec.tls,
            settings=self._spec.settings,
            require_auth=self._spec.require_auth,
        )

    def _place(self, workspace: str) -> Endpoint:
        """Where one workspace is kept."""
        endpoint = self._endpoint()
        return endpoint.own(own_database(endpoint.database, workspace)) if self._apart else endpoint

    @property
    def _apart(self) -> bool:
        return self._spec.isolation == "database"

    def _endpoint_of_string(self, reference: SecretRef) -> Endpoint:
        """Resolved anew each time, like a password. Raises SpecInvalid without any part of it."""
        used_by = f"backends.{self.name}.connection_string"
        said = parse_dsn(self._secrets.resolve(reference, used_by=used_by), used_by=used_by)
        tls = self._spec.tls
        files = {name: getattr(said, name) or getattr(tls, name) for name in ("ca", "cert", "key")}
        mode = tls.mode if "mode" in tls.model_fields_set else said.mode or tls.mode
        if said.mode not in (None, mode):
            raise SpecInvalid(
                f"{used_by} and backends.{self.name}.tls.mode name different modes of TLS",
                hint="give the mode in one of the two places",
            )
        return Endpoint(
            name=self.name,
            hosts=said.hosts,
            user=said.user,
            database=said.database,
            password=lambda: said.password,
            tls=tls.model_copy(update={**files, "mode": mode}),
            settings=said.settings,
            connect_timeout_s=said.connect_timeout_s or CONNECT_TIMEOUT_S,
            one_setting="connection_string",
            require_auth=self._spec.require_auth,
        )

    @property
    def _graph(self) -> Graph:
        return IN_AGE if self._spec.graph_storage == IN_AGE.storage else IN_TABLES

    async def observe(self) -> tuple[Facts, Facts]:
        facts, details = await self._observe()
        # Of a database whose place cannot be looked at yet, because its server does not run.
        return {**facts, **({"creates": "a Postgres database of its own"} if self._apart else {})}, details

    async def _observe(self) -> tuple[Facts, Facts]:
        if self._server is None or self._spec.provision is None:
            return await self._observe_external()
        told = dict(await asyncio.to_thread(self._server.observe))
        state = str(told.pop("state"))
        own: dict[str, Value] = {"provision": self._spec.provision.driver, "state": state}
        own |= {name: told.pop(name) for name in DECISIVE if told.get(name) is not None}
        if state in LISTENING:
            facts, details = await observe_server(self._endpoint(), self._graph)
            if facts["reachable"]:
                own["state"] = "running"
            return {**own, **facts}, {**told, **details}
        problem = f'the {own["provision"]} server of backend "{self.name}" is {state}'
        hint = f"hybridrag apply starts it; by hand: hybridrag backend start {self.name}"
        if "refusal" in own:
            problem, hint = str(own["refusal"]), str(own.get("way_out") or hint)
        return {"type": "postgres", **own, "reachable": False, "problem": problem, "hint": hint}, told

    def words(self, facts: Facts) -> tuple[str, ...]:
        parts = {"PostgreSQL": "version", "pgvector": "pgvector", "Apache AGE": "age"}
        return tuple(f"{name} {facts[key]}" for name, key in parts.items() if facts.get(key))

    async def room(self) -> Room | None:
        with contextlib.suppress(HybridragError):
            if self._server is not None:
                return await asyncio.to_thread(self._server.room)
            return await room_beside_us(self._endpoint())
        return None

    async def _observe_external(self) -> tuple[Facts, Facts]:
        try:
            endpoint = self._endpoint()
        except SpecInvalid as error:  # one server must not hide the others
            return {"type": "postgres", "reachable": False, "problem": error.what, "hint": error.hint}, {}
        facts, details = await observe_server(endpoint, self._graph)
        if self._spec.connection_string is not None:  # not in the spec, so a plan must hold it
            facts = {
                **facts,
                "address": endpoint.address,
                "user": endpoint.user,
                "database": endpoint.database,
            }
        return facts, details

    def problems(self, facts: Facts, embedding: Embedding) -> list[HybridragError]:
        pool = self._spec.pool.max
        return problems(self.name, facts, embedding, self._spec.vector_index, pool=pool, apart=self._apart)

    async def provision(self) -> None:
        if self._server is not None:
            await asyncio.to_thread(self._server.ensure)

    def _ours(self) -> ServerDriver:
        if self._server is None:
            raise BackendUnavailable(
                f'backend "{self.name}" is an external server; hybridrag does not start or stop it',
                hint="start or stop it with its own tools; hybridrag status shows whether it answers",
            )
        return self._server

    async def start(self) -> None:
        await asyncio.to_thread(self._ours().start)

    async def stop(self) -> None:
        await asyncio.to_thread(self._ours().stop)

    @property
    def serves(self) -> frozenset[Slot]:
        return ALL_SLOTS

    mends = True

    def store(
        self, path: str, workspace: str, embedding: Embedding, slots: frozenset[Slot] = ALL_SLOTS
    ) -> PostgresStore:
        return PostgresStore(
            self._place(workspace),
            workspace,
            embedding,
            self._schema,
            self._selection,
            slots,
            self._spec.vector_index,
            budget_of(self._spec),
            self._graph,
        )

    def _selection(self, workspace: str) -> Selection:
        endpoint, spec = self._place(workspace), self._spec
        host, port = _serving_host(endpoint.at_home)
        pooled = self._pooled(endpoint.at_home, host, port)
        variables = {
            "POSTGRES_HOST": host,
            "POSTGRES_PORT": str(port),
            "POSTGRES_USER": endpoint.user,
            "POSTGRES_DATABASE": endpoint.database,
            "POSTGRES_WORKSPACE": workspace,
            "POSTGRES_MAX_CONNECTIONS": str(spec.pool.max),
            **vector_index.variables(spec.vector_index),
        }
        own = "&".join(f"{name}={value}" for name, value in endpoint.settings.items())
        searching = vector_index.search_settings(spec.vector_index)
        # A pooler would refuse every session of LightRAG for them.
        if not pooled and (settings := vector_index.with_settings(own, searching)):
            variables["POSTGRES_SERVER_SETTINGS"] = settings
        if not endpoint.local:
            variables |= lightrag_variables(endpoint.tls)

        def password() -> str:
            self._refuse_open_asking(endpoint.at_home)
            secret = endpoint.password()
            return secret.reveal() if secret else ""

        return Selection(
            kv="PGKVStorage",
            vector="PGVectorStorage",
            graph=self._graph.storage,
            doc_status="PGDocStatusStorage",
            workspace=workspace,
            variables=variables,
            secrets={"POSTGRES_PASSWORD": password},
        )

    def _pooled(self, endpoint: Endpoint, host: str, port: int) -> bool:
        """Whether LightRAG's sessions go through a pooler that takes no settings; one that does not answer is taken for none."""
        if self.provisioned or endpoint.local:
            return False
        with contextlib.suppress(BackendUnavailable):
            _seen_to_serve(endpoint)
        return is_pooled(host, port)

    def _refuse_open_asking(self, endpoint: Endpoint) -> None:
        """LightRAG gives its password however it is asked for. Raises BackendUnavailable where we would not."""
        if self.provisioned or endpoint.local:
            return
        try:
            _seen_to_serve(endpoint)
        except BackendUnavailable as error:
            if isinstance(error.__cause__, AsksOpenly):
                raise

    def registry_config(self, workspace: str) -> dict[str, Any]:
        endpoint = self._place(workspace)
        return {
            "postgres_host": ",".join(host for host, _ in endpoint.hosts),
            "postgres_port": self._registry_port(endpoint),
            "postgres_user": endpoint.user,
            "postgres_database": endpoint.database,
            "postgres_workspace": workspace,
            "vector_index_type": self._spec.vector_index.type,
            **({"isolation": "database"} if self._apart else {}),
            **({"graph_storage": IN_AGE.storage} if self._graph is IN_AGE else {}),
        }

    def mislaid(self, database: str, known: Mapping[str, Any] | None) -> PlanRefused | None:
        # Before there was a choice, nothing was noted.
        lies, here = (known or {}).get("isolation", "workspace"), self._spec.isolation
        if lies == here:
            return None
        place = (known or {}).get("postgres_database")
        lies_in = f' in Postgres database "{place}"' if place else ""
        return PlanRefused(
            f'database "{database}" lies{lies_in} of backend "{self.name}", as isolation: {lies} put it; with isolation: '
            f"{here} it would be looked for elsewhere",
            hint=f"set backends.{self.name}.isolation back to {lies}; to change it, declare a second backend with "
            f"isolation: {here} and move the database there (hybridrag migrate {database} --to THAT)",
        )

    def _registry_port(self, endpoint: Endpoint) -> int | str:
        # Where the spec puts it: readers are told of a new port in the plan that changes it.
        if self._spec.declared_port is not None:
            return self._spec.declared_port
        ports = [port for _, port in endpoint.hosts]
        return ports[0] if len(set(ports)) == 1 else ",".join(map(str, ports))


def _serving_host(endpoint: Endpoint) -> tuple[str, int]:
    """The one host that LightRAG can be given."""
    return endpoint.hosts[0] if len(endpoint.hosts) == 1 else _seen_to_serve(endpoint)


def _seen_to_serve(endpoint: Endpoint) -> tuple[str, int]:
    """(host, port) of a server that let us in. Asked in a thread, as a loop may be running here."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, serving_host(endpoint)).result()
