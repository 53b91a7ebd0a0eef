"""The quarantine's file: every record whole and readable again, the file before it untouched until the new one is."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hybridrag.errors import BackendUnavailable
from hybridrag.journal import Journal
from hybridrag.model.data import BadRecord


def record(value: object, **more: object) -> BadRecord:
    given = {"namespace": "nodes", "position": 7, "key": "k", "reason": "too long", "vector": None, **more}
    return BadRecord(record=value, **given)  # type: ignore[arg-type]


def deep(levels: int) -> object:
    value: object = {"end": [None, True, 1.5, "ü"], "empty": [], "none": {}}
    for level in range(levels):
        value = [value, level] if level % 2 else {"in": value, "level": level}
    return value


@pytest.mark.parametrize(
    "value",
    [
        {"text": "Zoë\n\u2028", "n": 2**70},
        {"half": "\ud800 of a pair"},
        "not even an object",
        [1, [2, {"a": []}]],
    ],
)
def test_a_record_is_read_again_as_it_was(tmp_path: Path, value: object) -> None:
    """One line of JSON, with where it stood and why it is here."""
    with Journal(tmp_path / "journal.db") as journal:
        assert journal.quarantine_file("notes", "m") is None
        with journal.quarantine("notes", "m") as keep:
            keep(record(value))
            keep(record(1, namespace="chunks", vector=np.array([0.5, -2], dtype=np.float32)))
        found = journal.quarantine_file("notes", "m")
    assert found == str(tmp_path / "quarantine" / "notes" / "m.jsonl")
    path = Path(found)
    first, second = (json.loads(line) for line in path.read_bytes().splitlines())
    assert first == {"stream": "nodes", "key": "k", "position": 7, "reason": "too long", "record": value}
    assert (second["stream"], second["vector"]) == ("chunks", [0.5, -2.0])
    if "Zoë" in str(value):
        assert "Zoë\\n".encode() in path.read_bytes(), "a person is to read it, too"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) & 0o077 == 0


def test_a_record_nested_deeper_than_python_goes_is_kept_whole(tmp_path: Path) -> None:
    """Spelled like any other: the same value at a depth that the encoder reaches gives the same text."""
    from hybridrag.journal import quarantine

    told = {"record": deep(40)}
    assert "".join(quarantine._deep(told)) == json.dumps(told, ensure_ascii=False)
    with Journal(tmp_path / "journal.db") as journal, journal.quarantine("notes", "m") as keep:
        keep(record(deep(100_000)))
    (line,) = (tmp_path / "quarantine" / "notes" / "m.jsonl").read_bytes().splitlines()
    assert line.count(b"[") == 50_000 + 2
    assert line.count(b"{") == line.count(b"}") == 50_000 + 3
    assert '"end": [null, true, 1.5, "ü"]'.encode() in line


def _keep_and_fail(keep: Callable[[BadRecord], None]) -> None:
    keep(record("new"))
    raise ZeroDivisionError


def test_the_file_before_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    """A run that dies in between leaves it; one that finds nothing bad any more takes it away."""
    path = tmp_path / "quarantine" / "notes" / "m.jsonl"
    with Journal(tmp_path / "journal.db") as journal:
        with journal.quarantine("notes", "m") as keep:
            keep(record("old"))
        before = path.read_bytes()
        with pytest.raises(ZeroDivisionError), journal.quarantine("notes", "m") as keep:
            _keep_and_fail(keep)
        assert path.read_bytes() == before
        assert [each.name for each in path.parent.iterdir()] == ["m.jsonl"]
        path.with_name(".m.jsonl.new").write_bytes(b"left by a kill")
        with journal.quarantine("notes", "m") as keep:
            keep(record("new"))
        assert [json.loads(line)["record"] for line in path.read_bytes().splitlines()] == ["new"]
        with journal.quarantine("notes", "m"):
            pass
        assert list(path.parent.iterdir()) == []


def test_a_quarantine_that_cannot_be_written_is_told_in_words(tmp_path: Path) -> None:
    """Before anything is copied without it."""
    (tmp_path / "quarantine").write_text("a file in its place")
    with (
        Journal(tmp_path / "journal.db") as journal,
        pytest.raises(BackendUnavailable, match=r'the quarantine ".*m\.jsonl" cannot be written'),
        journal.quarantine("notes", "m"),
    ):
        raise AssertionError("went on without a quarantine")
