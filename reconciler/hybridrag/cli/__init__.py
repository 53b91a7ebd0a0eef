"""The command line: argv -> calls -> exit code. One small file per group; heavy imports wait for the call."""

from __future__ import annotations

import click

from hybridrag import __version__

from .adopt import adopt
from .apply import apply
from .backend import backend
from .db import db
from .drift import drift, repair
from .history import history, show
from .init import init
from .look import health, status, verify
from .migrate import migrate
from .plan import plan, validate
from .query import query
from .render import render
from .retire import retire
from .rollback import rollback
from .setup_docker import setup_docker
from .unlock import unlock
from .watch import watch

# Click's own 2 for wrong usage would read as "changes pending" in CI.
click.UsageError.exit_code = 1

_EPILOG = """\b
Exit codes: 0 done or nothing to do, 1 unexpected error or wrong usage,
2 changes pending (plan --detailed-exitcode), drifted, or not healthy (status --exit-code), 3 spec or registry invalid, 4 a backend or a file cannot be
reached, read or used, 5 plan refused, 6 not found, 7 verification failed,
8 interrupted (resumable), 9 lease held by another apply or watcher, 130 second Ctrl-C."""


@click.group(
    epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="hybridrag")
def main() -> None:
    """Terraform for LightRAG storage: declare each database's backend, plan, apply, verify."""


for _command in (
    init,
    validate,
    plan,
    apply,
    migrate,
    adopt,
    rollback,
    retire,
    unlock,
    status,
    history,
    show,
    health,
    verify,
    drift,
    repair,
    query,
    render,
    watch,
    db,
    backend,
):
    main.add_command(_command)
backend.add_command(setup_docker)
