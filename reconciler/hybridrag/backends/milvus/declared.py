"""Where a workspace lies by names alone: what a spec or a registry says of it. Pure, and quick to import."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from hybridrag.backends.kit.hosts import spelt
from hybridrag.model.address import Address

ENGINE = "milvus"
URI, DATABASE = "http://127.0.0.1:19530", "default"
_PORT, _TLS_PORT = 19530, 443


def host_and_port(uri: str) -> tuple[str, int]:
    """As the client understands an address. Raises ValueError for a port that is none."""
    parts = urlsplit(uri)
    return parts.hostname or "", parts.port or (_TLS_PORT if parts.scheme == "https" else _PORT)


def declared(backend: str, entry: Mapping[str, object], workspace: str) -> list[tuple[Address, str]]:
    """The place of a workspace, and what it is in words; by the spec's own text, which may be wrong elsewhere.

    An address that is none is known by its entry's name.
    """
    uri = str(entry.get("uri") or URI)
    found = _address(uri, entry.get("database"), workspace, f"backend {backend}")
    return [(found, "the same workspace")]


def registered(config: Mapping[str, object]) -> Address | None:
    """By `backend_config` of a registry; None where it names no server."""
    uri, workspace = config.get("milvus_uri"), config.get("milvus_workspace")
    if uri is None or workspace is None:
        return None
    return _address(str(uri), config.get("milvus_database"), str(workspace), str(uri))


def _address(uri: str, database: object, workspace: str, otherwise: str) -> Address:
    try:
        host, port = host_and_port(uri)
        server = f"{spelt(host)}:{port}" if host else otherwise
    except ValueError:
        server = otherwise
    return Address(engine=ENGINE, server=server, area=str(database or DATABASE), owner=workspace)
