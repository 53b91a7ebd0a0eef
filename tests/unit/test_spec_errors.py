"""What a user is told about a spec that is wrong: every problem, at its place, without a secret."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hybridrag.errors import HybridragError, NotFound, SpecInvalid
from hybridrag.spec import find_files, load

HEAD = "version: 1\nenvironment: dev\nbackends:\n  files: {type: json}\n  pg:\n    type: postgres\n"
DATABASES = "databases:\n  notes: {path: ./notes, backend: pg, embedding: {model: null, dim: 8}}\n"
CANARY = "hunter2canary"
SECRET = "a secret may not stand in the spec; write {env: NAME}, {file: PATH} or {command: [...]}"


def problems(folder: Path, text: str | bytes, **environ: str) -> list[tuple[str | None, str]]:
    """Writes the spec, loads it, and returns (where, message) of every problem; `where` without the folder."""
    spec = folder / "hybridrag.yaml"
    spec.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SpecInvalid) as caught:
        load(spec, environ=environ)
    return [
        ((each.where or "").removeprefix(f"{folder}/hybridrag.yaml:"), each.what)
        for each in caught.value.problems
    ]


def pg(line: str) -> str:
    """A spec with one more line in its Postgres backend; that line is line 7."""
    return f"{HEAD}    {line}\n{DATABASES}"


def db(line: str) -> str:
    """A spec with one more line in its database; that line is line 11."""
    return (
        f"{HEAD}databases:\n  notes:\n    path: ./notes\n    embedding: {{model: null, dim: 8}}\n    {line}\n"
    )


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        # keys
        (db("backend: pg\n    workspce: x"), "12:5", 'unknown key "workspce" (did you mean "workspace"?)'),
        (pg("tls: {mod: require}"), "7:11", 'unknown key "mod" (did you mean "mode"?)'),
        (HEAD + DATABASES + "resources: {}\n", "9:1", 'unknown key "resources"'),
        (db("backend: pg\n    thresholds: {file_size: 500}"), "12:29", '"file_size" must be text'),
        (db("backend: pg\n    thresholds: {file_size: lots}"), "12:29", '"file_size" must be a size such as "500MB", "2GB" or "1GiB"'),
        (HEAD, "1:1", 'missing key "databases"'),
        (db("workspace: x"), "8:3", 'missing key "backend" in "notes"'),
        (pg("host: a\n    host: b"), "8:5", 'duplicate key "host"'),
        (HEAD + DATABASES.replace("notes:", "no tes:"), "8:3", 'the name "no tes" may hold letters'),
        # values
        (pg("port: many"), "7:11", '"port" must be a whole number, not text'),
        (pg('port: "5433"'), "7:11", '"port" must be a whole number, not text'),
        (pg("port: 70000"), "7:11", '"port" must be at most 65535'),
        (pg("host: 7"), "7:11", '"host" must be text, not a number'),
        (pg('user: ""'), "7:11", '"user" may not be empty'),
        (pg("tls: {mode: requir}"), "7:17", 'unknown mode "requir" (did you mean "require"?)'),
        (pg("pool: 3"), "7:11", '"pool" must be a map, not a number'),
        (pg("pool:"), "7:5", '"pool" must be a map, not empty'),
        (db("backend: pg\n    workspace: a/b"), "12:16", '"workspace" may hold no "/"'),
        (db("backend: pg\n    workspace: .."), "12:16", '"workspace" may hold no "/"'),
        (db("backend: pg\n    workspace: 'a '"), "12:16", '"workspace": a workspace begins and ends with no space'),
        (db("backend: pg\n    workspace: no"), None, None),
        ("version: 2" + (HEAD + DATABASES)[10:], "1:10", '"version" must be 1'),
        (pg('host: "a\\0b"'), "7:11", '"host" holds the character U+0000'),
        # unions: only the branch that `type` names speaks
        (HEAD + "  ms: {type: postgrs, port: x}\n" + DATABASES, "7:14", 'unknown type "postgrs" (did you mean "postgres"?)'),
        (HEAD + "  ms: {host: h}\n" + DATABASES, "7:3", 'missing key "type" in "ms"'),
        (HEAD + "  ms: {type: json, port: 1}\n" + DATABASES, "7:20", 'unknown key "port"'),
        # rules between fields
        (pg("vector_index: {m: 50}"), "7:5", '"vector_index": ef_construction must be at least 2 * m'),
        (pg("password: {env: A, file: b}"), "7:5", '"password": give exactly one of env, file, command'),
        # rules between parts
        (db("backend: gp"), "11:14", 'backend "gp" is not declared (did you mean "pg"?)'),
        (
            db("backend: {kv: pg, doc_status: pg, vector: pg, graph: gp}"),
            "11:58",
            'backend "gp" is not declared (did you mean "pg"?)',
        ),
        (
            HEAD + DATABASES + "  n-b: {path: b, backend: pg, embedding: {model: null, dim: 1}}\n"
            "  n_b: {path: c, backend: {kv: pg, doc_status: pg, vector: pg, graph: pg}, embedding: {model: null, dim: 1}}\n",
            "10:3",
            'the databases "n-b" and "n_b" use the same workspace of backend "pg"',
        ),
        (
            HEAD + DATABASES + "  n-b: {path: b, backend: pg, embedding: {model: null, dim: 1}}\n"
            "  n_b: {path: c, backend: pg, embedding: {model: null, dim: 1}}\n",
            "10:3",
            'the databases "n-b" and "n_b" use the same workspace of backend "pg"',
        ),
        (
            HEAD + "  far: {type: postgres, host: LOCALHOST, port: 5432}\n" + DATABASES
            + "  b: {path: b, workspace: notes, backend: far, embedding: {model: null, dim: 1}}\n",
            "10:27",
            'the databases "notes" and "b" use the same workspace of one server, which backends "pg" and "far" lead to',
        ),
        (
            HEAD + "  m: {type: milvus}\n  n: {type: milvus, uri: 'https://localhost:19530/'}\n"
            + DATABASES.replace("pg,", "{kv: files, doc_status: files, vector: m, graph: files},")
            + "  b: {path: b, workspace: notes, embedding: {model: null, dim: 1},\n      backend: "
            "{kv: files, doc_status: files, vector: n, graph: files}}\n",
            "11:27",
            'the databases "notes" and "b" use the same workspace of one server, which backends "m" and "n" lead to',
        ),
        (
            HEAD + DATABASES + "  b: {path: x/../notes, backend: pg, embedding: {model: null, dim: 1}}\n",
            "9:13",
            'the databases "notes" and "b" use the same folder',
        ),
        # YAML itself
        ("", "1:1", "the spec is empty"),
        ("# nothing yet\n", "1:1", "the spec is empty"),
        ("- a\n", "1:1", "the spec must be a map of keys, not a list"),
        ("a: b: c\n", "1:5", 'a ":" is not allowed here'),
        ("a:\n\tb: 1\n", "2:1", "a tab is not allowed here"),
        ("a: 'x\n", "1:4", "a quote is opened here and never closed"),
        ("a: [1, 2\n", "2:1", 'a "," or a closing bracket is missing'),
        ("a: [", "1:5", "a value or a closing bracket is missing"),
        ("a: 1\n b: 2\n", "2:3", 'a ":" is not allowed here'),
        ("a: 1\n---\nb: 1\n", "2:1", "a second document starts here"),
        ("a: !!python/object:os.system x\n", "1:4", "YAML tags (!) are not read here"),
        ("? [a]\n: b\n", "1:3", "a key must be text"),
        ("a: &a [*a]\n", "1:4", "an alias (*) stands inside its own anchor (&)"),
        ("a: &a {<<: *a}\n", "1:4", "an alias (*) stands inside its own anchor (&)"),
        ("a: " + "[" * 5000, "1:53", "nested more than 50 levels deep"),
        ('a: "\\UFFFFFFFF"\n', "1:1", "the spec is not YAML that can be read"),
        (b"a: 1\nb: \xff\n", "2:4", "the spec is not UTF-8 text"),
        (b"a: 1\nb: x\x01\n", "2:5", "the character U+0001 is not allowed in YAML"),
        ("a: " + "x" * 2**20, "1:1", "the spec is larger than 1 MiB"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_plain_words_at_its_place(
    tmp_path: Path, text: str | bytes, where: str | None, message: str | None
) -> None:
    """A mistake is found at line:column; `no` is text and not false, so it is no mistake."""
    if message is None:
        (tmp_path / "hybridrag.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        assert load(tmp_path / "hybridrag.yaml", environ={}).environment.databases["notes"].workspace == "no"
        return
    found = problems(tmp_path, text)
    assert any(place == where and what.startswith(message) for place, what in found), found
    assert not any("Additional properties" in what or "pydantic" in what for _, what in found)


def test_all_problems_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    """Schema, models, variables and cross checks report together, sorted, each problem once."""
    text = """\
version: 1
environment: dev
backends:
  pg: {type: postgres, port: x, user: $NOBODY}
  local:
    type: postgres
    provision: {driver: embedded}
    host: db.example
databases:
  notes: {path: a, backend: gp, embedding: {dim: 0}, worksapce: ''}
"""
    assert problems(tmp_path, text) == [
        ("4:30", '"port" must be a whole number, not text'),
        ("4:39", '"user" needs the variable "NOBODY", which is not set'),
        ("5:3", '"local": a provisioned server listens on 127.0.0.1 only; remove "host"'),
        ("10:29", 'backend "gp" is not declared (did you mean "pg"?)'),
        ("10:50", '"dim" must be at least 1'),
        ("10:54", 'unknown key "worksapce" (did you mean "workspace"?)'),
    ]


@pytest.mark.parametrize(
    "line",
    [
        f"password: {CANARY}",
        f"password: '{CANARY}'",
        f"password: [{CANARY}]",
        f"password: {{{CANARY}}}",
        f"password: {{value: {CANARY}}}",
        f"password: *{CANARY}",
        f"password: !{CANARY}",
        f"password: !{CANARY}!x y",
        f"password: &{CANARY} {CANARY}",
        f"password: %{CANARY}",
        f"password: a{CANARY}: b",
        f'password: "{CANARY}',
        f"password: pa${CANARY}",
        f"password: pa$1{CANARY}",
        f"password: ${{{CANARY} x}}",
        "password: ${PW}",
        "password: '${PW}'",
        "password: x$PW",
        "password: ${NUMBER}",
        "password: ${EMPTY}",
        "password: ${UNSET:-}",
        "password: ${UNSET}",
        "password: ${UNSET:?needs $PW}",
        "password: {env: $PW}",
        "password: {env: [$PW]}",
        "password: {env: {a: $PW}}",
        f"password: {{env: X, file: {CANARY}}}",
        f"pasword: pa${CANARY}",
        f"tls: {{key: [{CANARY}]}}",
        "port: $PW",
        "port: 1$PW",
        "host: [$PW]",
        "tls: {mode: $PW}",
        "type: $PW",
        "user: ${PW:?}${EMPTY:?$PW is needed}",
        "provision: {driver: $PW}",
    ],
)
def test_a_secret_is_refused_and_never_shown(tmp_path: Path, line: str) -> None:
    """Wherever a secret was put by mistake, written or from a variable, no form of the error holds it."""
    spec = tmp_path / "hybridrag.yaml"
    spec.write_text(pg(line) if not line.startswith("type") else pg("").replace("type: postgres", line))
    (tmp_path / ".env").write_text(f"EMPTY=\nNUMBER=123456\nPW=overridden{CANARY}\n")
    with pytest.raises(SpecInvalid) as caught:
        load(spec, environ={"PW": CANARY})
    error = caught.value
    assert error.__context__ is None, "a debug traceback would show pydantic's error, which holds the values"
    shown = f"{error} {error!r} {error.args} {json.dumps(error.as_dict())} {[repr(each) for each in error.problems]}"
    assert CANARY not in shown
    assert "123456" not in shown
    if line.startswith("password: ${") and "x}" not in line:
        assert [each.what for each in error.problems] == [SECRET]


def test_a_spec_shows_no_variable_and_its_digest_depends_on_none_it_does_not_use(tmp_path: Path) -> None:
    """repr() of a loaded spec and of its variables holds no value; a reference is digested by name only."""
    spec = tmp_path / "hybridrag.yaml"
    spec.write_text(pg("password: {env: PW}"))
    one, two = load(spec, environ={"PW": CANARY}), load(spec, environ={"PW": "other"})
    assert one.environ["PW"] == CANARY
    assert CANARY not in f"{one!r} {one.environ!r}"
    assert one.digest == two.digest
    spec.write_text(pg("password: {env: PW2}"))
    assert load(spec, environ={}).digest != one.digest


def test_a_folder_or_a_file_without_permission_is_an_error_and_a_missing_one_is_not_found(
    tmp_path: Path,
) -> None:
    """What cannot be opened is told in words; -f and --env name the file that is missing."""
    (tmp_path / "hybridrag.yaml").mkdir()
    with pytest.raises(SpecInvalid, match="is a folder, not a file"):
        load(tmp_path / "hybridrag.yaml")
    closed = tmp_path / "closed.yaml"
    closed.write_text("version: 1\n")
    closed.chmod(0)
    if os.geteuid() != 0:
        with pytest.raises(SpecInvalid, match="cannot be read: Permission denied"):
            load(closed)
    for missing in ("nowhere.yaml", "x" * 5000, "a\0b"):
        with pytest.raises(NotFound, match="there is no spec"):
            load(tmp_path / missing)
    assert find_files([], None, tmp_path) == [tmp_path / "hybridrag.yaml"]
    with pytest.raises(NotFound, match=r"hybridrag\.prod\.yaml") as caught:
        find_files([], "prod", tmp_path)
    assert "-f FILE" in (caught.value.hint or "")


def test_a_small_file_that_grows_without_end_is_stopped(tmp_path: Path) -> None:
    """Aliases of aliases ("billion laughs"), in lists and in merged maps, end in one problem."""
    lists = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    maps = "m0: &m0 {x: 1}\n"
    for n in range(1, 12):
        lists += f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n"
        maps += f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 9)}]}}\n"
    chain = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 3000))
    for text in (lists, maps):
        assert "more than 100,000 values" in problems(tmp_path, text)[0][1]
    assert "nested more than 50 levels" in problems(tmp_path, chain)[0][1]


@pytest.mark.parametrize(("text", "line"), [("A=1\nB='x\n", 2), (f"A=1\n\n{CANARY} b\n", 3)])
def test_a_line_of_dotenv_that_is_not_understood_is_an_error(tmp_path: Path, text: str, line: int) -> None:
    """A mistake in .env is told with its line, instead of a variable that is silently missing."""
    (tmp_path / ".env").write_text(text)
    (tmp_path / "hybridrag.yaml").write_text(HEAD + DATABASES)
    with pytest.raises(HybridragError) as caught:
        load(tmp_path / "hybridrag.yaml", environ={})
    assert f".env:{line}:1: this line of .env is not understood" in str(caught.value)
    assert CANARY not in str(caught.value)
