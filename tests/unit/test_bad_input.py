"""Every file of the corpus of bad input: a documented exit code, words that name the thing, and nothing changed or lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from hybridrag.errors import HybridragError
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


def test_no_file_of_the_corpus_is_large() -> None:
    assert [path for path in CORPUS.rglob("*") if path.is_file() and path.stat().st_size > 100_000] == []
