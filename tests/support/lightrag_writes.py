"""LightRAG writes to whatever serves a project's database: a document in, a document or an entity out."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.conftest import ROOT, Project, clean_environment

TEXT = "The harbour. " + " ".join(
    f"«Zoë Müller» leads «tide tables» at «Ōsaka Harbour» in cycle {n}." for n in range(900, 912)
)


def write(project: Project, *, delete: str = "doc-nothing", entity: str | None = None) -> None:
    """Insert a document, delete another one and an entity through LightRAG, on whatever serves."""
    task = {
        "spec": str(project.folder / "hybridrag.yaml"), "insert": TEXT, "file": "hafen_é.txt",
        "delete": delete, "delete_chunks": [], "questions": [], "modes": [], "top_k": 5, "entity": entity,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.ask_database", "edit"],
        input=json.dumps(task),
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
