"""`hybridrag backend setup-docker`: a Postgres in Docker, made by the engine's own step and written into the spec."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import click

from hybridrag.errors import BackendUnavailable, HybridragError, PlanRefused, SpecInvalid

from .common import Settings, command_options, exit_codes

if TYPE_CHECKING:
    from hybridrag.backends.postgres.spec import PostgresSpec
    from hybridrag.engine import World
    from hybridrag.model.facts import Facts
    from hybridrag.spec import LoadedSpec

NO_DOCKER, PORT_IN_USE = 1, 2
CODES: dict[type[HybridragError], int] = {BackendUnavailable: 3, PlanRefused: 3, SpecInvalid: 3}
"""Creation failed. 1 and 2 are set where they are found; 9 another apply runs."""


@click.command("setup-docker")
@click.option("--name", default="pg", show_default=True, help="Name of the backend in the spec.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port on 127.0.0.1.  [default: 5432]")
@click.option(
    "--password",
    metavar="TEXT",
    help="env:NAME or file:PATH (references), - (stdin), or itself; default: generated.",
)
@click.option(
    "--volume", metavar="NAME", help="Named volume for the data; default: the container's name with -data."
)
@click.option("--dry-run", is_flag=True, help="Show what would be done and write nothing.")
@command_options
@exit_codes(CODES)
def setup_docker(
    settings: Settings, name: str, port: int | None, password: str | None, volume: str | None, dry_run: bool
) -> None:
    """Provision a Postgres with pgvector in Docker and add it to the spec; twice is once.

    Exit codes: 0, 1 Docker not available, 2 port in use, 3 creation failed, 9 an apply runs.
    """
    from hybridrag.engine.provisioning import plan_server
    from hybridrag.render.plan_text import show_plan

    from .apply import run_plan
    from .given_secrets import given
    from .init import files_or_new
    from .spec_change import SpecChange

    change = SpecChange(lambda: files_or_new(settings))
    if name in change.spec.environment.backends:
        _refuse_another(change.spec, name, port, volume, password)
    else:
        provision = {"driver": "docker", **({"volume": volume} if volume else {})}
        entry: dict[str, Any] = {"type": "postgres", "provision": provision, "port": port or 5432}
        secret = given(settings, password, "--password", url=False) if password is not None else None
        change.put_backend(name, entry, "password", secret, settings.assembled(change.spec).world.state)
    env = settings.assembled(change.tried())
    try:
        planned, facts = asyncio.run(plan_server(env.world, name))
    except BackendUnavailable as error:
        _judge(env.world, env.spec, name, error)
        raise
    if dry_run:
        if settings.json:
            settings.print_json({"dry_run": True, **_told(env.spec, name, facts)})
        else:
            show_plan(settings.out(), planned.plan)
        return
    if planned.plan.steps:
        run_plan(settings, env.world, planned, [])
    change.write()
    facts, details = asyncio.run(env.world.backend(name).observe())
    told = _told(env.spec, name, {**details, **facts})
    if settings.json:
        settings.print_json(told)
        return
    out = settings.out()
    out.print(
        f'[good]running[/]: container "{told["container_name"]}" ({told["image"]}), volume {told["volume"]}'
    )
    out.print(f"  {told['connection_string']}", markup=False)
    if change.files:
        out.print(f'  backend "{name}" is now in {", ".join(change.files)} (commit it)')
    out.print(f"[next]→ hybridrag migrate DB --to {name}[/]")


def _declared(spec: LoadedSpec, name: str) -> PostgresSpec | None:
    from hybridrag.backends.postgres.spec import DockerProvision, PostgresSpec

    entry: object = spec.environment.backends[name]
    if isinstance(entry, PostgresSpec) and isinstance(entry.provision, DockerProvision):
        return entry
    return None


def _refuse_another(
    spec: LoadedSpec, name: str, port: int | None, volume: str | None, password: str | None
) -> None:
    """Raises PlanRefused when the entry that is there is not the one that was asked for."""
    entry = _declared(spec, name)
    differs = None
    if entry is None:
        differs = "is not a Postgres in Docker"
    elif port not in (None, entry.declared_port):
        differs = f"has port {entry.declared_port or 'any'}, not {port}"
    elif volume not in (None, getattr(entry.provision, "volume", None)):
        differs = f"has volume {getattr(entry.provision, 'volume', None) or '(default)'}, not {volume}"
    elif password is not None:
        differs = "is there already; its password is changed in the spec"
    if differs is not None:
        raise PlanRefused(
            f'backend "{name}" {differs}',
            where=spec.where("backends", name),
            hint="give another --name, or change it there and run hybridrag apply",
        )


def _judge(world: World, spec: LoadedSpec, name: str, error: HybridragError) -> None:
    """Set the contract's exit code: is it Docker, or the port?"""
    from hybridrag.backends.postgres.embedded_place import is_free

    facts, _ = asyncio.run(world.backend(name).observe())
    entry = _declared(spec, name)
    port = entry.declared_port if entry is not None else None
    if facts.get("state") == "unknown":
        error.exit_code = NO_DOCKER
    elif port is not None and not is_free(port) and facts.get("state") in ("absent", "stopped", "created"):
        error.exit_code = PORT_IN_USE
        error.hint = f"stop that program, or choose another one: hybridrag backend setup-docker --name {name} --port {port + 1}"


def _told(spec: LoadedSpec, name: str, facts: Facts) -> dict[str, Any]:
    """The contract's JSON."""
    entry = _declared(spec, name)
    if entry is None:
        raise AssertionError("only a Postgres in Docker comes here")
    provision: Any = entry.provision
    container = provision.container or f"hybridrag-{spec.environment.environment}-{name}"
    port = facts.get("port") or entry.declared_port
    status = (
        "running" if facts.get("reachable") else "starting" if facts.get("state") == "running" else "failed"
    )
    return {
        "container_name": container,
        "image": provision.image,
        "port": port,
        "volume": provision.volume or f"{container}-data",
        "connection_string": f"postgresql://{entry.user}:***@{entry.host}:{port}/{entry.database}",
        "status": status,
    }
