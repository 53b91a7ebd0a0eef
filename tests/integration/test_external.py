"""An external Postgres: every way to name it, TLS as libpq means it, each refusal in its own words, no secret shown."""

# ruff: noqa: F811  # fixtures are imported, and then named as arguments

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import trustme

from hybridrag.backends.postgres.embedded_place import free_port
from tests.conftest import Server
from tests.support.external import CORE, PASSWORD, authority, fields, make, refused, role  # noqa: F401
from tests.support.plain_postgres import Plain, plain_postgres
from tests.support.target import run_sql

HBA = "local all all scram-sha-256\nhost all all all scram-sha-256\n"
HBA_TLS = "local all all scram-sha-256\nhostssl all all all scram-sha-256\n"


@pytest.fixture(scope="module")
def plain(authority: trustme.CA) -> Iterator[Plain]:
    """Debian's Postgres with TLS offered; its certificate is for 127.0.0.1 and "elsewhere.example"."""
    issued = authority.issue_cert("127.0.0.1", "elsewhere.example")
    with plain_postgres(PASSWORD, certificate=issued.private_key_and_cert_chain_pem.bytes()) as started:
        yield started


@pytest.fixture
def hba(plain: Plain) -> Iterator[Plain]:
    """The same; what a test does to its pg_hba.conf is undone."""
    yield plain
    plain.reconfigure(HBA)


def owner(plain: Plain, **more: object) -> str:
    said = {"host": "127.0.0.1", "port": plain.port, "user": "owner", "database": "postgres"}
    return fields(**{**said, "password": "{env: PW}", **more})


REACHED = "pgvector is not installed"
"""What the plan says of Debian's Postgres once it got in."""


def test_a_plain_server_is_refused_in_words(tmp_path: Path, plain: Plain) -> None:
    refused(make(tmp_path, owner(plain)), REACHED, "postgresql-<version>-pgvector", PW=PASSWORD)


@pytest.mark.slow
def test_every_way_to_write_the_password(tmp_path: Path, plain: Plain) -> None:
    """env, file, command, URI and keyword form, over TCP, IPv6 and the unix socket."""
    (tmp_path / "pw.txt").write_text(PASSWORD + "\n")
    secrets = {"PW": PASSWORD}
    for reference in ("{env: PW}", "{file: pw.txt}", "{command: [cat, pw.txt]}"):
        refused(make(tmp_path, owner(plain, password=reference)), REACHED, **secrets)
    for host in ('"::1"', plain.folder):
        refused(make(tmp_path, owner(plain, host=host)), REACHED, **secrets)
    word, folder = quote(PASSWORD, safe=""), quote(str(plain.folder), safe="")
    escaped = PASSWORD.replace("\\", "\\\\").replace("'", "\\'")
    for string in (
        f"postgresql://owner:{word}@127.0.0.1:{plain.port}/postgres",
        f"postgres://owner:{word}@[::1]:{plain.port}/postgres?sslmode=require",
        f"postgresql://owner:{word}@{folder}:{plain.port}/postgres",
        f"host={plain.folder} port={plain.port} user=owner password='{escaped}' dbname=postgres",
    ):
        refused(make(tmp_path, "    connection_string: {env: URL}"), REACHED, URL=string)


@pytest.mark.slow
def test_a_wrong_connection_string_shows_nothing(tmp_path: Path) -> None:
    project = make(tmp_path, "    connection_string: {env: URL}")
    refused(project, "backends.pg.connection_string", '"URL"', "not set")
    for string, says in (
        (f"postgresql://u:{CORE}@h/d?sslmod=x", '"sslmod"'),
        (f"postgresql://u:{PASSWORD}@h/d", "not a connection string"),
        (f"host=h password={CORE} {CORE}", "not a connection string"),
    ):
        refused(project, "backends.pg.connection_string", says, URL=string)
    for argv in (["plan", "--json"], ["status"], ["status", "--json"], ["health"], ["plan", "--debug"]):
        done = project.run(*argv, URL=f"postgresql://u:{PASSWORD}@h/d")
        assert CORE not in done.stdout + done.stderr


def test_string_and_fields_together_are_the_specs_error(tmp_path: Path) -> None:
    server = "    connection_string: {env: URL}\n    host: h\n    port: 5"
    refused(make(tmp_path, server), "hybridrag.yaml:5", "remove host, port", code=3)
    refused(make(tmp_path, fields(options="{TimeZone: x}")), "hybridrag.yaml:", '"TimeZone"', code=3)


@pytest.mark.slow
def test_tls_as_libpq_means_it(tmp_path: Path, hba: Plain, authority: trustme.CA) -> None:
    """A server that takes TLS only: accepted where the mode is satisfied, else refused in words."""
    hba.reconfigure(HBA_TLS)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    (tmp_path / "no.pem").write_text("nothing")
    for tls, host, says in (
        ("{mode: verify-full, ca: ca.pem}", "127.0.0.1", REACHED),
        ("{mode: verify-ca, ca: ca.pem}", '"::1"', REACHED),
        ("{mode: require}", "127.0.0.1", REACHED),
        ("{mode: prefer, ca: other.pem}", "127.0.0.1", REACHED),
        ("{mode: allow}", "127.0.0.1", REACHED),
        ("{mode: disable}", "127.0.0.1", "takes no connection without TLS"),
        ("{mode: disable}", str(hba.folder), REACHED),
        ("{mode: verify-full, ca: ca.pem}", '"::1"', "its certificate is for another address"),
        ("{mode: verify-full, ca: ca.pem}", "localhost", "its certificate is for another name"),
        ("{mode: require, ca: other.pem}", "127.0.0.1", "authority that is not trusted here"),
        ("{mode: verify-full, ca: other.pem}", "127.0.0.1", "authority that is not trusted here"),
        ("{mode: verify-full}", "127.0.0.1", "authority that is not trusted here"),
        ("{mode: verify-full, ca: absent.pem}", "127.0.0.1", "absent.pem"),
        ("{mode: verify-full, ca: no.pem}", "127.0.0.1", "holds no certificate"),
    ):
        refused(make(tmp_path, owner(hba, host=host, tls=tls)), says, PW=PASSWORD)
    string = f"postgresql://owner:{quote(PASSWORD, safe='')}@127.0.0.1:{hba.port}/postgres?sslmode="
    beside = "    connection_string: {env: URL}\n    tls: {ca: ca.pem}"
    refused(make(tmp_path, beside), REACHED, URL=string + "verify-full")
    refused(make(tmp_path, beside), "without TLS", URL=string + "disable")


def test_a_client_certificate(tmp_path: Path, hba: Plain, authority: trustme.CA) -> None:
    """An encrypted key, a pair that does not belong together, half a pair: told before any connection."""
    issued, other = authority.issue_cert("owner"), authority.issue_cert("else")
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    other.private_key_pem.write_to_path(str(tmp_path / "other.pem"))
    from cryptography.hazmat.primitives import serialization as form

    key = form.load_pem_private_key((tmp_path / "key.pem").read_bytes(), None)
    locked = form.BestAvailableEncryption(CORE.encode())
    (tmp_path / "locked.pem").write_bytes(
        key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, locked)
    )
    for name, says in (
        ("key.pem", REACHED),
        ("locked.pem", "has a passphrase"),
        ("other.pem", "do not belong together"),
    ):
        tls = f"{{mode: require, cert: cert.pem, key: {name}}}"
        refused(make(tmp_path, owner(hba, tls=tls)), says, PW=PASSWORD)
    refused(make(tmp_path, owner(hba, tls="{cert: cert.pem}")), "belong together", PW=PASSWORD, code=3)


@pytest.mark.slow
def test_each_failure_has_its_words(tmp_path: Path, hba: Plain, server: Server) -> None:
    """The door, the database, the network, the socket; and every one of them at once, not after retries."""
    empty = tmp_path / "empty"
    empty.mkdir()
    cases: list[tuple[dict[str, object], str]] = [
        ({"password": "{env: WRONG}"}, 'refuses the password of user "owner"'),
        ({"database": "absent"}, 'CREATE DATABASE "absent"'),
        ({"port": free_port()}, "connection refused"),
        ({"host": "no-such-host.invalid"}, "cannot be reached"),
        ({"host": empty}, "no such socket"),
        ({"port": server.port, "tls": "{mode: require}"}, "offers no TLS"),
    ]
    for changed, says in cases:
        began = time.monotonic()
        refused(make(tmp_path / "p", owner(hba, **changed)), says, PW=PASSWORD, WRONG=f"{CORE}x")
        assert time.monotonic() - began < 8  # the start of a process, not fifteen seconds of patience
    hba.reconfigure("host all nobody all scram-sha-256\n")
    refused(make(tmp_path / "p", owner(hba)), "does not let user", "pg_hba.conf", PW=PASSWORD)


def test_a_server_that_never_answers(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        url = f"postgresql://u:{CORE}@127.0.0.1:{port}/d?connect_timeout=1"
        refused(
            make(tmp_path, "    connection_string: {env: URL}"), "no answer within 1 s", "firewall", URL=url
        )


def test_a_socket_that_this_user_may_not_use(tmp_path: Path, hba: Plain) -> None:
    """The words alone: root, who may run these tests, may use every socket."""
    from hybridrag.backends.postgres.endpoint import Endpoint
    from hybridrag.backends.postgres.failures import explain
    from hybridrag.backends.postgres.spec import TlsSpec

    endpoint = Endpoint(
        name="pg", hosts=((str(hba.folder), hba.port),), user="u", database="d", password=lambda: None, tls=TlsSpec()
    )  # fmt: skip
    told = explain(PermissionError(13, "Permission denied"), endpoint)
    assert "may not use that socket" in told.what
    assert "unix_socket_permissions" in str(told.hint)


def test_a_managed_service_is_recognised(tmp_path: Path, plain: Plain) -> None:
    """Nobody can be told to apt-get install there."""
    admin = f"postgresql://owner:{quote(PASSWORD, safe='')}@127.0.0.1:{plain.port}/postgres"
    run_sql(admin, "CREATE ROLE rds_superuser", "SELECT 1")
    try:
        refused(make(tmp_path, owner(plain)), REACHED, "upgrade the instance", PW=PASSWORD)
    finally:
        run_sql(admin, "DROP ROLE rds_superuser", "SELECT 1")


def test_of_several_hosts_the_writable_one_is_used(
    tmp_path: Path, server: Server, database: str, role: str, plain: Plain
) -> None:
    """A first one that is read-only is passed over, by us and by LightRAG; none at all is told with each reason."""
    admin = f"postgresql://owner:{quote(PASSWORD, safe='')}@127.0.0.1:{plain.port}/postgres"
    run_sql(
        admin, f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD.replace(chr(39), chr(39) * 2)}'", f"CREATE DATABASE {database}",
        f"ALTER ROLE {role} SET default_transaction_read_only = on", "SELECT 1",
    )  # fmt: skip
    host = f"127.0.0.1:{plain.port},127.0.0.1:"
    project = make(tmp_path, "    connection_string: {env: URL}")
    start = f"postgresql://{role}:{quote(PASSWORD, safe='')}@{host}"
    refused(project, "none of its 2 hosts", "connection refused", URL=f"{start}{free_port()}/{database}")
    project.ok("apply", "--auto-approve", URL=f"{start}{server.port}/{database}")
    assert "No changes" in project.ok("plan", URL=f"{start}{server.port}/{database}")
    assert run_sql(server.dsn(database), "SELECT count(*) > 0 FROM lightrag_doc_full")[0][0]
