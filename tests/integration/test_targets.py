"""A Postgres that could not keep, or not serve, what it is given is refused by `plan`, with the statement that mends it."""

# ruff: noqa: F811  # fixtures are imported, and then named as arguments

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import struct
import threading
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest

from hybridrag.backends.postgres.door import refused_methods
from hybridrag.backends.postgres.endpoint import Endpoint
from hybridrag.backends.postgres.spec import TlsSpec
from tests.conftest import Project, Server
from tests.support.external import PASSWORD, fields, refused, role, words  # noqa: F401
from tests.support.external import make as external
from tests.support.places import forget_notes
from tests.support.target import run_sql


def refusal(project: Project) -> str:
    """What `plan` says while it refuses the target."""
    done = project.run("plan")
    assert done.returncode == 4, done.stdout + done.stderr
    return words(done.stdout + done.stderr)


def mend(project: Project, said: str, start: str) -> None:
    """Type the statement that the refusal names."""
    assert project.dsn is not None
    found = re.search(rf"({start}.*?); then run hybridrag plan", said)
    assert found, said
    run_sql(project.dsn, found[1], "SELECT 1")


def test_pgvector_in_another_schema(project: Project) -> None:
    """Supabase keeps it in `extensions`, visible to every session; LightRAG's driver finds it in public only."""
    assert project.dsn is not None
    run_sql(
        project.dsn, 'CREATE SCHEMA "Ext s"', 'CREATE EXTENSION vector SCHEMA "Ext s"',
        f"ALTER DATABASE {project.dsn.rpartition('/')[2]} SET search_path = \"$user\", public, \"Ext s\"", "SELECT 1",
    )  # fmt: skip
    said = refusal(project)
    assert 'the schema "Ext s"' in said
    mend(project, said, "ALTER EXTENSION vector SET SCHEMA public")
    project.ok("plan")


def test_pgvector_would_be_created_where_lightrag_does_not_look(project: Project) -> None:
    """A schema named like the user comes first in the search path, so CREATE EXTENSION would put it there."""
    assert project.dsn is not None
    run_sql(project.dsn, "CREATE SCHEMA tester", "SELECT 1")
    mend(project, refusal(project), "CREATE EXTENSION vector SCHEMA public")
    project.ok("plan")
    spec = project.folder / "hybridrag.yaml"
    spec.write_text(
        spec.read_text().replace("    database:", "    options: {search_path: tester}\n    database:")
    )
    assert "search_path" in refusal(project)


SPOILED = (
    "ALTER TABLE lightrag_graph_edges SET UNLOGGED",
    "ALTER TABLE lightrag_graph_nodes SET UNLOGGED",
    "ALTER TABLE lightrag_llm_cache SET UNLOGGED",
    "ALTER TABLE hybridrag_ledger.checkpoint SET UNLOGGED",
    "ALTER TABLE lightrag_doc_full DROP CONSTRAINT lightrag_doc_full_pk",
    "CREATE UNIQUE INDEX half ON lightrag_doc_full (workspace, id) WHERE id > 'x'",
    "ALTER TABLE lightrag_doc_status ALTER COLUMN file_path TYPE varchar(40)",
    "ALTER TABLE lightrag_doc_chunks ALTER COLUMN tokens TYPE bigint",
    "ALTER TABLE lightrag_full_entities ALTER COLUMN entity_names TYPE text",
    "ALTER TABLE lightrag_entity_chunks ALTER COLUMN id TYPE char(700)",
)
INTERFERING = (
    "CREATE FUNCTION hush() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
    'CREATE TRIGGER "Hush it" BEFORE UPDATE ON lightrag_doc_full FOR EACH ROW EXECUTE FUNCTION hush()',
    "CREATE RULE never AS ON DELETE TO lightrag_doc_chunks DO INSTEAD NOTHING",
    "ALTER TABLE lightrag_doc_status ADD CONSTRAINT short CHECK (length(id) < 1000)",
)


def test_tables_that_could_not_keep_what_they_are_given(project: Project) -> None:
    """Each fault of each table in one refusal, and its statements mend them all; others who act there are a hazard."""
    assert project.dsn is not None
    project.ok("apply", "--auto-approve")
    spec = project.folder / "hybridrag.yaml"
    spec.write_text(spec.read_text() + "    workspace: second\n")
    shutil.rmtree(project.folder / "state")
    forget_notes(project)
    run_sql(project.dsn, *SPOILED, "SELECT 1")
    said = refusal(project)
    assert "table lightrag_llm_cache is UNLOGGED" in said
    assert "; 8 more like it" in said
    mend(project, said, "ALTER TABLE")
    run_sql(project.dsn, *INTERFERING, "SELECT 1")
    planned = words(project.ok("plan"))
    for name in ('trigger "Hush it" on lightrag_doc_full', "rule never", "constraint short"):
        assert name in planned
    assert "527 records equal" in words(project.ok("apply", "--auto-approve"))
    run_sql(project.dsn, "ALTER TABLE lightrag_llm_cache SET UNLOGGED", "SELECT 1")
    assert "a crash of the server empties it" in words(project.run("status").stdout)


def test_row_security_refuses_a_copy(tmp_path: Path, server: Server, database: str, role: str) -> None:
    """It holds for a user who neither owns the table nor may pass it by; the owner is told which table."""
    url = f"postgresql://{role}:{quote(PASSWORD, safe='')}@127.0.0.1:{server.port}/{database}"
    project = external(tmp_path, "    connection_string: {env: URL}")
    run_sql(
        server.dsn(database), "CREATE TABLE lightrag_doc_full (workspace varchar(255), id varchar(255), PRIMARY KEY (workspace, id))",
        f"GRANT ALL ON lightrag_doc_full TO {role}", "ALTER TABLE lightrag_doc_full ENABLE ROW LEVEL SECURITY", "SELECT 1",
    )  # fmt: skip
    refused(
        project, "row-level security", "ALTER TABLE lightrag_doc_full DISABLE ROW LEVEL SECURITY", URL=url
    )
    run_sql(server.dsn(database), "DROP TABLE lightrag_doc_full", "SELECT 1")


class Asking(threading.Thread):
    """A server that asks for the password in one way, and keeps what it is answered."""

    def __init__(self, request: bytes, refusal: str = "go away") -> None:
        super().__init__(daemon=True)
        self._request = request
        self._refusal = refusal
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.got = b""

    def run(self) -> None:
        while True:
            try:
                opened, _ = self._socket.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), opened:
                while opened.recv(4096)[4:8] in (b"\x04\xd2\x16\x2f", b"\x04\xd2\x16\x30"):
                    opened.sendall(b"N")  # no TLS
                for byte in self._request:  # in pieces, as a network may deliver it
                    opened.sendall(bytes([byte]))
                self.got += opened.recv(4096) if self._request else b""
                body = b"SFATAL\0VFATAL\0C28000\0M" + self._refusal.encode() + b"\0\0"
                opened.sendall(b"E" + struct.pack("!i", len(body) + 4) + body)

    def __enter__(self) -> Asking:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()


def request(code: int, more: bytes = b"") -> bytes:
    return b"R" + struct.pack("!ii", 8 + len(more), code) + more


NOTICE = b"N" + struct.pack("!i", 4 + 12) + b"SNOTICE\0Mx\0\0"
CLEAR, MD5 = request(3), request(5, b"salt")


@pytest.mark.parametrize(
    ("asks", "tls"),
    [
        (CLEAR, "prefer"),
        (NOTICE + CLEAR, "allow"),
        (request(0) + CLEAR, "disable"),
        (request(3, b"x" * 100), "prefer"),
    ],
)
def test_a_password_is_not_given_in_clear_text(tmp_path: Path, asks: bytes, tls: str) -> None:
    """Nor after a notice, nor after "you are in"; and to whom it may be given is said by name."""
    with Asking(asks) as rogue:
        says = ["in clear text over an unencrypted connection", "require_auth: password"]
        server = {"port": rogue.port, "password": "{env: PW}", "tls": f"{{mode: {tls}}}"}
        refused(external(tmp_path, fields(**server)), *says, PW=PASSWORD)
        assert rogue.got == b""
        refused(external(tmp_path, fields(**server, require_auth="password")), PW=PASSWORD)
        assert PASSWORD.encode() in rogue.got


def test_a_hash_that_can_be_guessed_stays_on_this_machine(tmp_path: Path) -> None:
    """MD5 is answered to a loopback address (PgBouncer's own default), elsewhere only where the spec names it."""
    with Asking(MD5) as rogue:
        server = {"port": rogue.port, "password": "{env: PW}"}
        refused(
            external(tmp_path, fields(**server, require_auth="scram-sha-256")), "as an MD5 hash", PW=PASSWORD
        )
        assert rogue.got == b""
        refused(external(tmp_path, fields(**server)), "go away", PW=PASSWORD)
        assert rogue.got.startswith(b"p")
    away = Endpoint(
        name="pg", hosts=(("db.example", 5432),), user="u", database="d", password=lambda: None, tls=TlsSpec()
    )
    assert refused_methods(away) == {3, 5}
    assert refused_methods(replace(away, require_auth="md5")) == {3}


def test_lightrag_is_not_given_a_password_that_would_be_asked_for_in_clear(project: Project) -> None:
    """Its driver answers whatever it is asked, so it is started only for a server that asked us properly."""
    project.ok("apply", "--auto-approve")
    spec = project.folder / "hybridrag.yaml"
    with Asking(CLEAR) as rogue:
        spec.write_text(re.sub(r"port: \d+", f"port: {rogue.port}", spec.read_text()))
        done = project.run("query", "notes", "who", "--context-only")
        assert done.returncode == 4
        assert "in clear text" in words(done.stderr)
        assert rogue.got == b""


def test_a_server_that_talks_for_megabytes_is_cut_short(tmp_path: Path) -> None:
    """Its message is shown, and what is shown has an end."""
    with Asking(b"", "A" * 5_000_000) as rogue:
        project = external(tmp_path, fields(port=rogue.port, password="{env: PW}"))
        for argv in (["plan"], ["status"]):
            done = project.run(*argv, PW=PASSWORD)
            assert "AAA" in done.stdout + done.stderr
            assert len(done.stdout + done.stderr) < 3000
