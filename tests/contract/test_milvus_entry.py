"""Milvus in a spec, without a server: wrong entries refused in words, names, what LightRAG is handed, a missing package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from hybridrag.backends.milvus.collections import foreign
from tests.conftest import ROOT, Project, clean_environment
from tests.support.milvus import MilvusServer
from tests.support.milvus_stores import EMBEDDING


def test_a_missing_package_is_an_error_in_words_with_the_command() -> None:
    """Also where a file's path in MILVUS_URI would break the package's import."""
    code = "import sys; sys.modules['pymilvus'] = None\n" + _OBSERVE
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "the Python package pymilvus is not installed" in done.stdout
    assert "pip install 'hybridrag-reconciler[milvus]'" in done.stdout
    done = subprocess.run(
        [sys.executable, "-c", _OBSERVE],
        cwd=ROOT,
        env=clean_environment(MILVUS_URI="./milvus.db"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "cannot be reached" in done.stdout
    assert done.stderr == ""


_OBSERVE = """
import asyncio
from hybridrag.backends.milvus.backend import MilvusBackend
from hybridrag.backends.milvus.spec import MilvusSpec
spec = MilvusSpec.model_validate({"type": "milvus", "uri": "http://127.0.0.1:9"})
print(asyncio.run(MilvusBackend("vectors", spec, secrets=None, schema=None).observe()))
"""


@pytest.mark.parametrize(
    ("name", "is_foreign"),
    [
        ("notes_entities", True),
        ("notes_entities_old", True),
        ("notes_chunks_other_model_8d", True),
        ("notes_2_chunks_other_model_8d", False),
        ("notes_entities_x_chunks_m_8d", False),
        ("other_notes_entities", False),
        ("notes_text_chunks", False),
        ("notes_entities_hash_emb_96d", False),
        ("hybridrag_ledger", False),
    ],
)
def test_collections_of_a_workspace_are_told_from_a_neighbours(name: str, is_foreign: bool) -> None:
    """By LightRAG's rule for names, of which a workspace's own name may be a part."""
    assert bool(foreign([name], "notes", ["notes_entities_hash_emb_96d"])) is is_foreign


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ({"uri": "http://root:secret@host:19530"}, "without a password in it"),
        ({"uri": "./milvus.db"}, "must be the address of a server"),
        ({"user": "root"}, "give user and password together"),
        (
            {"user": "root", "password": {"env": "P"}, "token": {"env": "T"}},
            "give either token, or user and password",
        ),
        ({"index": {"type": "ivf_flat", "nlist": 8, "nprobe": 9}}, "nprobe must not be above nlist"),
        ({"index": {"type": "ivf_pq"}}, "known: autoindex, diskann, hnsw, hnsw_sq"),
        ({"database": "a b"}, 'may hold letters, digits and "_"'),
    ],
)
def test_a_wrong_entry_is_refused_in_words(tmp_path: Path, declared: dict[str, Any], words: str) -> None:
    """By the command, with the documented code; no password is shown."""
    spec = {
        "version": 1,
        "environment": "test",
        "backends": {"files": {"type": "json"}, "vectors": {"type": "milvus", **declared}},
        "databases": {
            "notes": {"path": "./notes", "backend": "files", "embedding": {"model": "m", "dim": 4}}
        },
    }
    (tmp_path / "hybridrag.yaml").write_text(yaml.safe_dump(spec), "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "hybridrag", "validate"],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stdout + done.stderr
    assert words in done.stdout + done.stderr
    assert "secret@" not in done.stdout + done.stderr


def test_selection_hands_lightrag_what_the_spec_says_and_hides_the_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Variables by LightRAG's names; the password is a secret, read when it is needed."""
    monkeypatch.setenv("MILVUS_TEST_PASSWORD", "pass word")
    server = MilvusServer(Path())
    login = {"user": "root", "password": {"env": "MILVUS_TEST_PASSWORD"}}
    selection = (
        server.backend("rag", index={"type": "hnsw", "m": 32}, **login)
        .store("", "notes", EMBEDDING)
        .selection()
    )
    assert selection.vector == "MilvusVectorDBStorage"
    assert selection.kv is selection.graph is selection.doc_status is None
    told = {
        "URI": server.uri,
        "DB_NAME": "rag",
        "WORKSPACE": "notes",
        "USER": "root",
        "INDEX_TYPE": "HNSW",
        "HNSW_M": "32",
    }
    assert {name: selection.variables[f"MILVUS_{name}"] for name in told} == told
    assert "pass word" not in repr(selection)
    assert {name: get() for name, get in selection.secrets.items()} == {"MILVUS_PASSWORD": "pass word"}


def test_a_backend_that_cannot_hold_a_database_is_refused_for_a_new_one(tmp_path: Path) -> None:
    """By what it serves, before any server is asked; nothing is written."""
    spec = {
        "version": 1,
        "environment": "test",
        "backends": {"files": {"type": "json"}, "vectors": {"type": "milvus", "uri": "http://127.0.0.1:9"}},
        "databases": {},
    }
    path = tmp_path / "hybridrag.yaml"
    path.write_text(yaml.safe_dump(spec), "utf-8")
    before = path.read_bytes()
    project = Project(tmp_path, tmp_path, None)
    for named in ("vectors", "milvus"):
        argv = ("db", "create", "notes", "--backend", named, "--embedding-dim", "4", "--embedding-model", "m")
        refused = project.run(*argv)
        assert refused.returncode == 2, refused.stderr
        words = " ".join(refused.stderr.split())
        assert 'backend "vectors" (milvus) cannot hold a database alone' in words
        assert "hybridrag migrate notes --to vectors moves its vector slot there" in words
    assert path.read_bytes() == before
    assert not (tmp_path / "state").exists()
