"""Every file of the corpus of bad input: a documented exit code, words that name the thing, and nothing changed or lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from hybridrag.errors import HybridragError
from hybridrag.planner import PlanFile
from tests.corpus.world import CORPUS, STREAMS, World, contents, spoil

KINDS = ("spec", "plan", "registry", "journal", "database")
CASES = [
    pytest.param(kind, case, id=f"{kind}: {case['name']}")
    for kind in KINDS
    for case in yaml.safe_load((CORPUS / kind / "index.yaml").read_text("utf-8"))
]


@pytest.fixture
def world(tmp_path: Path) -> World:
    folder = tmp_path / "project"
    folder.mkdir()
    return World(folder)


@pytest.mark.parametrize(("kind", "case"), CASES)
def test_what_was_found_once_is_answered_in_words(world: World, kind: str, case: dict[str, Any]) -> None:
    path = spoil(world, kind, case)
    before = contents(world.folder)
    if case["run"] == "examine":
        said = examined(world, case)
    else:
        done = world.run(*case["run"].split())
        said = done.text
        assert done.code == case["exit"], said
        if case["exit"] not in (0, 2):
            assert "error: " in said
    for words in ("Traceback", "unexpected error"):
        assert words not in said
    for words in case["says"]:
        assert words in " ".join(said.split()), said
    assert contents(world.folder) == before, f"{path.name} or something beside it was changed"


def examined(world: World, case: dict[str, Any]) -> str:
    """What is said of each bad record; every record is either kept or said of."""
    if "exit" in case:
        with pytest.raises(HybridragError) as refused:
            world.examine()
        assert refused.value.exit_code == case["exit"]
        return str(refused.value)
    for rows in (1, 2, 1000):
        good, bad = world.examine(rows)
        assert {name: [each.namespace for each in bad].count(name) for name in STREAMS} == {
            **dict.fromkeys(STREAMS, 0),
            **case["bad"],
        }
        assert sum(good.values()) + len(bad) == case.get("records", 40)
    return "\n".join(f'{each.namespace} "{each.key}": {each.reason}' for each in bad)


@pytest.mark.parametrize(
    "change",
    [
        {"steps": ()},
        {"in_place": ("notes",)},
        {"moves": {}},
    ],
    ids=["no steps", "in place", "no moves"],
)
def test_an_edited_plan_is_refused_though_its_digest_was_made_anew(
    world: World, change: dict[str, Any]
) -> None:
    """Only what this version plans for the same world is carried out."""
    path = world.file("saved.plan")
    assert world.run("plan", "--out", path.name).code == 0
    edited = PlanFile.model_validate_json(path.read_bytes()).model_copy(update=change)
    path.write_text(edited.model_copy(update={"plan_digest": edited.body_digest()}).model_dump_json())
    before = contents(world.folder)
    done = world.run("apply", path.name)
    assert done.code == 5, done.text
    assert "not the one that this hybridrag makes" in done.text
    assert contents(world.folder) == before


def test_a_step_for_nobody_is_refused(world: World) -> None:
    path = world.file("saved.plan")
    assert world.run("plan", "--out", path.name).code == 0
    plan = PlanFile.model_validate_json(path.read_bytes())
    steps = tuple(step.model_copy(update={"target": "nobody"}) for step in plan.steps)
    edited = plan.model_copy(update={"steps": steps})
    path.write_text(edited.model_copy(update={"plan_digest": edited.body_digest()}).model_dump_json())
    done = world.run("apply", path.name)
    assert done.code == 5, done.text


def test_no_file_of_the_corpus_is_large() -> None:
    assert [path for path in CORPUS.rglob("*") if path.is_file() and path.stat().st_size > 100_000] == []
