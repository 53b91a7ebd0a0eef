"""Spec files -> one checked `Environment` that still knows its lines.

Called by cli and api. Order: read each file, merge, fill in variables, then JSON Schema, models and cross
checks; every problem of all of them is raised as one `SpecInvalid`. Reads files and variables, writes
nothing, resolves no secret, touches no network.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hybridrag.errors import NotFound, SpecInvalid

from .cross_checks import cross_problems
from .environ import Variables, read_environ
from .interpolate import interpolate
from .models import Environment, lower_type
from .nodes import Node, Position
from .overlay import merge
from .problems import Problem, Unreadable, quote, raise_if_any, without_echoes
from .scalars import unfit
from .yaml_lines import read_file

FileName = str | os.PathLike[str]
DEFAULT_FILE = "hybridrag.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedSpec:
    """A spec that passed every check, with what later rooms need to use it and to point into it."""

    environment: Environment
    base_dir: Path
    """Folder of the first file, absolute; relative paths of the spec start here."""
    files: tuple[Path, ...]
    digest: str
    """SHA-256 of the environment as canonical JSON: same digest, same wishes. Holds references, no secret."""
    environ: Mapping[str, str] = field(repr=False, compare=False)
    """`.env` and the process environment, for resolving references."""
    root: Node = field(repr=False, compare=False)

    def resolve(self, path: Path) -> Path:
        """A path of the spec as an absolute one, `~` and symbolic links followed; it need not exist."""
        real = _real_path(self.base_dir, str(path))
        if real is None:
            raise SpecInvalid(f'{quote(str(path))} cannot be resolved: "~" leads to no home folder')
        return Path(real)

    def where(self, *path: str | int) -> str | None:
        """file:line:column of a value, e.g. `where("databases", "notes", "path")`.

        A value that was left to its default is found at the closest map above it that was written.
        """
        return str(self.root.nearest(path).at)


def find_files(files: Sequence[FileName], env_name: str | None, cwd: Path) -> list[Path]:
    """The spec files to load, in order: those given, or `hybridrag.yaml` and `hybridrag.<env_name>.yaml`.

    Raises `NotFound` for one that does not exist.
    """
    names: list[FileName] = list(files) or [DEFAULT_FILE]
    if not files and env_name is not None:
        names.append(f"hybridrag.{env_name}.yaml")
    paths = [cwd / name for name in names]
    for path in paths:
        if not os.path.exists(path):  # noqa: PTH110 - Path.exists raises for names that are too long
            raise _missing(path)
    return paths


def load(
    path: FileName,
    *,
    overlays: Sequence[FileName] = (),
    environ: Mapping[str, str] | None = None,
    instead: Mapping[Path, bytes] | None = None,
) -> LoadedSpec:
    """The spec in `path` with the overlays laid on it, in order.

    `environ` stands for the process environment, `instead` for what stands in some of the files: an edit is
    tried before it is written. Raises `NotFound` for a file that does not exist and
    `SpecInvalid` with every problem that was found.
    """
    paths = [Path(each) for each in (path, *overlays)]
    texts = dict(instead or {})
    for each in paths:
        if each not in texts and not os.path.exists(each):  # noqa: PTH110 - Path.exists raises for long names
            raise _missing(each)
    base_dir = Path(os.path.abspath(paths[0])).parent  # noqa: PTH100 - keeps a link to a spec where the link is
    shown = shown_path(paths[0])
    if unfit(str(base_dir)):  # it becomes a part of every relative path
        raise SpecInvalid(
            f"the folder {quote(str(base_dir))} has a name that is not UTF-8 text",
            hint="rename it, or move the spec",
        )
    root, variables, problems = _read(paths, base_dir, environ, texts)
    raise_if_any(problems if root is None else (), spec=shown)
    if root is None or variables is None:
        raise AssertionError("a spec without a tree has a problem")
    root, interpolation = interpolate(root, variables)
    environment, found = _check(root, base_dir, interpolation)
    raise_if_any([*problems, *found], spec=shown)
    if environment is None:
        raise AssertionError("a spec without a problem has a model")
    return LoadedSpec(
        environment=environment,
        base_dir=base_dir,
        files=tuple(paths),
        digest=_digest(environment),
        environ=variables,
        root=root,
    )


def _read(
    paths: Sequence[Path], base_dir: Path, environ: Mapping[str, str] | None, texts: Mapping[Path, bytes]
) -> tuple[Node | None, Variables | None, list[Problem]]:
    """The merged tree and the variables; a None among them has a problem that explains it."""
    problems: list[Problem] = []
    trees: list[Node] = []
    unreadable = False
    for order, path in enumerate(paths):
        shown = shown_path(path)
        try:
            tree, found = read_file(path, file=shown, order=order, raw=texts.get(path))
        except Unreadable as error:
            problems.append(error.problem)
            unreadable = True
            continue
        problems.extend(found)
        at = Position(order=order, line=1, column=1, file=shown)
        if tree is not None and not isinstance(tree.value, dict) and tree.value is not None:
            kind = "a list" if isinstance(tree.value, list) else "a single value"
            text = f"the spec must be a map of keys, not {kind}"
            problems.append(Problem(text=text, at=tree.at, hint="a spec starts with version: 1"))
            unreadable = True
        elif tree is not None and tree.value is not None:
            trees.append(tree)
        elif order == 0:  # an overlay may be empty: it changes nothing
            problems.append(Problem(text="the spec is empty", at=at, hint="a spec starts with version: 1"))
            unreadable = True
    try:
        variables = read_environ(base_dir, environ, order=len(paths), file=shown_path(base_dir / ".env"))
    except Unreadable as error:
        return None, None, [*problems, error.problem]
    if unreadable:
        return None, variables, problems
    merged = trees[0]
    for tree in trees[1:]:
        merged = merge(merged, tree)
    return merged, variables, problems


def _check(
    root: Node, base_dir: Path, interpolation: list[Problem]
) -> tuple[Environment | None, list[Problem]]:
    """JSON Schema, then the models, then cross checks, and the problems of all of them."""
    from . import schema_check  # jsonschema is slow to import

    document = _lower_types(root.plain())
    problems = schema_check.schema_problems(root, document)
    environment, more = schema_check.build(root, document, [*interpolation, *problems])
    problems.extend(more)
    problems.extend(cross_problems(root, document, lambda written: _real_path(base_dir, written)))
    return environment, without_echoes(interpolation, problems, root)


def _lower_types(document: object) -> object:
    if isinstance(document, dict) and isinstance(backends := document.get("backends"), dict):
        return {**document, "backends": {name: lower_type(backend) for name, backend in backends.items()}}
    return document


def _real_path(base_dir: Path, written: str) -> str | None:
    try:
        return os.path.realpath(base_dir / Path(written).expanduser())
    except (RuntimeError, ValueError, OSError):  # no home folder; a character that no file system takes
        return None


def _digest(environment: Environment) -> str:
    plain = environment.model_dump(mode="json")
    canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def shown_path(path: Path) -> str:
    """The file as a user would type it: relative when it is below the current folder."""
    try:
        return str(path.relative_to(Path.cwd())) if path.is_absolute() else str(path)
    except (ValueError, OSError):
        return str(path)


def _missing(path: Path) -> NotFound:
    return NotFound(
        f"there is no spec {quote(shown_path(path))}",
        hint=f"create {shown_path(path)} (hybridrag init writes one to begin with), or name the spec with -f FILE",
    )
