"""`hybridrag query`: ask a database through LightRAG, on the backend that serves it now."""

from __future__ import annotations

import asyncio
import dataclasses

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
    """Ask through LightRAG: the spec's models.llm answers, or --context-only shows what it would be given.

    With --context-only no language model is called; the question itself serves as keywords.
    """
    from hybridrag.adapters.lightrag_process import ask
    from hybridrag.engine.embedding import refuse_other_embedding
    from hybridrag.engine.world import served_by
    from hybridrag.errors import SpecInvalid

    env = settings.located()
    item = env.world.database(database)
    models = env.world.models[database]
    if models.llm is None and not context_only:
        raise SpecInvalid(
            "answering needs a language model, and the spec names none",
            hint="set models.llm: {binding: openai, model: …} in the spec, or add --context-only",
        )
    if not models.function and models.embedding is None:
        raise SpecInvalid(
            f'nothing makes embeddings for database "{database}", so the question cannot be embedded',
            where=env.spec.where("databases", database, "embedding"),
            hint=f"set models.embedding, or databases.{database}.embedding.function to file.py:name of an async function",
        )
    if context_only:
        models = dataclasses.replace(models, llm=None)
    selection = env.world.selection(item)
    asyncio.run(refuse_other_embedding(env.world, item))
    told = asyncio.run(
        ask("query" if context_only else "answer", selection, item.embedding, models=models,
            base_dir=str(env.spec.base_dir), environ=env.spec.environ, text=text, mode=mode, top_k=top_k)
    )  # fmt: skip
    if settings.json:
        shown = {"database": database, "backend": served_by(env.world.serving(item)), "mode": mode}
        if not context_only:
            shown["answer"] = told["answer"]
        settings.print_json({**shown, "data": told["data"]})
        return
    click.echo((told["context"] if context_only else told["answer"]) or "(nothing found)")
