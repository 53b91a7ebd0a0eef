"""Editing a spec: only the lines of the change are touched, comments stay, and what cannot be kept is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridrag.cli.init import TEMPLATE
from hybridrag.errors import PlanRefused
from hybridrag.spec import CannotEdit, Drop, Put, SpecFiles, literal, load
from hybridrag.spec.editing import edit, tree

ENTRY = {"path": "./new", "backend": "files", "embedding": {"dim": 3}}
NEW = Put(path=("databases", "new"), value=ENTRY)
OLD = Drop(path=("databases", "new"))
SPEC = """\
version: 1
environment: dev
backends:
  files: { type: json }
  pg:   {type: postgres}   # server

# --- my databases ---
databases:
  one:
    path: ./one   # here
    backend: "files"
    embedding: {dim: 3}
  # about two
  two:
    path: ./two
    backend:   files  # changing this is the whole migration
    embedding: {dim: 3}
    # tail of two

# --- settings ---
state: {path: ./state}
"""


def lines_changed(before: str, after: str) -> tuple[list[str], list[str]]:
    """Lines that are gone and lines that are new; the rest stands in its order."""
    import difflib

    found = [line for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line[0] in "-+"]
    return [x[2:] for x in found if x[0] == "-"], [x[2:] for x in found if x[0] == "+"]


def edited(text: str, *changes: Put | Drop) -> str:
    raw = text.encode()
    for change in changes:
        raw = edit(raw, change, file="hybridrag.yaml")
    return raw.decode()


def test_only_the_lines_of_the_change_are_touched() -> None:
    """Unusual spacing, quotes and comments of all other lines stay as they are."""
    added = edited(SPEC, NEW)
    assert lines_changed(SPEC, added) == (
        [],
        ["  new:", "    path: ./new", "    backend: files", "    embedding: {dim: 3}"],
    )
    assert added.index("# tail of two") < added.index("  new:") < added.index("# --- settings")
    assert edited(added, OLD) == SPEC
    moved = edited(SPEC, Put(path=("databases", "two", "backend"), value="pg"))
    assert lines_changed(SPEC, moved) == (
        ["    backend:   files  # changing this is the whole migration"],
        ["    backend:   pg  # changing this is the whole migration"],
    )
    server = edited(SPEC, Put(path=("backends", "server"), value={"type": "postgres"}))
    assert lines_changed(SPEC, server) == ([], ["  server: {type: postgres}"])
    gone = edited(SPEC, Drop(path=("databases", "two")))
    assert "# --- settings ---" in gone
    assert "# about two" in gone
    none = edited(gone, Drop(path=("databases", "one")))
    assert "databases: {}" in none
    assert edited(none, NEW, OLD) == none


@pytest.mark.parametrize(
    "text",
    [
        TEMPLATE,
        SPEC.replace("\n", "\r\n"),
        "\ufeff" + SPEC,
        SPEC.rstrip("\n").rpartition("\n\n")[0].rstrip("\n"),
        "version: 1\nenvironment: dev\nbackends: {files: {type: json}}\ndatabases: {one: {path: ., backend: files, embedding: {dim: 2}}}",
        "{version: 1, environment: dev, backends: {files: {type: json}}, databases: {}}\n",
        "version: 1\nenvironment: dev\ndatabases: {}\nbackends:\n    files: {type: json}\n",
    ],
    ids=["template", "crlf", "bom", "no last line break", "braces", "all in braces", "other order"],
)
def test_adding_and_removing_leaves_the_file_as_it_was(text: str) -> None:
    """Whatever line breaks and braces it uses; a missing last line break may be added."""
    assert edited(text, NEW, OLD).rstrip("\r\n") == text.rstrip("\r\n")


_COMMENTS = st.sampled_from(["", "", "# note", "#x: {y", "# - 'a\" : b"])
_BLANKS = st.sampled_from(["", "", "\n", "\n\n"])


@st.composite
def specs(draw: st.DrawFn) -> str:
    """Valid specs in many layouts: sections in any order, blocks and braces, comments wherever they may stand."""
    step = draw(st.sampled_from([1, 2, 3, 4]))

    def comment(column: int) -> str:
        found = draw(_COMMENTS)
        return draw(_BLANKS) + (f"{' ' * column}{found}\n" if found else "")

    def tail() -> str:
        found = draw(_COMMENTS)
        return f"{' ' * draw(st.integers(1, 5))}{found}\n" if found else draw(st.sampled_from(["\n", "  \n"]))

    def section(key: str, entries: dict[str, dict[str, str]]) -> str:
        if not entries:
            return f"{key}: {{}}{tail()}"
        if draw(st.booleans()):
            inner = ", ".join(
                f"{name}: {{{', '.join(f'{k}: {v}' for k, v in entry.items())}}}"
                for name, entry in entries.items()
            )
            return f"{key}: {{{inner}}}{tail()}"
        made = f"{key}:{tail()}"
        for name, entry in entries.items():
            made += comment(draw(st.sampled_from([0, step, 2 * step])))
            shown = draw(st.sampled_from([name, f'"{name}"', f"'{name}'"]))
            if draw(st.booleans()):
                made += f"{' ' * step}{shown}: {{{', '.join(f'{k}: {v}' for k, v in entry.items())}}}{tail()}"
                continue
            made += f"{' ' * step}{shown}:{tail()}"
            for k, v in entry.items():
                made += comment(2 * step) + f"{' ' * 2 * step}{k}:{' ' * draw(st.integers(1, 3))}{v}{tail()}"
            made += comment(draw(st.sampled_from([0, step, 2 * step])))
        return made

    names = draw(st.lists(st.sampled_from(["one", "two", "null-ish", "no", "1e3", "y"]), unique=True))
    databases = {
        name: {"path": f"./{at}", "backend": "files", "embedding": "{dim: 3}"}
        for at, name in enumerate(names)
    }
    parts = [
        "version: 1" + tail(),
        "environment: dev" + tail(),
        section("backends", {"files": {"type": "json"}}),
        section("databases", databases),
    ]
    text = "".join(comment(0) + part for part in draw(st.permutations(parts))) + comment(0)
    return text if draw(st.booleans()) else text.replace("\n", "\r\n")


def comments(text: str) -> list[str]:
    return sorted(re.findall(r"(?:^|(?<=\s))#.*", text, flags=re.M))


@given(specs())
def test_any_spec_survives_add_and_remove(text: str) -> None:
    """The same values and every comment; and while the entry is there, every other line."""
    before = tree(text.encode(), "x").plain()
    added = edited(text, NEW)
    now = tree(added.encode(), "x").plain()
    assert isinstance(now, dict)
    assert now["databases"].pop("new") == ENTRY
    assert now == before
    assert comments(added) == comments(text)
    after = edited(added, OLD)
    assert tree(after.encode(), "x").plain() == before
    assert comments(after) == comments(text)


@given(st.text(max_size=30), st.text(min_size=1, max_size=12))
def test_any_text_is_written_as_it_is(value: str, name: str) -> None:
    """Values that look like numbers, variables, aliases or tags come back as the text they are, or are refused."""
    try:
        made = edited(SPEC, Put(path=("databases", "new"), value=literal({"path": value, name: value})))
    except CannotEdit:
        return
    now = tree(made.encode(), "x").plain()
    assert isinstance(now, dict)
    assert now["databases"]["new"]["path"].replace("$$", "$") == value or name == "path"


@pytest.mark.parametrize(
    ("text", "change", "why"),
    [
        (SPEC.replace("backend: \"files\"", "backend: ${BACKEND:-files}"),
         Put(path=("databases", "one", "backend"), value="pg"), "comes from a variable"),
        (SPEC.replace("files: { type: json }", "files: &f { type: json }").replace("{type: postgres}", "*f"),
         Put(path=("backends", "pg", "port"), value=1), "alias"),
        (SPEC.replace("path: ./two", "path: ./two\n    path: ./too"), NEW, "duplicate key"),
        (SPEC.replace("    path: ./two", "\tpath: ./two"), NEW, "unusual"),
        (SPEC + "---\nversion: 1\n", NEW, "unusual"),
        (SPEC.replace("one:", "one: &o").replace("  two:\n", "  two:\n    <<: *o\n"),
         Drop(path=("databases", "one")), "unusual"),
        (SPEC, Put(path=("databases", "one", "embedding"), value="x"), "something else"),
        (SPEC, Drop(path=("databases", "three")), "does not stand here"),
    ],
)  # fmt: skip
def test_what_cannot_be_kept_is_refused(text: str, change: Put | Drop, why: str) -> None:
    """In words, with what to do by hand."""
    with pytest.raises(CannotEdit, match=why) as caught:
        edited(text, change)
    assert "by hand" in str(caught.value.hint)


def test_which_of_several_files_is_changed(tmp_path: Path) -> None:
    """A new entry goes into the first, a value into the last that has it, a removal into all."""
    base, prod = tmp_path / "base.yaml", tmp_path / "prod.yaml"
    base.write_text(SPEC, encoding="utf-8")
    prod.write_text("# production\ndatabases:\n  two: {backend: pg}\n", encoding="utf-8")
    paths = [base, prod]
    files = SpecFiles(paths)
    files.change(NEW)
    assert files.changed == (base,)
    files = SpecFiles(paths)
    files.change(Put(path=("databases", "two", "backend"), value="files"))
    assert files.changed == (prod,)
    files = SpecFiles(paths)
    files.change(Drop(path=("databases", "two")))
    assert files.changed == (base, prod)
    assert list(files.load().environment.databases) == ["one"]
    files.write()
    assert list(load(base, overlays=[prod]).environment.databases) == ["one"]
    assert files.undo()
    assert (base.read_text(), prod.read_text().splitlines()[0]) == (SPEC, "# production")


def test_a_file_is_replaced_whole_and_stays_what_it_was(tmp_path: Path) -> None:
    """Mode and links stay; what somebody else wrote meanwhile stays, too; no other file is left behind."""
    real = tmp_path / "real" / "spec.yaml"
    real.parent.mkdir()
    real.write_text(SPEC, encoding="utf-8")
    real.chmod(0o640)
    link = tmp_path / "hybridrag.yaml"
    link.symlink_to(real)
    files = SpecFiles([link])
    files.change(NEW)
    files.write()
    assert link.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert real.read_text() == edited(SPEC, NEW)
    late = SpecFiles([link])
    late.change(OLD)
    real.write_text(SPEC + "# another hand\n", encoding="utf-8")
    with pytest.raises(PlanRefused, match="changed by somebody else"):
        late.write()
    assert not late.undo()
    assert real.read_text() == SPEC + "# another hand\n"
    assert sorted(path.name for path in real.parent.iterdir()) == ["spec.yaml"]


def test_a_plain_value_is_added_to_a_map_of_lines() -> None:
    """As a line of its own, like the others."""
    made = edit(b"a:\n  b: 1 # one\n", Put(path=("a", "c"), value="two"), file="f")
    assert made.decode() == "a:\n  b: 1 # one\n  c: two\n"
