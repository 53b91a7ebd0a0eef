"""A cheap look at a database in JSON files: sizes, counts and damage, whatever its size."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from hybridrag.errors import NotFound, SourceUnreadable
from hybridrag.model.data import NAMESPACES, OTHER_STORES
from hybridrag.model.findings import Glance

from . import files
from .counting import glance_records

Known = Mapping[str, tuple[str, int]]


def remembered(path: Path, identity: str, known: Known) -> dict[str, int] | None:
    """What was counted in exactly this file; None when it was not, or was written since."""
    names = files.namespaces_of(path.name)
    if OTHER_STORES in names:
        return None  # several files, and one number is remembered
    if any(known.get(name, ("", 0))[0] != identity for name in names):
        return None
    return {name: known[name][1] for name in names}


def glance_folder(folder: Path, dim: int, known: Known, names: Collection[str] = files.ALL_FILES) -> Glance:
    """The glance of some files of a folder. `dim`: the dimensions that its vectors should have."""
    try:
        paths = files.present(folder, names)
    except NotFound as error:
        return Glance(problem=error.what)
    except OSError as error:
        return Glance(problem=f'the folder "{folder}" cannot be read: {error.strerror}')
    # LightRAG writes some files only once there is something in them.
    records: dict[str, int | None] = {namespace.name: 0 for namespace in NAMESPACES}
    estimated: set[str] = set()
    sizes: dict[str, int] = {}
    faults: list[str] = []
    dims: set[int] = set()
    for path in paths:
        names = files.namespaces_of(path.name)
        try:
            sizes[path.name] = path.stat().st_size if path.is_file() else 0
            if reason := files.damage(path):
                raise SourceUnreadable(reason)
            if files.blank(path):
                faults.append(f'"{path.name}" is empty; LightRAG reads it as a missing file')
            found = files.vector_dim(path) if path.name.startswith("vdb_") else None
            if found:
                dims.add(found)
            counted = remembered(path, files.identity(path), known)
            looked, guessed = ({**counted}, False) if counted else glance_records(path)
        except SourceUnreadable as error:
            faults.append(f'"{path.name}" is damaged: {error.what}')
            looked, guessed = dict.fromkeys(names), False
        except OSError as error:
            faults.append(f'"{path.name}" cannot be read: {error.strerror}')
            looked, guessed = dict.fromkeys(names), False
        if OTHER_STORES in looked:
            one, before = looked[OTHER_STORES], records[OTHER_STORES]
            looked = {OTHER_STORES: None if one is None or before is None else one + before}
        records.update(looked)
        estimated.update(names if guessed else ())
    faults += [
        f"its vectors have {found:,} dimensions, the spec says {dim:,}" for found in sorted(dims - {dim})
    ]
    return Glance(
        records=records,
        estimated=frozenset(estimated),
        sizes=sizes,
        faults=tuple(faults),
        dims=frozenset(dims),
    )
