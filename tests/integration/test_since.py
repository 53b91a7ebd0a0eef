"""After the switch: what LightRAG wrote since is normal, what was lost is not, and `verify`, `drift` and `repair` know it."""

from __future__ import annotations

import json

from tests.conftest import Project
from tests.support.lightrag_writes import write


def verified(project: Project) -> tuple[int, dict[str, dict[str, int]]]:
    """(exit code, what moved, by stream and kind; nothing that is zero)."""
    done = project.run("verify", "notes", "--json")
    since = json.loads(done.stdout)["since"]
    told = {name: {kind: n for kind, n in each.items() if n} for name, each in since.items()}
    return done.returncode, {name: each for name, each in told.items() if each}


def test_what_lightrag_writes_and_deletes_is_no_loss(project: Project) -> None:
    """A document inserted and another deleted by LightRAG: verify exits 0 and counts them, and nothing is called lost."""
    project.ok("apply", "--auto-approve")
    gone = min(json.loads((project.data / "kv_store_full_docs.json").read_text("utf-8")))
    write(project, delete=gone)
    code, moved = verified(project)
    assert moved["full_docs"] == {"written": 1, "removed": 1}
    assert code == 0, moved
    shown = project.ok("verify", "notes")
    assert "0 lost, 0 extra; since the switch: " in " ".join(shown.split())
    assert "nothing was switched" not in shown
