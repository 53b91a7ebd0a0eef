"""Where a Postgres server is, who we are there, and what its sessions are told. Plain values, no I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from hybridrag.model.secret import Secret

from .spec import AuthMethod, TlsSpec

CONNECT_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A server at one or several (host, port). `password` is called at connect time only.

    A host that begins with "/" is the folder of a unix socket. `one_setting` is the spec's key that says it all
    (`connection_string`), None where each value has a key of its own. `home`: the configured database, where
    `database` is the own one of a LightRAG database; None where they are the same. `require_auth`: see `door`.
    """

    name: str
    hosts: tuple[tuple[str, int], ...]
    user: str
    database: str
    password: Callable[[], Secret | None]
    tls: TlsSpec
    settings: Mapping[str, str] = field(default_factory=dict)
    connect_timeout_s: float = CONNECT_TIMEOUT_S
    one_setting: str | None = None
    home: str | None = None
    require_auth: AuthMethod | None = None

    @property
    def address(self) -> str:
        """All of them, as a user would write them."""
        return ", ".join(written(host, port) for host, port in self.hosts)

    @property
    def local(self) -> bool:
        """Whether every host is a unix socket, where TLS has no place."""
        return all(host.startswith("/") for host, _ in self.hosts)

    def key(self, setting: str) -> str:
        """Where the spec says this setting."""
        return f"backends.{self.name}.{self.one_setting or setting}"

    @property
    def at_home(self) -> Endpoint:
        """The same in the configured database, which is there before any other."""
        return replace(self, database=self.home or self.database, home=None)

    def own(self, database: str) -> Endpoint:
        """The same in the own database of one LightRAG database."""
        return replace(self, database=database, home=self.database)

    def only(self, host: str, port: int) -> Endpoint:
        """The same at one of its hosts."""
        return replace(self, hosts=((host, port),))


def written(host: str, port: int) -> str:
    """One address: a socket's file, or host:port with an IPv6 address in brackets."""
    if host.startswith("/"):
        return f"{host.rstrip('/')}/.s.PGSQL.{port}"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
