"""Promise 16: an embedding model or dimension that is missing, misspelt or changed is refused, named, and loses nothing."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass

from hybridrag.model.selection import Embedding
from tests.conftest import DIM, EXAMPLE, Project, digests
from tests.support.target import rows_held, run_sql, tables

from .experiment import Experiment, Trial
from .lab import Lab

APPLY = ("apply", "--auto-approve")
RIGHT = Embedding(model="hash-emb", dim=DIM)
SAID = f"model: hash-emb, dim: {DIM}"
LOOKS = (("plan",), APPLY, ("plan", "--json"))
AFTER = (("verify", "notes"), ("rollback", "notes", "--yes"), ("migrate", "notes", "--to", "files", "--yes"))
"""Commands that would work with what serves, beside those that are refused in any state."""


@dataclass(frozen=True, slots=True)
class Wrong:
    """What was done to a project; `named` are words that the refusal must hold."""

    what: str
    named: tuple[str, ...]
    codes: tuple[int, ...] = (5,)


def misspelt(rng: random.Random) -> str:
    """The model's name with a slip that leads to other tables."""
    name = list(str(RIGHT.model))
    at = rng.randrange(len(name))
    name[at : at + 1] = rng.choice((["q"], [name[at]] * 2, [name[at], "7"]))
    other = "".join(name)
    return other if Embedding(model=other, dim=DIM).suffix != RIGHT.suffix else misspelt(rng)


def _say(project: Project, embedding: str) -> None:
    path = project.folder / "hybridrag.yaml"
    text = path.read_text("utf-8")
    assert SAID in text
    path.write_text(text.replace(SAID, embedding), "utf-8")


def in_the_spec(project: Project, rng: random.Random, *, served: bool) -> Wrong:
    """Another model or dimension, or none; beside a `.env` that is right where no table can contradict it yet."""
    model, dim = rng.choice(
        ((misspelt(rng), DIM), ("text-embedding-3-small", DIM), (str(RIGHT.model), DIM * 2), (None, DIM))
    )
    _say(project, f"model: {model or 'null'}, dim: {dim}")
    if not served:
        with (project.folder / ".env").open("a") as file:
            file.write(f"EMBEDDING_MODEL={RIGHT.model}\nEMBEDDING_DIM={DIM}\n")
    named = f'model "{model}"' if model else "no model"
    # Files that are moved tell their dimension themselves.
    by_files = not served and dim != DIM
    return Wrong(
        f"spec says {model}, {dim}", (str(dim),) if by_files else (f"{named} with {dim} dimensions",)
    )


def missing_in_the_spec(project: Project, rng: random.Random, *, served: bool) -> Wrong:
    _say(project, f"dim: {DIM}")
    return Wrong("spec says nothing", ("needs embedding.model",), (3,))


def in_settings(project: Project, rng: random.Random, *, served: bool) -> Wrong:
    """`.env` or `config.ini` in one of the places that are looked at."""
    folder = rng.choice((project.folder, project.data))
    value = rng.choice((f"EMBEDDING_MODEL={misspelt(rng)}", "EMBEDDING_DIM=1536"))
    name = rng.choice((".env", "config.ini"))
    with (folder / name).open("a") as file:
        file.write(f"{value}\n" if name == ".env" else f"[embedding]\n{value}\n")
    said = value.partition("=")[2]
    shown = f"{int(said):,} dimensions" if said.isdecimal() else f'model "{said}"'
    return Wrong(f"{name} says {value}", (str(folder / name), shown))


def in_tables(project: Project, rng: random.Random, *, served: bool) -> Wrong:
    """Somebody's LightRAG works with another model: all vectors lie there, or single new ones beside ours."""
    other = Embedding(model=misspelt(rng), dim=DIM)
    assert served
    dsn, moved = str(project.dsn), rng.random() < 0.5
    named = []
    for table in [name for name in tables(dsn) if name.startswith("lightrag_vdb_")]:
        place = table.replace(str(RIGHT.suffix), str(other.suffix))
        run_sql(dsn, f"CREATE TABLE {place} (LIKE {table} INCLUDING ALL)", "SELECT 1")
        if moved:
            run_sql(dsn, f"INSERT INTO {place} SELECT * FROM {table}", f"DELETE FROM {table}", "SELECT 1")
            named.append(place)
        elif not named:
            run_sql(
                dsn,
                f"INSERT INTO {place} SELECT * FROM {table} LIMIT 1",
                f"UPDATE {place} SET id = 'new'",
                "SELECT 1",
            )
            named.append(place)
    return Wrong(f"{'all' if moved else 'one'} under {other.suffix}", tuple(named))


KINDS: tuple[Callable[..., Wrong], ...] = (in_the_spec, in_settings, missing_in_the_spec, in_tables)


def wrong_model(lab: Lab, trial: Trial) -> None:
    for number in range(trial.runs):
        kind = KINDS[number % len(KINDS)]
        served = kind is in_tables or trial.rng.random() < 0.5
        with lab.project(EXAMPLE / "archive", dim=DIM) as project:
            _one(project, trial, kind, served=served)
        trial.done += 1
        trial.count(f"{kind.__name__}, {'served by Postgres' if served else 'in files'}")


def _one(project: Project, trial: Trial, kind: Callable[..., Wrong], *, served: bool) -> None:
    if served:
        project.ok(*APPLY)
    wrong = kind(project, trial.rng, served=served)
    before = digests(project.data), rows_held(str(project.dsn))
    for command in LOOKS + (AFTER if served and kind in (in_the_spec, in_tables) else ()):
        what = f"{wrong.what}, {'served' if served else 'files'}: {' '.join(command)}"
        done = project.run(*command)
        # Two commands keep exit codes of their own, in which a source that is refused is 2.
        codes = (2,) if command[0] == "migrate" and 5 in wrong.codes else wrong.codes
        if trial.ended(done, codes, what):
            said = " ".join((done.stderr + done.stdout).split()).replace('\\"', '"')
            trial.check(all(words in said for words in wrong.named), f"{what}: not named: {said[:500]}")
        trial.count("commands refused")
    if served and kind in (in_the_spec, in_tables):
        (database,) = json.loads(project.ok("status", "--json"))["databases"]
        trial.check(database["health"] != "healthy", f"{wrong.what}: status says healthy")
    trial.check(
        (digests(project.data), rows_held(str(project.dsn))) == before, f"{wrong.what}: data was changed"
    )


EXPERIMENTS = (
    Experiment(
        number=16,
        name="wrong-model",
        promise="an embedding model or dimension that is wrong, missing or changed is refused and named; no vector is lost",
        tried="a slip in the spec's model or dimension, none, another one in `.env` or `config.ini`, vectors in tables of another "
        "model; before and after the move; plan, apply, verify, rollback, migrate and status",
        baseline="LightRAG 1.5.7 begins empty tables of the other model and answers nothing (issues #3978, #3986, #4007)",
        runs=200,
        short=8,
        run=wrong_model,
    ),
)
