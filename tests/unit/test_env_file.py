"""A writer's `.env`: what python-dotenv reads back, what is left alone, and what it looks like after a way there and back."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path, PurePosixPath

import pytest
from dotenv import dotenv_values
from hypothesis import example, given
from hypothesis import strategies as st

from hybridrag.adapters.env_file import EnvFile, Surroundings, changes, complaints
from hybridrag.errors import PlanRefused
from hybridrag.model.selection import Selection
from hybridrag.spec.env_text import ASIDE, BEGIN, END, own_text, quoted, with_values

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
TRICKY = st.text(st.sampled_from("ab'\"\\$ {}#=:-\n\r\t`é\u2028"))
PG = Selection(
    kv="PGKVStorage",
    vector="PGVectorStorage",
    graph="PGTableGraphStorage",
    doc_status="PGDocStatusStorage",
    workspace="notes",
    variables={"POSTGRES_HOST": "db", "POSTGRES_WORKSPACE": "notes"},
    secrets={"POSTGRES_PASSWORD": lambda: "it's ${HOME} #1\\"},
)
OWN = """\
# mine
export LIGHTRAG_KV_STORAGE="JsonKVStorage" # why not
FOO='a b'   # foo

POSTGRES_HOST = old
WORKING_DIR=./data
WORKSPACE=notes
"""


def files(folder: Path) -> Selection:
    return Selection(
        kv="JsonKVStorage",
        vector="NanoVectorDBStorage",
        graph="NetworkXStorage",
        doc_status="JsonDocStatusStorage",
        working_dir=str(folder),
    )


@given(st.one_of(TEXT, TRICKY), TRICKY)
@example("a\\", "it's")
@example("${HOME}", "'")
@example("${:-x}", "\\'")
@example("\\${A}\\", '"')
@example("$HOME `id` #x", " ")
def test_dotenv_reads_back_exactly_what_was_quoted(value: str, other: str) -> None:
    """Whatever stands behind it, with interpolation, as LightRAG loads it."""
    text = with_values("A=1\n", {"SECRET": value, "OTHER": other, "LAST": "x"})
    read = dotenv_values(stream=io.StringIO(text))
    assert read == {"A": "1", "SECRET": value, "OTHER": other, "LAST": "x"}


def test_a_nul_is_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        quoted("a\0b")


@given(
    st.lists(
        st.sampled_from(
            ["A=1\n", "B='x\ny'\n", "# c\n", "\n", "export C = 3 # d\n", "A=2\r\n", "  B=\n", "E\n"]
        )
    ),
    st.dictionaries(st.sampled_from(["A", "B", "C", "D"]), TRICKY),
)
def test_the_users_own_text_comes_back_byte_for_byte(lines: list[str], values: dict[str, str]) -> None:
    own = "".join(lines)
    text = with_values(own, values)
    assert own_text(text) == own
    assert own_text(own) == own
    read = dotenv_values(stream=io.StringIO(text))
    assert {name: read[name] for name in values} == values
    kept = dotenv_values(stream=io.StringIO(own))
    assert {k: v for k, v in read.items() if k not in values} == {
        k: v for k, v in kept.items() if k not in values
    }


def test_there_and_back(tmp_path: Path) -> None:
    """Postgres and the files again: only what must change changes, modes stay, and the copy is private."""
    place = tmp_path / "server"
    place.mkdir()
    path = place / ".env"
    path.write_text(OWN, "utf-8")
    path.chmod(0o644)
    file = EnvFile(path, key="env_file")
    assert file.bring(files(place / "data" / "notes")) is False
    assert path.read_text("utf-8") == OWN
    assert [each.name for each in place.iterdir()] == [".env"]

    assert file.bring(PG) is True
    text = path.read_text("utf-8")
    assert f'{ASIDE}export LIGHTRAG_KV_STORAGE="JsonKVStorage" # why not\n' in text
    assert f"\n\n{ASIDE}POSTGRES_HOST = old\nWORKING_DIR=./data\nWORKSPACE=notes\n{BEGIN}\n" in text
    assert text.endswith(f"{END}\n")
    read = dotenv_values(path)
    assert (read["POSTGRES_PASSWORD"], read["POSTGRES_HOST"]) == ("it's ${HOME} #1\\", "db")
    assert read["FOO"] == "a b"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert "can be read by every user" in str(file.exposed())
    assert "can be read by every user" in complaints(path, "env_file")[0]
    copy = place / ".env.before-hybridrag"
    assert (copy.read_text("utf-8"), stat.S_IMODE(copy.stat().st_mode)) == (OWN, 0o600)
    assert file.bring(PG) is False

    path.write_text(text + "ADDED=later\n", "utf-8")
    assert EnvFile(path, key="env_file").bring(files(place / "data" / "notes")) is True
    assert path.read_text("utf-8") == OWN + "ADDED=later\n"


def test_put_back_is_byte_for_byte(tmp_path: Path) -> None:
    """Also a file without a last line break, and one that did not exist."""
    path = tmp_path / ".env"
    path.write_bytes(b"\xef\xbb\xbfA=1\r\nLIGHTRAG_KV_STORAGE=JsonKVStorage")
    file = EnvFile(path, key="env_file")
    file.bring(PG)
    file.put_back()
    assert path.read_bytes() == b"\xef\xbb\xbfA=1\r\nLIGHTRAG_KV_STORAGE=JsonKVStorage"
    path.unlink()
    file.bring(PG)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    file.put_back()
    assert not path.exists()


def test_a_link_is_followed(tmp_path: Path) -> None:
    real = tmp_path / "etc" / "lightrag.env"
    real.parent.mkdir()
    real.write_text("A=1\n")
    link = tmp_path / ".env"
    link.symlink_to(real)
    EnvFile(link, key="env_file").bring(PG)
    assert link.is_symlink()
    assert "PGKVStorage" in real.read_text()
    assert (real.parent / "lightrag.env.before-hybridrag").read_text() == "A=1\n"


@pytest.mark.parametrize(
    ("own", "seen", "wanted"),
    [
        ("", "/srv/rag_storage", {}),
        ("WORKING_DIR=/data\nWORKSPACE=n-1\n", "/data/n_1", {}),
        ("WORKING_DIR=/data\nWORKSPACE=notes\n", "/other/notes", {"WORKING_DIR": "/other"}),
        ("WORKING_DIR=/data\nWORKSPACE=x\n", "/data/notes", {"WORKING_DIR": "/data/notes", "WORKSPACE": ""}),
        ("", "/data/notes", {"WORKING_DIR": "/data/notes"}),
    ],
)
def test_how_files_are_found(own: str, seen: str, wanted: dict[str, str]) -> None:
    """LightRAG appends the workspace's name to the folder."""
    around = Surroundings(folder=PurePosixPath("/srv"))
    assert changes(own, files(Path(seen)), around) == wanted


def test_slots_on_two_backends() -> None:
    """Vectors elsewhere: the files' folder and the other backend's variables together; and the way back."""
    mixed = files(Path("/srv/rag_storage")).beside(Selection())
    mixed = Selection(
        kv=mixed.kv, graph=mixed.graph, doc_status=mixed.doc_status, vector="MilvusVectorDBStorage",
        working_dir=mixed.working_dir, variables={"MILVUS_URI": "http://m:1", "MILVUS_WORKSPACE": "notes"},
    )  # fmt: skip
    around = Surroundings(folder=PurePosixPath("/srv"))
    own = "MILVUS_WORKSPACE=other\n"
    found = changes(own, mixed, around)
    assert found == {
        "LIGHTRAG_VECTOR_STORAGE": "MilvusVectorDBStorage",
        "MILVUS_URI": "http://m:1",
        "MILVUS_WORKSPACE": "notes",
    }
    assert changes(own, files(Path("/srv/rag_storage")), around) == {}


def test_variables_that_win_over_the_file_are_told() -> None:
    around = Surroundings(folder=PurePosixPath("/app"), given={"LIGHTRAG_KV_STORAGE": "JsonKVStorage"})
    with pytest.raises(PlanRefused, match="LIGHTRAG_KV_STORAGE"):
        changes("", PG, around)
    blind = Surroundings(folder=PurePosixPath("/app"), seen=lambda _: None)
    with pytest.raises(PlanRefused, match="cannot see the folder"):
        changes("", files(Path("/data")), blind)


@pytest.mark.parametrize("bad", [b"A=1\n'oops\n", b"\xff\xfe", None])
def test_what_cannot_be_rewritten_is_refused_before_anything(tmp_path: Path, bad: bytes | None) -> None:
    path = tmp_path / "missing" / ".env"
    if bad is not None:
        path.parent.mkdir()
        path.write_bytes(bad)
    with pytest.raises(PlanRefused, match="env_file"):
        EnvFile(path, key="env_file").check()
    assert not path.parent.exists() or list(path.parent.iterdir()) == [path]


def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    path = tmp_path / ".env"
    path.write_text("A=1\n")
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PlanRefused, match="may not be written"):
            EnvFile(path, key="env_file").check()
    finally:
        tmp_path.chmod(0o700)
