"""Names of Postgres databases: as short as they can be, never too long, never the same for two workspaces."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hybridrag.backends import declared
from hybridrag.backends.postgres.isolation import NAME_BYTES, own_database

WORKSPACES = st.text("abcABC_09-. 'é\"", min_size=1, max_size=255)


def test_a_plain_name_is_the_two_joined() -> None:
    assert own_database("hybridrag", "notes") == "hybridrag_notes"


@given(base=st.text(min_size=1, max_size=63), first=WORKSPACES, second=WORKSPACES)
def test_names_fit_and_stay_apart(base: str, first: str, second: str) -> None:
    """Folded where it has capitals, cut at a whole character; the configured database itself is never one of them."""
    names = own_database(base, first), own_database(base, second)
    assert all(len(name.encode()) <= NAME_BYTES for name in names)
    assert (names[0] == names[1]) == (first == second)
    assert base not in names
    assert not any(part.isupper() for part in names[0][len(base) + 1 :])


def test_names_that_a_server_has_already_are_never_taken() -> None:
    assert own_database("azure", "sys") not in ("azure_sys", "azure_maintenance")
    assert own_database("a" * 60, "notes")[:54] == "a" * 54
    assert len(own_database("ä" * 40, "notes").encode()) <= NAME_BYTES


def test_workspaces_that_share_a_graph_in_age_are_told() -> None:
    """LightRAG writes "_" for what a graph's name cannot hold, so two names become one; in tables they stay apart."""
    age = {"type": "postgres", "graph_storage": "PGGraphStorage"}
    names = ("v1.0", "v1_0", "v1_1")
    first, second, other = (set(declared("pg", age, name)) for name in names)
    assert len(first & second) == 1
    assert not first & other
    plain, dotted, _ = (set(declared("pg", {"type": "postgres"}, name)) for name in names)
    assert not plain & dotted
