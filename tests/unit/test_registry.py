"""The registry: other people's keys and entries survive, a kill never leaves half a file, bad files have words."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from hybridrag.errors import SpecInvalid
from hybridrag.journal import Registry, RegistryEntry, RegistryFile, facts_of
from tests.conftest import digests

WRITTEN = """\
# written by a person
version: 1
owner: Zoë
rules: {retention: [1, {days: 30}], since: 2024-02-29}
databases:
  other:
    name: other
    path: /data/other
    auto_watch: true
    tags: [a, b]
    reviewed: 2024-05-01 10:00:00
  notes: {name: notes, path: /data/notes, color: blue}
"""


def entry(**fields: Any) -> RegistryEntry:
    return RegistryEntry.model_validate({"name": "notes", "path": "/data/notes", **fields})


def test_what_others_wrote_is_kept(tmp_path: Path) -> None:
    """Unknown keys of the file and of other entries stay, with their types and in their order."""
    registry = Registry(tmp_path / "registry.yaml")
    registry.path.write_text(WRITTEN, encoding="utf-8")
    registry.put(entry(backend="pg", backend_type="postgres", color="blue"))
    before, after = yaml.safe_load(WRITTEN), yaml.safe_load(registry.path.read_text("utf-8"))
    assert {key: after[key] for key in ("owner", "rules")} == {key: before[key] for key in ("owner", "rules")}
    assert after["rules"]["since"] == dt.date(2024, 2, 29)
    assert before["databases"]["other"].items() <= after["databases"]["other"].items()
    assert list(after["databases"]) == ["other", "notes"]
    notes = registry.read().databases["notes"]
    assert (notes.backend, notes.backend_type, notes.model_extra) == ("pg", "postgres", {"color": "blue"})
    text = registry.path.read_text("utf-8")
    registry.put(notes)
    assert registry.path.read_text("utf-8") == text, "writing what is there changes nothing"


def test_a_missing_file_is_an_empty_registry_and_a_folder_is_made_for_it(tmp_path: Path) -> None:
    """Reading creates nothing; the first entry does."""
    registry = Registry(tmp_path / "state" / "dev" / "registry.yaml")
    assert registry.read() == RegistryFile()
    assert not (tmp_path / "state").exists()
    registry.put(entry(backend="pg"))
    assert list(registry.read().databases) == ["notes"]


def test_a_kill_in_the_middle_leaves_the_old_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new text lies in a temporary file until it is on disk; leftovers of a kill are ignored and replaced."""
    registry = Registry(tmp_path / "registry.yaml")
    registry.put(entry(backend="pg"))
    whole = registry.path.read_bytes()

    def die(_: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", die)
        with pytest.raises(KeyboardInterrupt):
            registry.put(entry(backend="elsewhere"))
    assert registry.path.read_bytes() == whole
    (left,) = set(tmp_path.iterdir()) - {registry.path}
    left.write_bytes(b"databases: {half: [")
    assert registry.read().databases["notes"].backend == "pg"
    registry.put(entry(backend="elsewhere"))
    assert registry.read().databases["notes"].backend == "elsewhere"
    assert list(tmp_path.iterdir()) == [registry.path]


@pytest.mark.parametrize(
    ("text", "words", "place"),
    [
        ("databases: {a: [", "not YAML", ":1:17"),
        ("a: 1\nb: 'x", "not YAML", ":2:"),
        ("- 1\n", "top level", ""),
        ("version: 2\n", "version", ""),
        ("databases: {notes: {path: 3, name: n}}\n", "databases.notes.path", ""),
        ("databases: {notes: null}\n", "databases.notes", ""),
        ("a: \x00", "not YAML", ""),
        ("a: !!python/object:os.system x", "not YAML", ""),
        (b"\xff\xfe\x00", "UTF-8", ""),
    ],
)
def test_a_registry_that_cannot_be_understood_is_refused_and_left_alone(
    tmp_path: Path, text: str | bytes, words: str, place: str
) -> None:
    """Reading and writing both say what and where; not one byte changes."""
    registry = Registry(tmp_path / "registry.yaml")
    registry.path.write_bytes(text if isinstance(text, bytes) else text.encode())
    before = digests(tmp_path)
    with pytest.raises(SpecInvalid, match=words) as caught:
        registry.read()
    assert f"{registry.path}{place}" in (caught.value.where or "")
    with pytest.raises(SpecInvalid):
        registry.put(entry(backend="pg"))
    assert digests(tmp_path) == before


def test_facts_of_an_entry_are_flat_and_simple(tmp_path: Path) -> None:
    """Whatever stands in a hand-written `backend_config`, a fact is one simple value."""
    assert facts_of(None) == {"backend": None}
    config = {
        "port": 5432,
        "tls": {"mode": "require", "since": dt.date(2024, 1, 1)},
        "hosts": ["a", "b"],
        "none": None,
    }
    facts = facts_of(entry(backend="pg", backend_type="postgres", backend_config=config))
    assert facts == {
        "backend": "pg",
        "backend_type": "postgres",
        "path": "/data/notes",
        "config/port": 5432,
        "config/tls": '{"mode": "require", "since": "2024-01-01"}',
        "config/hosts": '["a", "b"]',
        "config/none": None,
    }
