"""Where a workspace lies by names alone: what a spec or a registry says of it. Pure, and quick to import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hybridrag.backends.kit.hosts import spelt
from hybridrag.model.address import Address

from .isolation import graph_name, own_database

ENGINE = "postgres"
_PORT = 5432


def declared(backend: str, entry: Mapping[str, object], workspace: str) -> list[tuple[Address, str]]:
    """The places of a workspace, each with what it is in words; by the spec's own text, which may be wrong elsewhere.

    A server that is not named there is known by its entry's name. A graph in AGE has a place of its own, whose name two
    workspaces may share.
    """
    database = str(entry.get("database") or "hybridrag")
    if entry.get("provision") or entry.get("connection_string"):
        server = f"backend {backend}"
    else:
        server = _server(str(entry.get("host") or "127.0.0.1"), entry.get("port"))
    if entry.get("isolation") == "database":
        own = own_database(database, workspace)
        return [(Address(engine=ENGINE, server=server, area=own), f'the same Postgres database "{own}"')]
    shared = Address(engine=ENGINE, server=server, area=database, owner=workspace)
    found = [(shared, "the same workspace")]
    if entry.get("graph_storage") == "PGGraphStorage":
        graph = graph_name(workspace)
        found.append((replace(shared, owner=f"graph {graph}"), f'the same graph "{graph}"'))
    return found


def registered(config: Mapping[str, object]) -> Address | None:
    """By `backend_config` of a registry; None where it names no server."""
    host, workspace = config.get("postgres_host"), config.get("postgres_workspace")
    if host is None or workspace is None:
        return None
    server = _server(str(host), config.get("postgres_port"))
    return Address(
        engine=ENGINE, server=server, area=str(config.get("postgres_database")), owner=str(workspace)
    )


def _server(host: str, port: object) -> str:
    """Several hosts stand in one line, in the order in which they are tried; sockets by their folders."""
    ports = str(port or _PORT).split(",")
    hosts = host.split(",")
    pairs = zip(hosts, ports * len(hosts) if len(ports) == 1 else ports, strict=False)
    return ",".join(f"{one if one.startswith('/') else spelt(one)}:{number}" for one, number in pairs)
