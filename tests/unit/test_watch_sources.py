"""What of a folder is a document, and which of them are still to be ingested."""

from __future__ import annotations

import os
from pathlib import Path
from zlib import crc32

import pytest

from hybridrag.model.watching import Document, Fate, Outcome, Source
from hybridrag.watch import backlog as backlog_module
from hybridrag.watch.backlog import Backlog
from hybridrag.watch.sources import Unusable, folder_of, listing, read


def source(path: Path, kind: str = "filesystem", *, recursive: bool = True) -> Source:
    return Source(kind=kind, path=str(path), recursive=recursive, extensions=(".md", ".txt"))


def names(path: Path, **how: object) -> list[str]:
    found = listing(source(path, **how))  # type: ignore[arg-type]
    assert found is not None
    return sorted(found)


def test_only_documents_are_listed(tmp_path: Path) -> None:
    """Extensions in any case; nothing hidden, nothing that an editor put there, no folder with an extension."""
    for name in (
        "a.md", "B.TXT", "sub/c.md", "sub/deeper/é 文.md", ".hidden.md", ".git/d.md", "a.md~", "#a.md#", "~$a.md",
        ".a.md.swp", "a.py", "md",
    ):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("text", encoding="utf-8")
    (tmp_path / "folder.md").mkdir()
    os.mkfifo(tmp_path / "pipe.md")
    assert names(tmp_path) == ["B.TXT", "a.md", "sub/c.md", "sub/deeper/é 文.md"]
    assert names(tmp_path, recursive=False) == ["B.TXT", "a.md"]


def test_links_that_lead_in_circles_end(tmp_path: Path) -> None:
    """A folder is looked through once; a link to nowhere is no file, one to a file is."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.md").write_text("text", encoding="utf-8")
    (tmp_path / "real" / "up").symlink_to(tmp_path)
    (tmp_path / "zz-again").symlink_to(tmp_path / "real")
    (tmp_path / "b.md").symlink_to(tmp_path / "nowhere.md")
    (tmp_path / "c.md").symlink_to(tmp_path / "real" / "a.md")
    assert names(tmp_path) == ["c.md", "real/a.md"]


def test_specstory_sessions_are_found_from_the_project_and_from_their_folder(tmp_path: Path) -> None:
    """The project, `.specstory` and `.specstory/history` mean the same; only its Markdown counts."""
    history = tmp_path / ".specstory" / "history"
    history.mkdir(parents=True)
    (history / "2026-01-01_10-00-session.md").write_text("text", encoding="utf-8")
    (history / "notes.txt").write_text("text", encoding="utf-8")
    (tmp_path / "readme.md").write_text("text", encoding="utf-8")
    for path in (tmp_path, history.parent, history):
        assert folder_of(source(path, "specstory")) == history
        assert names(path, kind="specstory") == ["2026-01-01_10-00-session.md"]


def test_what_is_no_text_is_told_and_what_is_empty_is_not(tmp_path: Path) -> None:
    """Latin-1, too large, not ours to read: a reason. White space, vanished, written since: nothing."""
    here = source(tmp_path)
    (tmp_path / "latin.md").write_bytes("Müller".encode("latin-1"))
    (tmp_path / "blank.md").write_text(" \n", encoding="utf-8")
    (tmp_path / "bom.md").write_bytes(b"\xef\xbb\xbftext")
    (tmp_path / "huge.md").touch()
    os.truncate(tmp_path / "huge.md", 20_000_001)
    found = listing(here)
    assert found is not None
    assert read(here, "latin.md", found["latin.md"]) == Unusable("it is not UTF-8 (byte 1)")
    assert read(here, "huge.md", found["huge.md"]) == Unusable("it is larger than 20 MB")
    assert read(here, "blank.md", found["blank.md"]) is None
    told = read(here, "bom.md", found["bom.md"])
    assert isinstance(told, Document)
    assert told.text == "text"
    (tmp_path / "bom.md").write_text("changed", encoding="utf-8")
    assert read(here, "bom.md", found["bom.md"]) is None
    (tmp_path / "bom.md").unlink()
    assert read(here, "bom.md", found["bom.md"]) is None


def test_a_source_that_is_not_there_is_none(tmp_path: Path) -> None:
    """It may be mounted later."""
    assert listing(source(tmp_path / "nowhere")) is None
    (tmp_path / "file").touch()
    assert listing(source(tmp_path / "file")) is None


class Desk:
    """A backlog with files that were not written for long."""

    def __init__(self) -> None:
        self.backlog = Backlog()
        self.texts: dict[str, str] = {}

    def put(self, **texts: str) -> None:
        self.texts |= texts
        self.backlog.update(
            {name: (len(text), crc32(text.encode()), 0, 0) for name, text in self.texts.items()}
        )
        for name, stamp in self.backlog.unexamined(100):
            self.backlog.examined(name, stamp, self.document(name))

    def document(self, name: str) -> Document:
        return Document(name=name, text=self.texts[name], digest=f"digest of {self.texts[name]}")

    def end(self, name: str, fate: Fate) -> None:
        text = self.texts[name]
        outcome = Outcome(name=name, fate=fate, characters=len(text), seconds=1.0, reason="why")
        self.backlog.settle(self.document(name), outcome)

    @property
    def pending(self) -> list[str]:
        return sorted(name for name, _ in self.backlog.pending())


def test_a_document_is_known_by_its_content() -> None:
    """Moved or copied is not ingested again; changed is; what only its own name held is ingested anew."""
    desk = Desk()
    desk.backlog.learn({"old": "digest of x", "kept": "digest of y"})
    desk.put(new="x", kept="y", other="z", twin="z")
    assert len(desk.pending) == 1  # of two that hold the same, one
    desk.end(desk.pending[0], Fate.INGESTED)
    assert desk.pending == []
    desk.put(kept="y2")
    assert desk.pending == ["kept"]
    desk.end("kept", Fate.INGESTED)
    assert desk.pending == []
    desk.put(old="another")
    desk.end("old", Fate.INGESTED)
    assert desk.pending == ["new"], "what it held went away with the old name"


def test_what_the_database_forgot_is_handed_over_again() -> None:
    """What it says counts, also after something was ingested: it was taken back to an earlier state."""
    desk = Desk()
    desk.backlog.learn({})
    desk.put(a="x")
    desk.end("a", Fate.INGESTED)
    assert desk.pending == []
    desk.backlog.learn({})
    assert desk.pending == ["a"]


def test_a_failed_document_is_tried_again_later_and_at_once_when_it_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a minute, then two; its reason stays until it is in."""
    now = [1000.0]
    monkeypatch.setattr(backlog_module.time, "monotonic", lambda: now[0])
    desk = Desk()
    desk.backlog.learn({})
    desk.put(a="x")
    for wait in (60, 120, 240):
        desk.end("a", Fate.FAILED)
        assert (desk.pending, desk.backlog.problems) == ([], {"a": "why"})
        now[0] += wait - 1
        assert desk.pending == []
        now[0] += 1
        assert desk.pending == ["a"]
    desk.end("a", Fate.FAILED)
    desk.put(a="x2")
    assert desk.pending == ["a"]
    desk.end("a", Fate.INGESTED)
    assert (desk.pending, desk.backlog.problems) == ([], {})
