"""Promise 11: whatever a file holds, hybridrag answers in words and with a documented exit code, and loses nothing."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import DIM, EXAMPLE, Project, digests

from .experiment import Experiment, Trial
from .lab import Lab

APPLY = ("apply", "--auto-approve", "--allow", "overwrite", "--allow", "replace_kept")
REGISTRY, JOURNAL = "state/test/registry.yaml", "state/test/journal.db"
VICTIMS = {
    "hybridrag.yaml": "fresh",
    ".env": "fresh",
    "saved.plan": "fresh",
    "notes/kv_store_text_chunks.json": "fresh",
    "notes/kv_store_doc_status.json": "fresh",
    "notes/kv_store_llm_response_cache.json": "fresh",
    "notes/vdb_entities.json": "fresh",
    "notes/vdb_chunks.json": "fresh",
    "notes/graph_chunk_entity_relation.graphml": "fresh",
    REGISTRY: "switched",
    JOURNAL: "switched",
}
"""What is spoiled, and in which state of the world."""
ODD: tuple[Any, ...] = (None, True, [], {}, -1, 0, 2**63, 1e308, "", "x" * 100_000, "${NOT_SET}", "\u202e\U0001f4a5", "../..", [[[[]]]], {"a": {"b": 1}})  # fmt: skip
Mutation = Callable[[random.Random, bytes], bytes]


def _span(rng: random.Random, data: bytes) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + int(rng.paretovariate(0.6)))


def _flip(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 20])):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def _cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def _remove(rng: random.Random, data: bytes) -> bytes:
    start, end = _span(rng, data)
    return data[:start] + data[end:]


def _repeat(rng: random.Random, data: bytes) -> bytes:
    start, end = _span(rng, data)
    return data[:end] + data[start:end] * rng.choice([1, 2, 50]) + data[end:]


def _insert(rng: random.Random, data: bytes) -> bytes:
    what = [b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\n", b"{" * 5000, b"[" * 200_000, b"&a [*a]", b"!!python/name:os.system x", b"9" * 5000, b"NaN", b"<!DOCTYPE a [<!ENTITY b 'c'>]>", b"'\"", b"\t", b"1e999"]  # fmt: skip
    start, _ = _span(rng, data)
    return data[:start] + rng.choice(what) + data[start:]


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a document."""
    inner = (
        list(value.items())
        if isinstance(value, dict)
        else list(enumerate(value))
        if isinstance(value, list)
        else []
    )
    return [(value, key) for key, _ in inner] + [place for _, each in inner for place in _places(each)]


def _structure(rng: random.Random, data: bytes) -> bytes:
    """One value of another kind, a key less, or a key more. Bytes are changed where there is no such structure."""
    try:
        text = data.decode()
        loaded = json.loads(text) if text[0] == "{" else yaml.safe_load(text)
        container, key = rng.choice(_places(loaded))
    except (ValueError, IndexError, TypeError, yaml.YAMLError):
        return _flip(rng, data)
    kind = rng.random()
    if kind < 0.2 and isinstance(container, dict):
        del container[key]
    elif kind < 0.3 and isinstance(container, dict):
        container[rng.choice(["other", "", "__proto__", "workspace", "\0"])] = rng.choice(ODD)
    else:
        container[key] = rng.choice(ODD)
    dumped = (
        json.dumps(loaded, indent=2) if text[0] == "{" else yaml.safe_dump(loaded, sort_keys=False, width=999)
    )
    return dumped.encode()


MUTATIONS: tuple[Mutation, ...] = (_flip, _cut, _remove, _repeat, _insert, _structure, _structure, _structure)


def _look(trial: Trial, project: Project, victim: str, what: str) -> None:
    """What a user would type, in the presence of the spoiled file."""
    looks = [("validate",), ("plan", "--detailed-exitcode"), ("status",), ("db", "list"), ("verify", "notes")]
    for look in trial.rng.sample(looks, 2):
        trial.ended(project.run(*look), {0, 1, 2, 3, 4, 5, 6, 7}, f"{what}: {' '.join(look)}")
    apply = ("apply", "saved.plan") if victim == "saved.plan" else APPLY
    done = project.run(*apply)
    trial.ended(done, {0, 1, 3, 4, 5, 6, 7}, f"{what}: {' '.join(apply)}")
    trial.count("refused" if done.returncode else "understood")
    if done.returncode:
        trial.check(done.stderr.startswith("error:"), f"{what}: {done.stderr[-500:]}")


def _run(lab: Lab, trial: Trial) -> None:
    victims = trial.rng.sample(list(VICTIMS), len(VICTIMS))
    kept = lab.folder / "found"
    while trial.done < trial.runs:
        victim = victims[trial.done % len(victims)]
        mutation = trial.rng.choice(MUTATIONS)
        with lab.project(EXAMPLE / "archive", dim=DIM) as project:
            if VICTIMS[victim] == "switched":
                project.ok(*APPLY)
            else:
                project.ok("plan", "--out", "saved.plan")
            path: Path = project.folder / victim
            good = path.read_bytes()
            bad = mutation(trial.rng, good)
            path.write_bytes(bad)
            before = _files(project)
            faults = len(trial.faults)
            what = f"run {trial.done}, {victim} by {mutation.__name__}"
            _look(trial, project, victim, what)
            trial.check(_files(project) == before, f"{what}: files of the database or of the user changed")
            path.write_bytes(good)
            spec_or_plan = victim in ("hybridrag.yaml", ".env", "saved.plan")
            done = project.run(*APPLY)
            trial.ended(done, {0}, f"{what}: the good run afterwards")
            if not spec_or_plan or done.returncode == 0:
                trial.ended(project.run("plan", "--detailed-exitcode"), {0}, f"{what}: the plan after it")
            if len(trial.faults) > faults:
                shutil.copytree(project.folder, kept / f"{trial.done}", dirs_exist_ok=True)
                (kept / f"{trial.done}" / "bad").write_bytes(bad)
        trial.done += 1
    trial.figures["kinds of file"] = min(len(VICTIMS), trial.runs)


def _files(project: Project) -> dict[str, str]:
    """What belongs to the user: nothing of ours may change it."""
    return {
        name: digest
        for name, digest in digests(project.folder).items()
        if not name.startswith("state/") and "/.hybridrag" not in name
    }


EXPERIMENTS = (
    Experiment(
        number=11,
        name="bad-input",
        promise="whatever a file holds, the answer is words and a documented exit code, and nothing is lost",
        tried="random bytes changed, cut, removed, repeated or put in, or one value of the structure replaced, in the spec, .env, a saved "
        "plan, the registry, the journal, key-value, vector and graph files; then looks and an apply: no traceback, exit code as "
        "documented, every file of the user as it was; with the good file again apply ends and the plan is empty",
        baseline="—",
        runs=1000,
        short=2,
        run=_run,
    ),
)
