"""Secrets: found where the spec points, and never shown by anything on the way."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import sys
import traceback
from pathlib import Path
from urllib.parse import quote

import asyncpg
import pytest

from hybridrag.adapters.lightrag_process import _answer
from hybridrag.adapters.secrets import Secrets
from hybridrag.backends.postgres.endpoint import Endpoint
from hybridrag.backends.postgres.failures import explain
from hybridrag.backends.postgres.spec import TlsSpec
from hybridrag.errors import BackendUnavailable, HybridragError, SpecInvalid
from hybridrag.model.secret import Secret, SecretRef, without_resolved

VALUE = "p@ss wörd'\"\\ 1"


def secrets(tmp_path: Path, **environ: str) -> Secrets:
    return Secrets(environ, tmp_path)


def test_each_kind_of_reference_gives_the_first_line(tmp_path: Path) -> None:
    """Variable, file beside the spec or elsewhere, and the output of a command in the spec's folder."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "pw").write_text(f"{VALUE}\nnot this\n", encoding="utf-8")
    (tmp_path / "crlf").write_bytes(f"{VALUE}\r\n".encode())
    resolve = secrets(tmp_path, PW=VALUE)
    code = f"import sys; sys.stdout.buffer.write({VALUE!r}.encode() + b'\\nmore')"
    for ref in (
        {"env": "PW"},
        {"file": "sub/pw"},
        {"file": str(tmp_path / "sub" / "pw")},
        {"file": "crlf"},
        {"command": [sys.executable, "-X", "utf8", "-c", code]},
        {"command": [sys.executable, "-c", "print(open('sub/pw', encoding='utf-8').readline())"]},
    ):
        found = resolve.resolve(SecretRef.model_validate(ref), used_by="backends.pg.password")
        assert found.reveal() == VALUE, ref


@pytest.mark.parametrize(
    ("ref", "words"),
    [
        ({"env": "NONE"}, 'environment variable "NONE"'),
        ({"env": "EMPTY"}, 'environment variable "EMPTY"'),
        ({"file": "none"}, "cannot be read"),
        ({"file": "."}, "cannot be read"),
        ({"file": "binary"}, "cannot be read"),
        ({"file": "empty"}, "empty secret"),
        ({"file": "blank"}, "empty secret"),
        ({"command": ["/no/such/program"]}, "could not be run"),
        ({"command": [sys.executable, "-c", f"print({VALUE!r}); raise SystemExit(3)"]}, "exit code 3"),
        ({"command": [sys.executable, "-c", ""]}, "empty secret"),
    ],
)
def test_a_reference_to_nothing_is_the_specs_error_and_shows_no_value(
    tmp_path: Path, ref: dict[str, object], words: str
) -> None:
    """It says where the reference stands and what is wrong, never what was found."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty").write_text("")
    (tmp_path / "blank").write_text(f"\n{VALUE}\n", encoding="utf-8")
    with pytest.raises(SpecInvalid, match=words) as caught:
        secrets(tmp_path, EMPTY="").resolve(SecretRef.model_validate(ref), used_by="backends.pg.password")
    assert "backends.pg.password" in caught.value.what
    told = "".join(traceback.format_exception(caught.value)) + json.dumps(caught.value.as_dict())
    assert VALUE not in told


def test_a_secret_cannot_be_printed_logged_or_pickled(caplog: pytest.LogCaptureFixture) -> None:
    """Only `reveal` shows it."""
    secret = Secret(VALUE)
    logging.getLogger("x").warning("%s %r", secret, [secret])
    shown = [
        str(secret),
        repr(secret),
        f"{secret}",
        f"{secret!r:>30}",
        f"{[secret]}",
        json.dumps(secret, default=str),
        caplog.text,
    ]
    assert not any(VALUE in text for text in shown)
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            attempt(secret)


@pytest.mark.parametrize(
    "out",
    [
        json.dumps({"error": f"password {VALUE} was refused"}).encode(),
        f"Traceback: postgres://u:{VALUE}@h".encode(),
        json.dumps({"error": f"not found: {VALUE}", "spec": True, "hint": f"try {VALUE}"}).encode(),
    ],
)
def test_what_lightrag_says_in_its_process_is_told_without_the_secret(out: bytes) -> None:
    """Its answer, or the last lines of its log when it died."""
    log = f"1\n2\nconnecting with {VALUE}\n".encode()
    with pytest.raises((BackendUnavailable, SpecInvalid)) as caught:
        _answer("schema", out, log, [VALUE])
    error: HybridragError = caught.value
    assert VALUE not in str(error)
    assert "***" in str(error)


def test_an_error_of_a_server_or_a_library_loses_the_secret_on_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pooler that quotes the connection string, and what --debug shows of a call's arguments."""
    monkeypatch.setattr("hybridrag.model.secret._resolved", set())  # those of other tests
    told = secrets(tmp_path, PW=VALUE).resolve(SecretRef(env="PW"), used_by="backends.pg.password")
    endpoint = Endpoint(
        name="pg", hosts=(("db", 5432),), user="u", database="d", tls=TlsSpec(), password=lambda: told
    )
    said = explain(asyncpg.PostgresError(f"postgresql://u:{quote(VALUE, safe='')}@db is no use"), endpoint)
    assert "answered: postgresql://u:***@db is no use" in said.what
    assert without_resolved(repr({"password": VALUE})) == "{'password': '***'}"
