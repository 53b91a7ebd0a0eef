"""Assemble an environment from its spec: the one place where all rooms meet. Called by `api` and `cli`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypedDict

from hybridrag.adapters.embedding_told import Near
from hybridrag.adapters.env_file import EnvFile
from hybridrag.adapters.halters import CommandHalter, DockerHalter, ServerHalter, SystemdHalter
from hybridrag.adapters.lightrag_process import LightRagSchema
from hybridrag.adapters.secrets import Secrets
from hybridrag.backends.json.backend import JsonBackend
from hybridrag.backends.json.files import sizes
from hybridrag.backends.json.spec import JsonSpec
from hybridrag.backends.milvus.backend import MilvusBackend
from hybridrag.backends.milvus.spec import MilvusSpec
from hybridrag.backends.postgres.backend import PostgresBackend
from hybridrag.backends.postgres.spec import PostgresSpec, TlsSpec
from hybridrag.engine import World
from hybridrag.engine.world import served_by
from hybridrag.errors import SpecInvalid
from hybridrag.journal import known_counts, watch_path
from hybridrag.model.ports import Backend
from hybridrag.model.selection import Embedding, Selection
from hybridrag.model.services import Halter
from hybridrag.model.wanted import Place, Wanted, way_out
from hybridrag.model.watching import Ingester, Model, Models, Source, Watched
from hybridrag.planner import JSON
from hybridrag.spec import (
    CommandWriterSpec,
    DockerWriterSpec,
    EmbeddingModelSpec,
    LlmSpec,
    LoadedSpec,
    NoWriterSpec,
    SourceSpec,
    SystemdWriterSpec,
    WatcherWriterSpec,
    WriterSpec,
    how_stopped,
    seconds_of,
)
from hybridrag.watch.halter import WatcherHalter
from hybridrag.watch.view import View


def assemble(spec: LoadedSpec, *, state_folder: Path | None = None) -> World:
    """The world of a spec. Connects to nothing and writes nothing. `state_folder` replaces the spec's."""
    environment = spec.environment
    state = (state_folder or spec.resolve(environment.state.path)).absolute() / environment.environment
    secrets = Secrets(spec.environ, spec.base_dir)
    schema = LightRagSchema()
    counts = functools.partial(known_counts, state / "journal.db")
    backends: dict[str, Backend] = {}
    for name, entry in environment.backends.items():
        if isinstance(entry, JsonSpec):
            backends[name] = JsonBackend(name, counts)
        elif isinstance(entry, PostgresSpec):
            placed = entry.model_copy(update={"tls": _placed(entry.tls, spec)})
            backends[name] = PostgresBackend(
                name, placed, environment=environment.environment, state=state, secrets=secrets, schema=schema
            )
        elif isinstance(entry, MilvusSpec):
            backends[name] = MilvusBackend(name, entry, secrets=secrets, schema=schema)
    declared = next((backend for backend in backends.values() if backend.type == "json"), None)
    wanted = {
        name: Wanted(
            database=name,
            path=str(spec.resolve(database.path)),
            workspace=database.effective_workspace(name),
            placement={slot: _place(backends[held]) for slot, held in database.placement().items()},
            embedding=Embedding(model=database.embedding.model, dim=database.embedding.dim),
            batch=database.migration.batch,
            quarantine=database.migration.on_bad_record == "quarantine",
            thresholds=environment.thresholds(name),
            prevent_destroy=environment.prevent_destroy(name),
            pausable=database.writer.kind != "none",
            stopping=how_stopped(database.writer),
            keep_source_s=environment.keep_source_s(name),
            function=database.embedding.function,
        )
        for name, database in environment.databases.items()
    }

    def serving(name: str) -> Selection:
        return world.selection(world.database(name))

    world = World(
        environment=environment.environment,
        spec_digest=spec.digest,
        spec_files=tuple(str(path) for path in spec.files),
        wanted=wanted,
        backends=backends,
        files=declared or JsonBackend("json", counts),
        state=state,
        halters={
            name: halter
            for name, database in environment.databases.items()
            if (halter := _halter(name, database.writer, spec, secrets, serving, state)) is not None
        },
        watched={
            name: _watched(name, database.source, database.writer, spec)
            for name, database in environment.databases.items()
            if database.source is not None and isinstance(database.writer, WatcherWriterSpec)
        },
        settings={name: _near(name, wanted, spec).told for name in environment.databases},
        sizes=sizes,
        models={
            name: Models(
                llm=_model("models.llm", environment.models.llm, secrets),
                embedding=_model("models.embedding", environment.models.embedding, secrets),
                function=database.embedding.function,
            )
            for name, database in environment.databases.items()
        },
    )
    return world


def watch_view(spec: LoadedSpec, world: World, database: str) -> View:
    """What the daemon of a database works with. Raises NotFound, or SpecInvalid where no daemon is to feed it."""
    item = world.database(database)
    watched = world.watched.get(database)
    if watched is None:
        raise SpecInvalid(
            f'database "{database}" is not fed by a watcher',
            where=spec.where("databases", database, "writer"),
            hint=f"set databases.{database}.writer: {{kind: watcher}}, a source and models",
        )
    serving = world.serving(item)
    return View(
        watched=watched,
        backend=served_by(serving),
        selection=world.selection(item),
        embedding=item.embedding,
        models=world.models[database],
        environ=spec.environ,
        base_dir=spec.base_dir,
        thresholds=item.thresholds,
        way_out=way_out(database, world.server_for(item)),
        in_files=any(backend.type == JSON for backend in serving.values()),
        sizes=functools.partial(world.file_sizes, item),
        inputs=(
            world.registry.path,
            *(path.absolute() for path in spec.files),
            spec.base_dir / ".env",
        ),
    )


def make_ingester(view: View, *, log: Path, inherit: tuple[int, ...]) -> Ingester:
    """LightRAG for a view; see `watch.view.MakeIngester`."""
    from hybridrag.adapters.ingester import LightRagIngester

    made: Ingester = LightRagIngester(
        selection=view.selection,
        embedding=view.embedding,
        models=view.models,
        environ=view.environ,
        base_dir=view.base_dir,
        log=log,
        inherit=inherit,
    )
    return made


def _watched(name: str, source: SourceSpec, writer: WatcherWriterSpec, spec: LoadedSpec) -> Watched:
    return Watched(
        database=name,
        source=Source(
            kind=source.type,
            path=str(spec.resolve(source.path)),
            recursive=source.recursive,
            extensions=tuple(extension.lower() for extension in source.extensions),
        ),
        interval_s=seconds_of(writer.interval),
        drain_s=writer.timeout,
    )


def _near(name: str, wanted: Mapping[str, Wanted], spec: LoadedSpec) -> Near:
    """Where settings of one database may stand."""
    item = wanted[name]
    file = getattr(spec.environment.databases[name].writer, "env_file", None)
    return Near(
        path=Path(item.path),
        workspace=item.workspace,
        base_dir=spec.base_dir,
        embedding=item.embedding,
        env_file=None if file is None else (spec.resolve(file), f"databases.{name}.writer.env_file"),
        others=[other.embedding for other in wanted.values() if other is not item],
    )


def _model(key: str, entry: LlmSpec | EmbeddingModelSpec | None, secrets: Secrets) -> Model | None:
    if entry is None:
        return None
    ref = entry.api_key
    return Model(
        binding=entry.binding,
        name=entry.model if isinstance(entry, LlmSpec) else None,
        base_url=entry.base_url,
        key=None if ref is None else lambda: secrets.resolve(ref, used_by=f"{key}.api_key").reveal(),
    )


def _halter(
    name: str,
    writer: WriterSpec,
    spec: LoadedSpec,
    secrets: Secrets,
    serving: Callable[[str], Selection],
    state: Path,
) -> Halter | None:
    """What stops this writer; None where nobody could. `serving`: by database."""
    if isinstance(writer, NoWriterSpec):
        return None
    if isinstance(writer, WatcherWriterSpec):
        return WatcherHalter(name, watch_path(state, name), drain_s=writer.timeout)
    key = f"databases.{name}.writer"
    path = None if writer.env_file is None else spec.resolve(writer.env_file)
    if isinstance(writer, DockerWriterSpec):
        placed = None if path is None else (path, f"{key}.env_file")
        return DockerHalter(name, container=writer.container, env_file=placed, timeout_s=writer.timeout)
    file = None if path is None else EnvFile(path, key=f"{key}.env_file")
    here: _Here = {"timeout_s": writer.timeout, "folder": spec.base_dir, "environ": spec.environ}
    if isinstance(writer, SystemdWriterSpec):
        return SystemdHalter(name, unit=writer.unit, user=writer.user, env_file=file, **here)
    if isinstance(writer, CommandWriterSpec):
        commands = {"pause": writer.pause, "resume": writer.resume}
        return CommandHalter(name, **commands, check=writer.check, env_file=file, **here)
    ref = writer.api_key
    return ServerHalter(
        name,
        url=writer.url,
        api_key=None if ref is None else lambda: secrets.resolve(ref, used_by=f"{key}.api_key").reveal(),
        serving=lambda: serving(name),
        env_file=EnvFile(spec.resolve(writer.env_file), key=f"{key}.env_file"),
        stop=writer.stop,
        start=writer.start,
        **here,
    )


class _Here(TypedDict):
    """What every halter that runs commands is given."""

    timeout_s: int
    folder: Path
    environ: Mapping[str, str]


def _place(backend: Backend) -> Place:
    return Place(
        name=backend.name,
        type=backend.type,
        provisioned=backend.provisioned,
        serves=backend.serves,
        mends=backend.mends,
    )


def _placed(tls: TlsSpec, spec: LoadedSpec) -> TlsSpec:
    """TLS with its files found from the spec's folder."""
    files = {"ca": tls.ca, "cert": tls.cert, "key": tls.key}
    return tls.model_copy(
        update={name: spec.resolve(path) for name, path in files.items() if path is not None}
    )
