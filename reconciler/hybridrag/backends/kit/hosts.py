"""Names of servers: one spelling for one address, as it is written and as it is resolved."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable

LOCAL = "this machine"


def spelt(host: str) -> str:
    """One spelling of a host: lower case, without brackets and a final dot; this machine's own names are one."""
    plain = host.strip().lower().removeprefix("[").removesuffix("]").rstrip(".")
    if plain in ("", "localhost", "ip6-localhost"):
        return LOCAL
    try:
        address = ipaddress.ip_address(plain)
    except ValueError:
        return plain
    return LOCAL if address.is_loopback or address.is_unspecified else str(address)


async def resolved(host: str, port: int) -> str:
    """`address:port` that a name leads to: one of this machine's own as such, else the lowest IPv4, else IPv6, address.

    A name that leads nowhere stands for itself.
    """
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return f"{spelt(host)}:{port}"
    addresses = {str(entry[4][0]).partition("%")[0] for entry in found}
    if any(map(_is_ours, addresses)):
        return f"{LOCAL}:{port}"
    return f"{_lowest(addresses)}:{port}"


def _is_ours(address: str) -> bool:
    """Whether it is an address of this machine: only those can be bound to."""
    if spelt(address) == LOCAL:
        return True
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def _lowest(addresses: Iterable[str]) -> str:
    parsed = sorted(map(ipaddress.ip_address, addresses), key=lambda each: (each.version, int(each)))
    return str(parsed[0])
