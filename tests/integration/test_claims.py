"""What is said of LightRAG is true: each damaged file is opened by the LightRAG that is installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Project, clean_environment

OPEN = """
import asyncio, sys
from lightrag.utils import load_json
from nano_vectordb import NanoVectorDB
import networkx
path = sys.argv[1]
if path.endswith(".graphml"):
    networkx.read_graphml(path)
elif "vdb_" in path:
    NanoVectorDB(96, storage_file=path)
else:
    {}.update(load_json(path) or {})
print("opened")
"""
"""How LightRAG 1.5.7 reads each kind of file (`json_kv_impl`, `nano_vector_db_impl`, `networkx_impl`)."""
FILES = (
    "kv_store_full_docs.json",
    "kv_store_doc_status.json",
    "kv_store_llm_response_cache.json",
    "vdb_chunks.json",
    "graph_chunk_entity_relation.graphml",
)
DAMAGES = {
    "empty": lambda data: b"",
    "blank": lambda data: b" \n" * 100,
    "cut off": lambda data: data[: len(data) // 2],
    "followed by something": lambda data: data + b"x",
    "an array": lambda data: b"[]",
    "a zero byte first": lambda data: b"\0" + data,
    "not UTF-8": lambda data: data[: len(data) // 2] + b"\xe9\xff" + data[len(data) // 2 + 2 :],
    "not a number": lambda data: data.rstrip().removesuffix(b"}") + b', "nan": {"content": NaN}}',
}


def opens(path: Path) -> bool:
    done = subprocess.run(
        [sys.executable, "-c", OPEN, str(path)],
        capture_output=True,
        text=True,
        env=clean_environment(),
        timeout=60,
    )
    return "opened" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_no_file_that_lightrag_opens_is_said_to_be_closed_to_it(
    project: Project, tmp_path: Path, name: str
) -> None:
    """In `plan` and in `status`; and what both can read is moved."""
    good = project.data / name
    kept = shutil.copy(good, tmp_path / "good")
    whole = kept.read_bytes() if isinstance(kept, Path) else Path(kept).read_bytes()
    for damage, spoil in DAMAGES.items():
        good.write_bytes(spoil(whole))
        done = project.run("plan")
        said = done.stderr + project.run("status").stdout
        if opens(good):
            assert "cannot open" not in said, f"{damage}: {said}"
            assert done.returncode in (0, 5), f"{damage}: {said}"
        elif done.returncode:
            assert name in said, f"{damage}: {said}"
