"""`hybridrag query`: ask a database through LightRAG, on the backend that serves it now."""

from __future__ import annotations

import asyncio

import click

from .common import Settings, command_options


@click.command()
@click.argument("database")
@click.argument("text")
@click.option(
    "--mode",
    type=click.Choice(["local", "global", "hybrid", "mix", "naive"]),
    default="mix",
    show_default=True,
)
@click.option("--top-k", type=click.IntRange(1, 1000), default=10, show_default=True)
@click.option("--context-only", is_flag=True, help="Print what a model would be given, without calling one.")
@command_options
def query(settings: Settings, database: str, text: str, mode: str, top_k: int, context_only: bool) -> None:
    """Retrieve through LightRAG; the question itself serves as keywords, so no model is called."""
    from hybridrag.adapters.lightrag_process import ask
    from hybridrag.engine.world import served_by
    from hybridrag.errors import SpecInvalid

    env = settings.environment()
    item = env.world.database(database)
    if not context_only:
        raise SpecInvalid(
            "answering needs a language model, which the spec cannot name yet", hint="add --context-only"
        )
    if not item.function:
        raise SpecInvalid(
            f'database "{database}" names no embedding function, so the question cannot be embedded',
            where=env.spec.where("databases", database, "embedding"),
            hint=f"set databases.{database}.embedding.function to file.py:name of an async embedding function",
        )
    selection = env.world.selection(item)
    answer = asyncio.run(
        ask("query", selection, item.embedding, function=item.function, base_dir=str(env.spec.base_dir),
            environ=env.spec.environ, text=text, mode=mode, top_k=top_k)
    )  # fmt: skip
    if settings.json:
        settings.print_json(
            {
                "database": database,
                "backend": served_by(env.world.serving(item)),
                "mode": mode,
                "data": answer["data"],
            }
        )
        return
    click.echo(answer["context"] or "(nothing found)")
