"""What a spec means: files merged, variables filled in, defaults, and places remembered."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hybridrag.errors import HybridragError
from hybridrag.model.secret import SecretRef
from hybridrag.spec import DatabaseSpec, Environment, find_files, load, schema

SAMPLE = """\
version: 1
environment: ${HYBRIDRAG_ENV:-dev}
state: {driver: file, path: ../state}
backends:
  files: {type: json}
  pg:
    type: Postgres
    provision: {driver: embedded}
    port: ${HYBRIDRAG_PG_PORT:-5433}
    password: {env: HYBRIDRAG_PG_PASSWORD}
    pool: {max: $POOL}
    tls: {mode: "${TLS:-prefer}"}
databases:
  my-notes: &notes
    path: ./databases/notes
    backend: pg
    embedding: {model: text-embedding-3-small, dim: 1536, function: embed.py:embed}
  more:
    <<: *notes
    path: ~/more
    workspace: ${WS:-more_1}
"""
PUBLISHED = Path(__file__).parents[2] / "schemas" / "environment.schema.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the sample spec."""
    (tmp_path / "hybridrag.yaml").write_text(SAMPLE)
    return tmp_path


def test_a_spec_becomes_models_with_defaults_and_remembers_its_lines(folder: Path) -> None:
    """Types ignore case, merge keys work, paths start at the spec, and every value knows its place."""
    spec = load(folder / "hybridrag.yaml", environ={"POOL": "7", "HOME": "/home/x"})
    env = spec.environment
    pg = env.backends["pg"]
    assert pg.model_dump(include={"type", "port", "pool"}) == {
        "type": "postgres",
        "port": 5433,
        "pool": {"max": 7},
    }
    assert getattr(pg, "password") == SecretRef(env="HYBRIDRAG_PG_PASSWORD")  # noqa: B009 - mypy sees the base
    assert {name: db.effective_workspace(name) for name, db in env.databases.items()} == {
        "my-notes": "my_notes",
        "more": "more_1",
    }
    assert env.databases["more"].embedding == env.databases["my-notes"].embedding
    assert env.databases["more"].migration.model_dump() == {
        "batch": 1000,
        "on_bad_record": "fail",
        "verify": "full",
    }
    assert spec.base_dir == folder
    assert spec.resolve(env.state.path) == folder.parent / "state"
    assert spec.resolve(env.databases["my-notes"].path) == folder / "databases" / "notes"
    assert spec.resolve(Path("~/more")) == Path("~/more").expanduser()
    file = folder / "hybridrag.yaml"
    assert spec.where("databases", "my-notes", "path") == f"{file}:15:11"
    assert spec.where("databases", "more", "backend") == f"{file}:16:14", (
        "a merged value stands at its anchor"
    )
    assert spec.where("databases", "more") == f"{file}:18:3"
    assert spec.where("databases", "more", "migration", "batch") == f"{file}:18:3", (
        "a default: the map around it"
    )


def test_a_model_made_without_files_follows_the_same_rules() -> None:
    """`Environment` can be built from a dict, with `type` in any case."""
    env = Environment.model_validate(
        {"version": 1, "environment": "dev", "backends": {"f": {"type": "JSON"}}, "databases": {}}
    )
    assert env.backends["f"].model_dump() == {"type": "json"}
    assert env.state.path == Path("state")
    assert (
        DatabaseSpec.model_validate(
            {"path": "x", "backend": "f", "embedding": {"dim": 1}}
        ).effective_workspace("a-b")
        == "a_b"
    )


def test_overlays_merge_maps_replace_lists_and_delete_with_null(folder: Path) -> None:
    """--env prod lays hybridrag.prod.yaml on top; what it deletes or replaces needs no variable."""
    (folder / "hybridrag.prod.yaml").write_text(
        "environment: prod\n"
        "backends:\n"
        "  pg: {provision: null, host: db.example, pool: null, nothing: null,\n"
        "       password: {env: null, command: [vault, read]}}\n"
        "databases:\n"
        "  more: null\n"
        "  my-notes: {embedding: {dim: 768}}\n"
    )
    (folder / "hybridrag.list.yaml").write_text("backends: {pg: {password: {command: [pass]}}}\n")
    (folder / "hybridrag.empty.yaml").write_text("# nothing differs here\n")
    (folder / ".env").write_text("HYBRIDRAG_PG_PORT=6000\nPOOL=1\n")
    files = find_files([], "prod", folder)
    assert files == [folder / "hybridrag.yaml", folder / "hybridrag.prod.yaml"]
    extra = [folder / "hybridrag.list.yaml", folder / "hybridrag.empty.yaml"]
    spec = load(files[0], overlays=[files[1], *extra], environ={})
    assert spec.files == (*files, *extra)
    pg = spec.environment.backends["pg"].model_dump()
    assert (pg["provision"], pg["host"], pg["port"], pg["pool"]) == (None, "db.example", 6000, {"max": 10})
    assert pg["password"]["command"] == ("pass",), "lists replace"
    assert list(spec.environment.databases) == ["my-notes"]
    embedding = spec.environment.databases["my-notes"].embedding
    assert (embedding.model, embedding.dim) == ("text-embedding-3-small", 768)
    assert spec.where("databases", "my-notes", "embedding", "dim") == f"{files[1]}:7:31"
    assert spec.where("databases", "my-notes", "embedding", "model") == f"{files[0]}:17:24"
    assert spec.where("backends", "pg", "port") == f"{files[0]}:9:11"


def test_the_process_environment_wins_over_dotenv(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """.env beside the first spec gives variables that the process does not have; os.environ stays as it is."""
    (folder / ".env").write_text("POOL=1\nWS=from_dotenv\n")
    monkeypatch.setenv("POOL", "2")
    monkeypatch.delenv("WS", raising=False)
    spec = load(folder / "hybridrag.yaml")
    assert spec.environment.backends["pg"].model_dump()["pool"] == {"max": 2}
    assert spec.environment.databases["more"].workspace == "from_dotenv"
    assert spec.environ["WS"] == "from_dotenv"
    with pytest.raises(KeyError):
        __import__("os").environ["WS"]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("$A", "one"),
        ("${A}", "one"),
        ("a-$A-${A}b", "a-one-oneb"),
        ("${EMPTY:-x}", "x"),
        ("'${EMPTY-x}'", ""),
        ("${NO:-x}", "x"),
        ("${NO-x}", "x"),
        ("${A:+yes}", "yes"),
        ("'${EMPTY:+yes}'", ""),
        ("${EMPTY+yes}", "yes"),
        ("'${NO+yes}'", ""),
        ("${A?no}", "one"),
        ("'${EMPTY?no}'", ""),
        ("${NO:-${ALSO_NO:-$A}}", "one"),
        ("${NO:-a $$ b}", "a $ b"),
        ("${A:-${NO:?never asked}}", "one"),
        ("a$$b", "a$b"),
        ("$${A}", "${A}"),
        # alone and unquoted, a variable means what plain YAML would mean
        ("${NO:-5433}", 5433),
        ("${SIX}", 6),
        ("${NO:-true}", True),
        ("${NO:-0.5}", 0.5),
        ("${NO:-null}", None),
        ("${EMPTY}", None),
        ("${NO:-no}", "no"),
        ("'${SIX}'", "6"),
        ('"${SIX}"', "6"),
        ("${SIX}px", "6px"),
        ("1${SIX}", "16"),
        ("'6'", "6"),
    ],
)
def test_variables_follow_the_grammar_of_compose(tmp_path: Path, written: str, value: object) -> None:
    """Every form of the grammar, and what type the result has."""
    from hybridrag.spec.interpolate import interpolate
    from hybridrag.spec.yaml_lines import read_file

    (tmp_path / "x.yaml").write_text(f"$A: {written}\n")
    tree, _ = read_file(tmp_path / "x.yaml", file="x.yaml", order=0)
    assert tree is not None
    filled, problems = interpolate(tree, {"A": "one", "EMPTY": "", "SIX": "6"})
    assert not problems
    assert filled.plain() == {"$A": value}, "values only: a key is left alone"
    assert type(filled.plain()["$A"]) is type(value)  # type: ignore[index]


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("$NO", 'needs the variable "NO", which is not set'),
        ("${NO:?ask your admin}", 'needs the variable "NO", which is not set: ask your admin'),
        ("${EMPTY:?}", 'needs the variable "EMPTY", which is empty'),
        ("${A:-x", 'has a "${" that is never closed'),
        ("a $ b", 'has a "$" that names no variable'),
        ("$1", 'has a "$" that names no variable'),
        ("${}", 'has a "${" without the name of a variable'),
        ("${A!x}", 'has a "${" that is not understood'),
        ("${A:-" * 100 + "}" * 100, "has too many variables inside each other"),
    ],
)
def test_a_variable_that_is_missing_or_misspelt_is_an_error_at_its_place(
    folder: Path, written: str, message: str
) -> None:
    """No variable is silently replaced by nothing."""
    spec = folder / "hybridrag.yaml"
    spec.write_text(SAMPLE.replace("~/more", json.dumps(written)))
    with pytest.raises(HybridragError) as caught:
        load(spec, environ={"A": "", "EMPTY": "", "POOL": "1"})
    assert f'{spec}:20:11: "path" {message}' in str(caught.value)


def test_the_digest_follows_the_wishes_and_not_the_way_they_are_written(folder: Path) -> None:
    """Comments, quotes, order and files do not change the digest; a value does."""
    base = load(folder / "hybridrag.yaml", environ={"POOL": "10"})
    document = load(folder / "hybridrag.yaml", environ={"POOL": "10"}).environment.model_dump(mode="json")
    other = folder / "other.yaml"
    other.write_text(yaml.safe_dump(document, sort_keys=True))
    assert load(other, environ={}).digest == base.digest
    assert load(folder / "hybridrag.yaml", environ={"POOL": "11"}).digest != base.digest


def test_the_published_schema_is_fresh_and_accepts_a_spec_as_it_is_written() -> None:
    """schemas/environment.schema.json is what the models say now, and lets variables stand for any scalar."""
    assert PUBLISHED.read_text() == schema.text(), f"stale: run {schema.COMMAND}"
    published = json.loads(PUBLISHED.read_text())
    jsonschema.Draft7Validator.check_schema(published)
    validator = jsonschema.Draft7Validator(published)
    written = yaml.safe_load(SAMPLE.replace("Postgres", "postgres"))
    assert [error.message for error in validator.iter_errors(written)] == []
    for wrong in ({"port": "x"}, {"port": 0}, {"password": "${PW}"}, {"prot": 1}):
        written["backends"]["pg"] = {"type": "postgres", **wrong}
        assert not validator.is_valid(written), wrong


_scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from(
        ["json", "postgres", "pg", "files", "$A", "$PW", "x${PW}", "${A:-1}", "${B", "1", "~", "~nobody/x", "<<", "\0", "x" * 5000]
    )
)  # fmt: skip
_keys = st.one_of(
    st.text(max_size=4),
    st.sampled_from(
        [*Environment.model_fields, *DatabaseSpec.model_fields, "type", "password", "env", "tls", "pg", "<<"]
    ),
)
_documents = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=5),
    max_leaves=20,
)
_specs = st.fixed_dictionaries(
    {"version": st.just(1), "environment": st.just("dev")},
    optional={
        "state": _documents,
        "backends": st.dictionaries(_keys, _documents | st.fixed_dictionaries({"type": st.just("postgres")}, optional={
            "port": _documents, "password": _documents, "tls": _documents, "vector_index": _documents}), max_size=3),
        "databases": st.dictionaries(_keys, _documents | st.fixed_dictionaries({}, optional={
            "path": _documents, "backend": _documents, "workspace": _documents, "embedding": _documents}), max_size=3),
    },
)  # fmt: skip
_yaml_like = st.text(alphabet=" \n\t:-[]{}&*!|>'\"%@,#?<~$ab1é\u2028\ufeff\\", max_size=60)


@given(
    content=st.one_of(
        st.binary(max_size=80),
        _yaml_like.map(str.encode),
        st.builds(
            lambda head, tail: (SAMPLE[:head] + tail).encode(), st.integers(0, len(SAMPLE)), _yaml_like
        ),
        _documents.map(lambda value: json.dumps(value).encode()),
        _specs.map(lambda value: json.dumps(value).encode()),
        _specs.map(lambda value: yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "surrogatepass")),
    ),
    overlay=_specs,
)
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_file_makes_loading_fail_in_another_way_than_with_our_errors(
    tmp_path: Path, content: bytes, overlay: dict[str, object]
) -> None:
    """Whatever stands in the files: a spec, or an error with words, whose every problem has a place."""
    (tmp_path / "a.yaml").write_bytes(content)
    (tmp_path / "b.yaml").write_text(json.dumps(overlay))
    for overlays in ([], [tmp_path / "b.yaml"]):
        told: HybridragError | None = None
        try:
            load(tmp_path / "a.yaml", overlays=overlays, environ={"A": "1", "PW": "canary"})
        except HybridragError as error:
            told = error
        if told is not None:
            assert "canary" not in str(told)
            assert json.dumps(told.as_dict())
            assert all(each.where for each in getattr(told, "problems", ()))
