"""`hybridrag db create`, `db list`, `db show`, `db remove`: databases in the spec, from flags instead of an editor."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape

from hybridrag.errors import (
    AlreadyExists,
    BackendUnavailable,
    HybridragError,
    NotFound,
    PlanRefused,
    SpecInvalid,
)

from .common import Settings, command_options, exit_codes
from .db_folder import dimension, dimensions, unusable

if TYPE_CHECKING:
    from hybridrag.engine import World
    from hybridrag.model.wanted import Wanted

    from .spec_change import SpecChange

CREATE: dict[type[HybridragError], int] = {
    AlreadyExists: 1,
    SpecInvalid: 2,
    NotFound: 2,  # the folder holds no database
    PlanRefused: 2,
    BackendUnavailable: 3,
}
"""The contract's exit codes; a source that is damaged sets its own 2. Everything else keeps its code."""
LOOK_UP: dict[type[HybridragError], int] = {NotFound: 1}


@click.group()
def db() -> None:
    """Databases of the spec: create, list, show, remove."""


@db.command()
@click.argument("name")
@click.option(
    "--backend",
    default="json",
    show_default=True,
    metavar="NAME|TYPE",
    help="A backend of the spec, or its type.",
)
@click.option(
    "--connection-string",
    metavar="TEXT",
    help="Adds a Postgres backend: env:NAME or file:PATH (references), - (stdin), or postgresql://… itself.",
)
@click.option(
    "--workspace", metavar="TEXT", help="Isolation inside a shared server; default: the name with - as _."
)
@click.option("--path", metavar="FOLDER", help="Folder of its JSON files; default: ./databases/NAME.")
@click.option(
    "--embedding-dim",
    type=click.IntRange(1, 16000),
    metavar="N",
    help="Read from the files where there are any.",
)
@click.option(
    "--embedding-model", metavar="M", help="What LightRAG is told; Postgres and Milvus name tables after it."
)
@click.option("--no-embedding-model", "no_model", is_flag=True, help="LightRAG is told no model.")
@command_options
@exit_codes(CREATE)
def create(
    settings: Settings,
    name: str,
    backend: str,
    connection_string: str | None,
    workspace: str | None,
    path: str | None,
    embedding_dim: int | None,
    embedding_model: str | None,
    no_model: bool,
) -> None:
    """Add a database to the spec (and begin a spec where there is none).

    Exit codes: 0, 1 it exists, 2 invalid configuration, 3 connection failed, 9 an apply runs.
    """
    from .backend_choice import choose, model_entry, refuse_whole
    from .given_secrets import given, relative_to
    from .init import files_or_new
    from .spec_change import SpecChange

    change = SpecChange(lambda: files_or_new(settings))
    spec = change.spec
    before = settings.assembled(spec).world
    folder = Path(os.path.abspath(Path(path).expanduser() if path else spec.base_dir / "databases" / name))  # noqa: PTH100
    _refuse_existing(before, name, folder)
    option = "--connection-string"
    secret = given(settings, connection_string, option, url=True) if connection_string is not None else None
    choice = choose(spec, backend, connecting=secret is not None)
    found = dimensions(folder)
    dim = dimension(folder, found, embedding_dim)
    model = model_entry(spec, choice, embedding_model, none=no_model)
    if choice.type is not None:
        change.put_backend(choice.name, {"type": choice.type}, "connection_string", secret, before.state)
    entry = {
        "path": relative_to(spec.base_dir, folder),
        **({"workspace": workspace} if workspace else {}),
        "backend": choice.name,
        "embedding": {**model, "dim": dim},
    }
    change.put("databases", name, value=entry)
    world = settings.assembled(change.tried()).world
    item = world.database(name)
    refuse_whole(choice.name, world.backend(choice.name), name)
    steps, held, untidy = _tried(world, item, in_files=found is not None)
    _write(world, item, change, in_files=found is not None or item.backend_type == "json")
    if settings.json:
        settings.print_json({**_entry(world, item), "spec": change.files})
        return
    out = settings.out()
    out.print(f'[good]created[/]: database "{name}" on backend "{item.backend}" ({item.backend_type})')
    out.print(f"  {escape(item.path)}, workspace {escape(item.workspace)}, {dim} dimensions")
    if held:
        out.print(f"  its workspace holds {held:,} records already; they are kept and served")
    if untidy:
        out.print(f"  [warn]{escape(untidy)}[/]; until then it is not served")
    if change.secret_file is not None:
        out.print(
            f"  the connection string is kept in {change.secret_file} (0600); the spec only refers to it"
        )
    out.print(f"  changed: {', '.join(change.files)} (commit it)")
    if untidy:
        out.print(f"[next]→ start LightRAG once on it: hybridrag render {name} tells it how[/]")
    if steps:
        out.print(f'[next]→ hybridrag apply moves its data to "{item.backend}"[/]')


def _refuse_existing(world: World, name: str, folder: Path) -> None:
    """An entry that only the registry has, for the same folder, is what a killed call left: it is taken up."""
    if name in world.wanted:
        raise AlreadyExists(
            f'database "{name}" is in the spec already',
            hint=f"hybridrag db show {name}; or choose another name",
        )
    entry = world.registry.read().databases.get(name)
    if entry is not None and entry.path != str(folder):
        raise AlreadyExists(
            f'database "{name}" is not in the spec, but the registry knows one of that name ("{entry.path}")',
            hint=f"choose another name, or forget that one: hybridrag db remove {name}",
        )


def _tried(world: World, item: Wanted, *, in_files: bool) -> tuple[int, int, str]:
    """(steps that an apply would take, records found on a new database's backend, why they are not served); writes nothing.

    Raises what stands in the way: no connection, no pgvector, damaged files, a workspace in use.
    """
    from hybridrag.engine import plan_world
    from hybridrag.engine.creating import answers
    from hybridrag.errors import SourceUnreadable

    if in_files:
        try:
            return len(asyncio.run(plan_world(world, [item.database])).plan.steps), 0, ""
        except SourceUnreadable as error:
            error.exit_code = CREATE[NotFound]
            raise
    return 0, *asyncio.run(answers(world, item))


def _write(world: World, item: Wanted, change: SpecChange, *, in_files: bool) -> None:
    """Folder, registry, secret and spec, or nothing of it. Raises LeaseHeld."""
    from hybridrag.engine.registering import recorded, register

    with recorded(world, f"create.{item.database}"), contextlib.ExitStack() as undo:
        folder = Path(item.path)
        if in_files and not folder.exists():
            try:
                folder.mkdir(parents=True)
            except OSError as error:
                raise unusable(folder, error) from None
            undo.callback(folder.rmdir)
        if not in_files:
            for place in item.places:
                asyncio.run(world.store(item, place.name).create_place())
        if asyncio.run(register(world, item, in_files=in_files)):
            undo.callback(lambda: asyncio.run(world.pointer.forget(item.database)))
        change.write()
        undo.pop_all()


def _entry(world: World, item: Wanted) -> dict[str, Any]:
    """A database for machines: wanted from the spec, serving as the places say; no secret."""
    from hybridrag.engine.world import served_by

    known = world.registry.read().databases.get(item.database)
    serving = world.serving(item)
    return {
        "name": item.database,
        "path": item.path,
        "workspace": item.workspace,
        "backend": item.backend,
        "backend_type": item.backend_type,
        "serving": served_by(serving),
        "serving_type": known.backend_type if known else "json",
        "embedding": {"model": item.embedding.model, "dim": item.embedding.dim},
    }


@db.command("list")
@command_options
def list_(settings: Settings) -> None:
    """The databases of the spec, and which backend serves each, as the places say."""
    world = settings.located().world
    entries = [_entry(world, item) for item in world.wanted.values()]
    if settings.json:
        settings.print_json({"environment": world.environment, "databases": entries})
        return
    out = settings.out()
    if not entries:
        out.print("no databases\n[next]→ hybridrag db create NAME --path FOLDER[/]")
    rows = [(entry["name"], _place(entry), entry["path"]) for entry in entries]
    widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
    for name, place, path in rows:
        out.print(f"{name:<{widths[0]}}  {place:<{widths[1]}}  {path}", markup=False)


def _place(entry: dict[str, Any]) -> str:
    """The backend, or from which to which."""
    same = entry["serving"] == entry["backend"] or entry["serving_type"] == entry["backend_type"] == "json"
    return str(entry["backend"] if same else f"{entry['serving']} → {entry['backend']} (pending)")


@db.command()
@click.argument("name")
@command_options
@exit_codes(LOOK_UP)
def show(settings: Settings, name: str) -> None:
    """One database: what the spec says of it, and which backend serves it. Exit 1 when it is not there."""
    env = settings.located()
    entry = _entry(env.world, env.world.database(name))
    where = env.spec.where("databases", name)
    if settings.json:
        settings.print_json({**entry, "where": where})
        return
    model = entry["embedding"]["model"] or "no model named"
    rows = {
        "path": entry["path"],
        "workspace": entry["workspace"],
        "backend": f"{entry['backend']} ({entry['backend_type']})",
        "serving": f"{entry['serving']} ({entry['serving_type']})",
        "embedding": f"{entry['embedding']['dim']} dimensions, {model}",
        "declared": where,
    }
    out = settings.out()
    out.print(f"[verb]{name}[/]")
    for key, value in rows.items():
        out.print(f"  {key:<10} {value}", markup=False)


@db.command()
@click.argument("name")
@click.option("--yes", "--auto-approve", "yes", is_flag=True, help="Do not ask.")
@command_options
@exit_codes(LOOK_UP)
def remove(settings: Settings, name: str, yes: bool) -> None:
    """Forget a database: out of the spec and the registry. Its data is never deleted.

    Exit codes: 0, 1 it is not there, 5 not approved or its writer stands stopped, 9 an apply runs.
    """
    from hybridrag.engine.registering import forget, recorded, refuse_while_paused
    from hybridrag.spec import Drop, SpecFiles

    files = SpecFiles(settings.paths())
    world = settings.assembled(files.load()).world
    known = world.registry.read().databases.get(name)
    if name in world.wanted:
        files.change(Drop(path=("databases", name)))
        if name in files.load().environment.databases:
            raise SpecInvalid(f'database "{name}" would still be in the spec', hint="remove it by hand")
    elif known is None:
        world.database(name)  # raises NotFound, listing what there is
    places = _places(world, name)
    if not yes:
        _ask(settings, name, places)
    with recorded(world, f"remove.{name}") as journal:
        refuse_while_paused(world, journal, name)
        files.write()
        try:
            asyncio.run(forget(world, journal, name))
        except (HybridragError, OSError):
            files.undo()
            raise
    if settings.json:
        settings.print_json({"removed": name, "data": places, "spec": [str(path) for path in files.changed]})
        return
    out = settings.out()
    still = " Its data is still here:" if places else ""
    out.print(f'[good]forgotten[/]: database "{name}"; nothing was deleted.{still}')
    for place in places:
        out.print(f"  {place}", markup=False)
    if files.changed:
        out.print(f"  changed: {', '.join(path.name for path in files.changed)} (commit it)")


def _places(world: World, name: str) -> list[str]:
    """Where the data of a database lies, by spec and registry."""
    item, known = world.wanted.get(name), world.registry.read().databases.get(name)
    path = item.path if item else known.path if known else ""
    places = [f"JSON files in {path}"] if Path(path).is_dir() else []
    config = (known.backend_config if known else None) or {}
    if known is not None and known.backend_type != "json":
        at = f"{config.get('postgres_host')}:{config.get('postgres_port')}/{config.get('postgres_database')}"
        where = f" ({at})" if config.get("postgres_host") else ""
        workspace = config.get("postgres_workspace") or (item.workspace if item else "?")
        places.append(f'workspace "{workspace}" in backend "{known.backend}"{where}')
    return places


def _ask(settings: Settings, name: str, places: list[str]) -> None:
    if settings.json or not sys.stdin.isatty():
        raise PlanRefused(
            f'removing "{name}" needs an approval, and nobody can be asked here',
            hint=f"hybridrag db remove {name} --yes",
        )
    for place in places:
        click.echo(f"  stays: {place}", err=True)
    if not click.confirm(f'Forget database "{name}"?', default=False, err=True):
        raise PlanRefused("not approved; nothing was done")
