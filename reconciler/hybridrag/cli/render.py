"""`hybridrag render DB --as …`: what a server that is not ours needs to use a database as it is now. Read-only."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from .common import Settings, command_options
from .watch import run_argv

if TYPE_CHECKING:
    from hybridrag.api import Environment
    from hybridrag.render.server_settings import Served


@click.command()
@click.argument("database", metavar="DB")
@click.option(
    "--as", "form", type=click.Choice(["env", "compose", "systemd"]), default="env", show_default=True
)
@click.option(
    "--with-secrets", is_flag=True, help="Write secrets too, into a file or pipe: never to a terminal."
)
@command_options
def render(settings: Settings, database: str, form: str, with_secrets: bool) -> None:
    """What an unchanged LightRAG server needs to use a database as it is now.

    env is a complete .env; compose is a service that mounts it. Where the spec's writer names its env_file,
    apply keeps that file in step by itself. systemd is a user's unit for `hybridrag watch run DB`.
    """
    from hybridrag.errors import PlanRefused
    from hybridrag.render.server_settings import compose, env

    if with_secrets and sys.stdout.isatty():
        raise PlanRefused(
            "secrets are not written to a terminal",
            hint=f"(umask 077; hybridrag render {database} --as {form} --with-secrets > lightrag.env)",
        )
    loaded = settings.located()
    if form == "systemd":
        text = _unit(settings, loaded, database)
    else:
        served = _served(loaded, database, with_secrets=with_secrets)
        text = env(served) if form == "env" else compose(served)
    if settings.json:
        settings.print_json({"database": database, "as": form, "text": text})
    else:
        click.echo(text, nl=False)


def _unit(settings: Settings, env: Environment, database: str) -> str:
    from hybridrag.assembly import watch_view
    from hybridrag.render.systemd import systemd_unit

    view = watch_view(env.spec, env.world, database)
    return systemd_unit(
        database,
        environment=env.world.environment,
        argv=run_argv(settings, database),
        folder=str(env.spec.base_dir),
        drain_s=view.watched.drain_s,
    )


def _served(env: Environment, database: str, *, with_secrets: bool) -> Served:
    from hybridrag.engine.world import served_by
    from hybridrag.render.server_settings import Served

    world = env.world
    item = world.database(database)
    serving = world.serving(item)
    selection, models = world.selection(item), world.models[database]
    references: dict[str, str | None] = {}
    for backend in dict.fromkeys(serving.values()):
        entry = env.spec.environment.backends.get(backend.name)
        fields = () if entry is None else type(entry).model_fields
        store = backend.store(item.path, item.workspace, item.embedding)
        for name in store.selection().secrets:
            field = next((f for f in fields if name.endswith(f"_{f.upper()}")), None)
            references[name] = getattr(getattr(entry, field, None), "env", None) if field else None
    declared = env.spec.environment.models
    secrets = dict(selection.secrets)
    for prefix, model, said in (
        ("LLM", models.llm, declared.llm),
        ("EMBEDDING", models.embedding, declared.embedding),
    ):
        if model is not None and model.key is not None and said is not None and said.api_key is not None:
            references[f"{prefix}_BINDING_API_KEY"] = said.api_key.env
            secrets[f"{prefix}_BINDING_API_KEY"] = model.key
    return Served(
        database=database,
        backend=served_by(serving),
        selection=selection,
        embedding=item.embedding,
        models=models,
        references=references,
        secrets={name: secrets[name]() for name in references} if with_secrets else {},
    )
