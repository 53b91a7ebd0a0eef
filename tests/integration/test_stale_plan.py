"""A plan for a world that has moved on, before or while it is applied, or that was damaged: nothing is switched."""

# ruff: noqa: F811  # fixtures are imported, and then named as arguments

from __future__ import annotations

import asyncio
import json
import os
import shutil
from typing import Any

import pytest

import hybridrag
from hybridrag.actions import migrate as migrate_action
from hybridrag.actions import validate as validate_action
from hybridrag.actions import verify as verify_action
from hybridrag.errors import PlanRefused
from tests.conftest import Project, Server
from tests.support.places import forget_state
from tests.support.spoiling import write_registry
from tests.support.target import relations, run_sql
from tests.support.untouched import assert_refused, empty, serving, untouched  # noqa: F401

# --- plan files ---


def test_a_stale_plan_is_refused_and_says_what_moved(untouched: Project, server: Server, empty: str) -> None:
    """A saved plan is carried out only in the world it was made for: records, registry, spec and server."""
    untouched.ok("plan", "--out", "saved.plan")
    source, settings = untouched.data / "kv_store_full_docs.json", untouched.folder / "hybridrag.yaml"
    content, times, text = source.read_bytes(), source.stat(), settings.read_text()

    def stale(*says: str) -> None:
        assert_refused(untouched.run("apply", "saved.plan"), 5, "the plan is stale", *says, "hybridrag plan")
        assert relations(server.dsn(empty)) == there

    there = relations(server.dsn(empty))
    source.write_bytes(content + b"\n")
    stale(
        "store/notes@json.fingerprint",
        f"store/notes@json.bytes: {size_of(untouched) - 1} → {size_of(untouched)}",
    )
    source.write_bytes(content)
    os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))
    settings.write_text(text.replace("backend: pg", "backend: pg\n    migration: {batch: 7}"))
    stale("the spec was changed")
    settings.write_text(text)
    write_registry("databases: {notes: {name: notes, path: /elsewhere}}\n")(untouched)
    stale("registry/notes.path", "/elsewhere")
    shutil.rmtree(untouched.folder / "state")
    run_sql(server.dsn(empty), "CREATE EXTENSION vector")
    there = relations(server.dsn(empty))
    stale("backend/pg.pgvector: absent → ")


def size_of(project: Project) -> int:
    return sum(path.stat().st_size for path in project.data.iterdir())


def test_a_damaged_plan_file_is_not_carried_out(untouched: Project, server: Server, empty: str) -> None:
    """A plan that was cut, edited, or is none at all is refused by name; a missing one is not found."""
    there = relations(server.dsn(empty))
    plan = untouched.folder / "saved.plan"
    untouched.ok("plan", "--out", plan.name)
    whole = plan.read_text()
    edited = json.loads(whole)
    edited["steps"] = [step for step in edited["steps"] if step["verb"] != "verify"]
    newer = {**json.loads(whole), "version": 3}
    spoiled = (whole[: len(whole) // 2], json.dumps(edited), json.dumps(newer), "", "[]", "\x00\x01")
    for text in spoiled:
        plan.write_text(text)
        assert_refused(untouched.run("apply", plan.name), 3, "saved.plan", "hybridrag plan --out FILE")
    plan.unlink()
    assert_refused(
        untouched.run("apply", plan.name), 6, '"saved.plan" does not exist', "hybridrag plan --out"
    )
    assert relations(server.dsn(empty)) == there
    assert not (untouched.folder / "state").exists()


# --- found while applying: nothing is switched, and the way on is open ---


@pytest.mark.slow
def test_a_source_that_is_written_meanwhile_is_never_switched(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write while examining, copying or verifying is noticed; the next apply starts from the new state."""

    def attempt() -> Any:
        async def run() -> Any:
            plan = await hybridrag.plan(hybridrag.load(project.folder / "hybridrag.yaml"))
            return await hybridrag.apply(plan)

        return asyncio.run(run())

    def written_after(function: Any) -> Any:
        async def wrapper(*args: Any, **named: Any) -> Any:
            result = await function(*args, **named)
            (project.data / "kv_store_doc_status.json").touch()
            return result

        return wrapper

    moments = (
        (validate_action, "examine_source", "was written while it was examined"),
        (migrate_action, "copy_ranges", "was written after it was planned; nothing was switched"),
        (verify_action, "compare", "was written after it was planned; nothing was switched"),
    )
    for module, name, says in moments:
        with monkeypatch.context() as patch:
            patch.setattr(module, name, written_after(getattr(module, name)))
            with pytest.raises(PlanRefused, match=says) as refused:
                attempt()
        assert "hybridrag apply" in str(refused.value)
        assert serving(project) is None
    assert attempt().outcome == "done"
    assert serving(project) == "pg"
    project.ok("verify", "notes")


def _written_to(project: Project, count: int) -> None:
    """Documents more in the source, as its writer would leave them."""
    path = project.data / "kv_store_full_docs.json"
    documents = json.loads(path.read_text("utf-8"))
    document = documents[next(iter(documents))]
    documents |= {f"doc-late{number}": {**document, "_id": f"doc-late{number}"} for number in range(count)}
    path.write_text(json.dumps(documents, indent=2, ensure_ascii=False), encoding="utf-8")


def _with_a_writer(project: Project) -> str:
    spec = project.folder / "hybridrag.yaml"
    text = spec.read_text("utf-8") + '    writer: {kind: command, pause: ["true"], resume: ["true"]}\n'
    spec.write_text(text, encoding="utf-8")
    return text


def test_a_saved_plan_survives_the_writer_that_it_is_made_for(project: Project) -> None:
    """Documents more between plan and apply are no other world; spec, registry, marks and servers are."""
    spec, text = project.folder / "hybridrag.yaml", _with_a_writer(project)
    assert project.dsn
    project.ok("plan", "--out", "saved.plan")
    _written_to(project, 3)

    def stale(*says: str) -> None:
        assert_refused(project.run("apply", "saved.plan"), 5, "the plan is stale", *says, "hybridrag plan")

    spec.write_text(
        text.replace("backend: pg\n", "backend: pg\n    migration: {batch: 7}\n"), encoding="utf-8"
    )
    stale("the spec was changed")
    spec.write_text(text, encoding="utf-8")
    write_registry("databases: {notes: {name: notes, path: /elsewhere}}\n")(project)
    stale("registry/notes.path", "/elsewhere")
    shutil.rmtree(project.folder / "state")
    run_sql(project.dsn, "CREATE EXTENSION vector")
    stale("backend/pg.pgvector: absent → ")
    project.ok("plan", "--out", "saved.plan")
    killed = project.run("apply", "--auto-approve", HYBRIDRAG_FAILPOINTS="migrate.copied=kill")
    assert killed.returncode != 0
    stale("store/notes@pg.migration: absent → ")
    project.ok("plan", "--out", "saved.plan")
    _written_to(project, 5)
    project.ok("apply", "saved.plan")
    assert run_sql(project.dsn, "SELECT count(*) FROM lightrag_doc_full WHERE id LIKE 'doc-late%'") == [(5,)]


def test_a_plan_is_applied_once(project: Project) -> None:
    """Whoever applied it: the second time names the run, also without the state folder, and does not call it stale."""
    _with_a_writer(project)
    for name in ("first.plan", "second.plan"):
        project.ok("plan", "--out", name)
        _written_to(project, len(name))
    project.ok("apply", "first.plan")
    (run,) = [line.split()[0] for line in project.ok("history").splitlines() if "done" in line]
    for name in ("first.plan", "second.plan"):
        again = project.run("apply", name)
        assert_refused(again, 5, "the plan was applied already", run, "hybridrag plan")
        assert "stale" not in again.stderr
    forget_state(project)
    assert_refused(project.run("apply", "first.plan"), 5, '"notes" is served by pg since', run)
