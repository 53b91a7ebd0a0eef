"""Where one slot of a database lies: equal where places are equal, whatever entry of a spec leads there.

A backend tells it in two ways. *Seen* (`Store.addresses`): the server was asked who it is, the folder was looked at; decides
what is copied, overwritten and deleted. *Declared* (`backends.declared`): from names alone, for what cannot be asked, such as
a spec that is being checked or another environment's registry; equal ones are one place, different ones may be.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass

from .data import Slot
from .facts import Facts, digest_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """One place. It holds no secret.

    `engine`: type of the backend. `server`: identity of the server, or the volume of a folder. `area`: database and schema,
    or the folder. `owner`: the name under which rows stand there (workspace, graph, prefix of collections); "" for files.
    """

    engine: str
    server: str
    area: str
    owner: str = ""

    @property
    def digest(self) -> str:
        """Sixteen hex digits for facts: what a user should see of a place stands elsewhere."""
        return digest_of(astuple(self))[:16]


Addresses = Mapping[Slot, Address]
"""The places of some slots; one that nobody can tell is absent."""


def place_facts(addresses: Addresses) -> Facts:
    """`place/<slot>`, equal for equal places."""
    return {f"place/{slot.value}": addresses[slot].digest for slot in Slot if slot in addresses}


def same_place(one: Facts, other: Facts, slots: Iterable[Slot]) -> list[Slot]:
    """The slots that have one place in both observations."""
    keys = {slot: f"place/{slot.value}" for slot in slots}
    return [slot for slot, key in keys.items() if one.get(key) is not None and one[key] == other.get(key)]


def shared(one: Addresses, other: Addresses) -> list[Slot]:
    """The slots of both that have one place."""
    return [slot for slot in Slot if slot in one and one[slot] == other.get(slot)]
