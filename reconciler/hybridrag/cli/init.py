"""`hybridrag init`: a commented spec to begin with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .common import Settings, command_options

if TYPE_CHECKING:
    from hybridrag.spec import SpecFiles

TEMPLATE = """\
# What hybridrag keeps true: `hybridrag plan` shows what differs, `hybridrag apply` makes it so.
version: 1
environment: dev                       # names the folder of runs and registry: state/dev

backends:                              # every place a database may live in; databases name one of these
  files: {type: json}                  # LightRAG's own JSON files
  # pg:                                # a Postgres of its own on this machine; apply creates and starts it
  #   type: postgres
  #   provision: {driver: embedded}    # in Docker: hybridrag backend setup-docker
  # server:                            # a Postgres that is there already
  #   type: postgres
  #   host: db.example.org
  #   user: lightrag
  #   database: lightrag
  #   password: {env: PG_PASSWORD}     # never the password itself

# models:                              # for hybridrag watch and query; a migration uses none
#   llm: {binding: openai, model: gpt-4o-mini, api_key: {env: OPENAI_API_KEY}}
#   embedding: {binding: openai, api_key: {env: OPENAI_API_KEY}}

databases: {}                          # hybridrag db create NAME adds one; by hand, instead of {}:
  # notes:
  #   path: ./notes                    # the folder that directly holds kv_store_*.json, vdb_*.json and *.graphml
  #   backend: files                   # changing this line is the whole migration
  #   embedding: {model: text-embedding-3-small, dim: 1536}
  #   writer:                          # who writes it all day, so that apply can stop and start it; default: nobody
  #     kind: lightrag-server          # or docker, systemd, command, watcher
  #     url: http://127.0.0.1:9621
  #     env_file: ./server/.env
  #     stop: [systemctl, --user, stop, lightrag]
  #     start: [systemctl, --user, start, lightrag]
"""


def files_or_new(settings: Settings) -> SpecFiles:
    """The spec files that the options name; a new commented one where the only one is missing."""
    from hybridrag.spec import SpecFiles

    if not settings.env and len(settings.files) < 2 and not (new := settings.new_file()).exists():
        return SpecFiles([new], missing=TEMPLATE)
    return SpecFiles(settings.paths())


@click.command()
@command_options
def init(settings: Settings) -> None:
    """Write a commented hybridrag.yaml; an existing one is never overwritten."""
    from hybridrag.errors import AlreadyExists
    from hybridrag.spec import SpecFiles

    path = settings.new_file()
    if path.exists() or path.is_symlink():
        raise AlreadyExists(
            f'"{path.name}" is there already; it was left as it is', hint="hybridrag validate checks it"
        )
    files = SpecFiles([path], missing=TEMPLATE)
    files.load()
    files.write()
    if settings.json:
        settings.print_json({"spec": str(path)})
    else:
        settings.out().print(
            f"[good]written[/]: {path.name}\n[next]→ hybridrag db create NAME --path FOLDER[/]"
        )
