"""A connection string comes out as it was meant, whatever the texts in it; its mistakes show nothing of it."""

from __future__ import annotations

import traceback
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridrag.backends.postgres.dsn import parse_dsn
from hybridrag.errors import SpecInvalid
from hybridrag.model.secret import Secret

CANARY = "k4n@r:i/7?#% 'q"
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1, max_size=40)


def parse(text: str):  # type: ignore[no-untyped-def]
    return parse_dsn(Secret(text), used_by="backends.pg.connection_string")


@given(TEXT, TEXT, TEXT)
def test_any_text_that_is_percent_encoded_comes_out_the_same(user: str, password: str, database: str) -> None:
    """User, password and database, in both schemes; and with libpq's quotes in the keyword form."""
    u, p, d = (quote(each, safe="") for each in (user, password, database))
    for scheme in ("postgres", "postgresql"):
        said = parse(f"{scheme}://{u}:{p}@h/{d}")
        assert (said.user, said.password.reveal(), said.database) == (user, password, database)
    u, p, d = (each.replace("\\", "\\\\").replace("'", "\\'") for each in (user, password, database))
    said = parse(f"host=h user='{u}' password='{p}' dbname = '{d}'")
    assert (said.user, said.password.reveal(), said.database) == (user, password, database)


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("postgresql://u@h/d", (("h", 5432),)),
        ("postgresql://u@[::1]:6000/d", (("::1", 6000),)),
        ("postgresql://u@h1:1,h2:2,[fe80::2]/d", (("h1", 1), ("h2", 2), ("fe80::2", 5432))),
        ("postgresql://u@%2Fvar%2Frun/d", (("/var/run", 5432),)),
        ("postgresql:///d?host=/var/run&user=u&port=6000", (("/var/run", 6000),)),
        ("host=h1,h2 port=6000 user=u", (("h1", 6000), ("h2", 6000))),
        ("host='/tmp/a b' user=u", (("/tmp/a b", 5432),)),
    ],
)
def test_hosts_of_every_kind(text: str, hosts: object) -> None:
    """Names, IPv6 addresses, folders of sockets, several with their ports or one for all."""
    assert parse(text).hosts == hosts


def test_parameters_of_the_session_and_of_tls() -> None:
    """`options` become settings, split as the server does; files and mode are TLS; a database defaults to the user."""
    said = parse(
        "postgresql://u@h?sslmode=verify-ca&sslrootcert=/ca.pem&sslcert=/c.pem&sslkey=/k.pem&connect_timeout=7"
        "&target_session_attrs=read-write&application_name=a+b&gssencmode=disable"
        "&options=-c%20search_path%3Da%5C%20b%20--statement-timeout%3D30s%20-cwork_mem%3D8MB"
    )
    assert said.settings == {"search_path": "a b", "statement_timeout": "30s", "work_mem": "8MB"}
    assert (said.mode, str(said.ca), str(said.cert), str(said.key)) == (
        "verify-ca", "/ca.pem", "/c.pem", "/k.pem",
    )  # fmt: skip
    assert (said.connect_timeout_s, said.database) == (7, "u")
    system = parse("postgresql://u@h?sslrootcert=system")
    assert (system.mode, system.ca) == ("verify-full", None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"postgresql://u:{quote(CANARY)}@h/d?sslmod=require", 'no parameter "sslmod"'),
        ("host=h user=u connection_limit=5", 'no parameter "connection_limit"'),
        ("postgresql://u:pw@h/d?channel_binding=require", '"channel_binding"'),
        ("postgresql://u:pw@h/d?service=prod", '"service"'),
        ("postgresql://u:pw@h/d?target_session_attrs=standby", '"target_session_attrs"'),
        ("postgresql://u:pw@h/d?sslmode=sure", '"sslmode"'),
        ("postgresql://u:pw@h/d?sslcert=/x", '"sslcert" and "sslkey"'),
        ("postgresql://u:pw@h:canary/d", "its port"),
        ("postgresql://u:pw@h1,h2,h3/d?port=1,2", "3 hosts"),
        ("postgresql://u:pw@h/d?options=-x", '"options"'),
        ("postgresql://u:pw@h/d?options=-c%20TimeZone%3Dutc", '"TimeZone"'),
        ("postgresql://:pw@h/d", "no user"),
        ("postgresql://u:pw@/d", "no host"),
        (f"postgresql://u:{CANARY}@h/d", "not a connection string"),
        ("mysql://u:canary@h/d", "not a connection string"),
        ("canary", "not a connection string"),
        ("password=a canary=b host=h", "not a connection string"),
        ("host=h password='canary", "not a connection string"),
        ("host=h password=canary pass word", "not a connection string"),
        ("postgresql://u:100%@h/canary", "not a connection string"),
        ("host=h\0canary", "not a connection string"),
        ("", "no user"),
    ],
)
def test_a_mistake_is_named_and_no_value_is_shown(text: str, words: str) -> None:
    """The parameter where it is certainly one; never a value, also not in the chain of a traceback."""
    with pytest.raises(SpecInvalid) as caught:
        parse(text)
    assert words in caught.value.what
    assert caught.value.hint
    told = "".join(traceback.format_exception(caught.value)) + str(caught.value.hint)
    assert not any(piece in told for piece in (CANARY, quote(CANARY), "canary", "pw@", "sure"))
