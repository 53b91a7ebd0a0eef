"""Ways to spoil a project: its files, its records, its spec, its registry."""

from __future__ import annotations

import base64
import json
import os
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.conftest import Project
from tests.support.untouched import registry

Change = Callable[[Project], object]


def edit(name: str, old: str, new: str) -> Change:
    """Replace the first occurrence in a file of the database."""

    def change(project: Project) -> None:
        path = project.data / name
        text = path.read_text("utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), "utf-8")

    return change


def cut(name: str, part: float) -> Change:
    """Leave only the first part of a file."""

    def change(project: Project) -> None:
        path = project.data / name
        os.truncate(path, int(path.stat().st_size * part))

    return change


def spec(old: str, new: str) -> Change:
    """Replace in the spec."""

    def change(project: Project) -> None:
        path = project.folder / "hybridrag.yaml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return change


def kv(name: str, spoil: Callable[[dict[str, Any]], object]) -> Change:
    """Change a key-value file as an object."""

    def change(project: Project) -> None:
        path = project.data / f"kv_store_{name}.json"
        whole = json.loads(path.read_text("utf-8"))
        spoil(whole)
        path.write_text(json.dumps(whole, indent=2), "utf-8")  # ASCII: a lone surrogate stays an escape

    return change


def vdb(name: str, spoil: Callable[[dict[str, Any]], object]) -> Change:
    """Change a vector file as an object."""

    def change(project: Project) -> None:
        path = project.data / f"vdb_{name}.json"
        whole = json.loads(path.read_text("utf-8"))
        spoil(whole)
        path.write_text(json.dumps(whole, ensure_ascii=False), "utf-8")

    return change


def first(whole: dict[str, Any]) -> dict[str, Any]:
    return next(iter(whole.values()))


def matrix_of(whole: dict[str, Any]) -> Any:
    return np.frombuffer(base64.b64decode(whole["matrix"]), "<f4").reshape(-1, whole["embedding_dim"]).copy()


def put_matrix(whole: dict[str, Any], matrix: Any) -> None:
    whole["matrix"] = base64.b64encode(np.ascontiguousarray(matrix).tobytes()).decode()


def not_a_number(whole: dict[str, Any]) -> None:
    """NaN in both copies of the second vector."""
    matrix = matrix_of(whole)
    matrix[1, 0] = np.nan
    put_matrix(whole, matrix)
    half = np.full(whole["embedding_dim"], np.nan, "<f2")
    whole["data"][1]["vector"] = base64.b64encode(zlib.compress(half.tobytes())).decode()


def swapped(whole: dict[str, Any]) -> None:
    """The matrix holds the second row's vector where the data has the first's."""
    matrix = matrix_of(whole)
    put_matrix(whole, matrix[[1, 0, *range(2, len(matrix))]])


def twice_in_kv(project: Project) -> None:
    """The first record of `text_chunks` once more at the end of the file, as no JSON library would write it."""
    path = project.data / "kv_store_text_chunks.json"
    text = path.read_text("utf-8")
    key, record = next(iter(json.loads(text).items()))
    path.write_text(f"{text.rstrip()[:-2]},\n  {json.dumps(key)}: {json.dumps(record)}\n}}", "utf-8")


def twice_in_vdb(whole: dict[str, Any]) -> None:
    matrix = matrix_of(whole)
    whole["data"].append(whole["data"][0])
    put_matrix(whole, np.concatenate([matrix, matrix[:1]]))


def write_registry(text: str) -> Change:
    def change(project: Project) -> None:
        registry(project).parent.mkdir(parents=True)
        registry(project).write_text(text)

    return change


GRAPH = "graph_chunk_entity_relation.graphml"
