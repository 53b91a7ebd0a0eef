"""After the switch: what LightRAG wrote since is normal, what was lost is not, and `verify`, `drift` and `repair` know it."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import jsonschema
import pytest

from tests.conftest import ROOT, Project, digests
from tests.support.lightrag_writes import write
from tests.support.target import content, run_sql

SCHEMA = json.loads((ROOT / "schemas" / "drift.schema.json").read_text("utf-8"))


def verified(project: Project) -> tuple[int, dict[str, dict[str, int]]]:
    """(exit code, what moved, by stream and kind; nothing that is zero)."""
    done = project.run("verify", "notes", "--json")
    since = json.loads(done.stdout)["since"]
    told = {name: {kind: n for kind, n in each.items() if n} for name, each in since.items()}
    return done.returncode, {name: each for name, each in told.items() if each}


def test_what_lightrag_writes_and_deletes_is_no_loss(project: Project) -> None:
    """A document inserted, another and an entity deleted by LightRAG: verify counts them, and nothing is called lost."""
    project.ok("apply", "--auto-approve")
    gone = min(json.loads((project.data / "kv_store_full_docs.json").read_text("utf-8")))
    write(project, delete=gone, entity="Café Réunion")
    code, moved = verified(project)
    assert moved["full_docs"] == {"written": 1, "removed": 1}
    assert moved["nodes"]["removed"] >= 1
    assert moved["relationships"]["removed"] >= 10
    assert code == 0, moved
    shown = project.ok("verify", "notes")
    assert "0 lost, 0 extra; since the switch: " in " ".join(shown.split())
    assert "nothing was switched" not in shown


TABLES = {
    "full_docs": "lightrag_doc_full",
    "text_chunks": "lightrag_doc_chunks",
    "doc_status": "lightrag_doc_status",
    "llm_response_cache": "lightrag_llm_cache",
    "entity_chunks": "lightrag_entity_chunks",
    "relation_chunks": "lightrag_relation_chunks",
    "entities": "lightrag_vdb_entity_hash_emb_96d",
    "relationships": "lightrag_vdb_relation_hash_emb_96d",
    "chunks": "lightrag_vdb_chunks_hash_emb_96d",
    "edges": "lightrag_graph_edges",
}
VECTORS = ("entities", "relationships", "chunks")


def drifted(project: Project) -> tuple[int, dict[str, Any]]:
    """(exit code, what `drift` says of the only database), as its schema has it."""
    done = project.run("drift", "--json")
    told = json.loads(done.stdout)
    jsonschema.Draft7Validator(SCHEMA).validate(told)
    (found,) = told["databases"]
    return done.returncode, found


def everything(project: Project) -> dict[str, Any]:
    """Rows of all tables of the workspace, and the definitions of all indexes, without what we note."""
    return {
        name: rows
        for name, rows in content(str(project.dsn), "notes").items()
        if "ledger" not in name.lower()
    }


def test_what_was_written_is_told_from_what_was_damaged(project: Project) -> None:
    """`drift` exits 0 after a document and 2 after a loss, names both, and `repair` mends the loss and nothing else."""
    dsn = str(project.dsn)
    project.ok("apply", "--auto-approve")
    code, found = drifted(project)
    assert (code, found["drifted"], found["compared"], found["written"]) == (0, False, True, [])
    write(project)
    code, found = drifted(project)
    assert (code, found["written"]) == (0, ["1 documents written since the last apply"])
    whole = everything(project)
    ((index,),) = run_sql(
        dsn,
        f"SELECT indexname FROM pg_indexes WHERE tablename = '{TABLES['chunks']}' AND indexdef LIKE '%hnsw%'",
    )
    run_sql(dsn, f'DROP INDEX "{index}"', "SELECT 1")
    kept = [
        row["__id__"] for row in json.loads((project.data / "vdb_relationships.json").read_text())["data"]
    ]
    run_sql(dsn, f"DELETE FROM {TABLES['relationships']} WHERE id IN {tuple(kept[:50])}", "SELECT 1")
    files = digests(project.data)
    code, found = drifted(project)
    assert code == 2
    assert found["written"] == ["1 documents written since the last apply"]
    assert found["damaged"] == [
        "50 relation vectors are gone",
        "the vector index of its chunk vectors is missing",
    ]
    assert found["next"].startswith("hybridrag repair notes (it is in files, kept until ")
    shown = project.run("drift").stdout
    assert "! notes   50 relation vectors are gone" in shown
    assert "1 of 1 database drifted." in shown
    failed = project.run("verify", "notes")
    assert failed.returncode == 7
    assert "since the switch: 50 records lost" in failed.stderr
    assert "nothing was switched" not in failed.stderr
    assert "→ hybridrag repair notes" in failed.stderr

    before = everything(project)
    dry = project.ok("repair", "notes", "--dry-run")
    assert "put back 50 relation vectors" in dry
    assert everything(project) == before
    project.ok("repair", "notes", "--yes")
    after = everything(project)
    assert {name for name in whole if after[name] != whole[name]} <= {TABLES["relationships"]}
    assert after.keys() == whole.keys()
    assert digests(project.data) == files
    assert drifted(project)[0] == 0
    assert verified(project)[0] == 0
    assert "Nothing of" in project.ok("repair", "notes", "--yes")


def lose(project: Project, random: Random) -> dict[str, int]:
    """Rows, or the vectors of rows, vanish from some tables; returns how many by stream."""
    dsn, lost = str(project.dsn), {}
    chosen_streams = random.sample(sorted(TABLES), random.randint(1, 3))
    if {"edges", "relationships"} <= set(chosen_streams):
        chosen_streams.remove("edges")  # an edge that goes with its vector is how LightRAG removes one
    for stream in chosen_streams:
        table = TABLES[stream]
        key = "src_id, tgt_id" if stream == "edges" else "id"
        column = "content_vector" if stream in VECTORS and random.random() < 0.5 else None
        chosen = f"SELECT ctid FROM {table} WHERE workspace = 'notes' ORDER BY md5(({key})::text || '{random.random()}')"
        rows = f"ctid = ANY(ARRAY({chosen} LIMIT {random.randint(1, 5)}))"
        change = f"UPDATE {table} SET {column} = NULL" if column else f"DELETE FROM {table}"
        lost[stream] = len(run_sql(dsn, f"{change} WHERE {rows} RETURNING 1"))
    return lost


@pytest.mark.slow
def test_any_loss_is_found_and_put_back(project: Project) -> None:
    """Some rows or vectors of some tables vanish: `drift` counts exactly those, `repair` restores them, all is equal."""
    project.ok("apply", "--auto-approve")
    for seed in range(8):
        lost = lose(project, Random(seed))
        code, found = drifted(project)
        streams = found["streams"].items()
        gone = {name: each["lost"] + each["vectors_gone"] for name, each in streams}
        assert (code, {name: count for name, count in gone.items() if count}) == (2, lost), f"seed {seed}"
        assert not any(each["extra"] for _, each in streams)
        project.ok("repair", "notes", "--yes")
        assert drifted(project)[0] == 0
        assert "equal: " in project.ok("verify", "notes")
