"""What every command shares: global options, loading the environment, errors to exit codes."""

from __future__ import annotations

import functools
import json
import logging
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hybridrag.errors import HybridragError, NotFound, SpecInvalid
from hybridrag.render.any_text import is_text, shown, take_any_text

if TYPE_CHECKING:
    from rich.console import Console

    from hybridrag.api import Environment
    from hybridrag.spec import LoadedSpec

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Settings:
    """The global options of one call."""

    files: tuple[str, ...]
    env: str | None
    state: str | None
    json: bool
    color: bool
    quiet: bool
    debug: bool
    looking: bool = False
    """Whether the command only looks: then a state folder that is named must be there."""

    def out(self, *, to_stderr: bool = False) -> Console:
        from hybridrag.render.console import console

        return console(to_stderr=to_stderr, color=self.color)

    def environment(self) -> Environment:
        """Load the spec that the options name."""
        from hybridrag.spec import load

        paths = self.paths()
        return self.assembled(load(paths[0], overlays=paths[1:]))

    def assembled(self, spec: LoadedSpec) -> Environment:
        """The environment of a spec that is loaded already."""
        from hybridrag.api import Environment
        from hybridrag.assembly import assemble

        if self.state and not is_text(self.state):
            raise SpecInvalid(
                f'the state folder "{self.state}" has a name that is not UTF-8 text',
                hint="give another folder with --state",
            )
        if self.looking and self.state and not Path(self.state).is_dir():
            raise NotFound(
                f'the state folder "{self.state}" does not exist', hint="correct --state, or leave it out"
            )
        return Environment(spec, assemble(spec, state_folder=Path(self.state) if self.state else None))

    def located(self) -> Environment:
        """The environment, after its places were asked what serves; for commands that show or use it. Read-only."""
        return locating(self.environment())

    def paths(self) -> list[Path]:
        """The spec files that the options name, in order. Raises NotFound."""
        from hybridrag.spec import find_files

        if self.files and self.env:
            raise click.UsageError("give either --file (repeated for overlays) or --env, not both")
        return find_files([Path(name) for name in self.files], self.env, Path.cwd())

    def new_file(self) -> Path:
        """The one file that a new spec would be written to."""
        from hybridrag.spec import DEFAULT_FILE

        if len(self.files) > 1 or self.env:
            raise click.UsageError("a new spec is one file: give --file once, and no --env")
        return Path.cwd() / (self.files[0] if self.files else DEFAULT_FILE)

    def print_json(self, value: object) -> None:
        click.echo(json.dumps(value, ensure_ascii=False, indent=2, default=str))


def locating(env: Environment) -> Environment:
    """The same environment, after its places were asked what serves."""
    import asyncio

    from hybridrag.engine.locating import locate

    asyncio.run(locate(env.world))
    return env


LOOKING = frozenset(
    {
        "plan",
        "status",
        "health",
        "verify",
        "drift",
        "render",
        "query",
        "history",
        "show",
        "db list",
        "db show",
        "backend status",
        "watch status",
    }
)
"""Commands that write nothing."""
_OPTIONS = (
    click.option(
        "-f", "--file", "files", multiple=True, envvar="HYBRIDRAG_FILE", metavar="FILE",
        help="Spec file; give it again for overlays, merged in order. Default: hybridrag.yaml.",
    ),
    click.option("--env", envvar="HYBRIDRAG_ENV", metavar="NAME", help="Also merge hybridrag.NAME.yaml."),
    click.option("--state", envvar="HYBRIDRAG_STATE", metavar="FOLDER", help="State folder, instead of the spec's."),
    click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", envvar="HYBRIDRAG_FORMAT"),
    click.option("--json", "as_json", is_flag=True, help="Short for --format json."),
    click.option("--no-color", is_flag=True, envvar="HYBRIDRAG_NO_COLOR", help="No colour (also: NO_COLOR)."),
    click.option("-q", "--quiet", is_flag=True, envvar="HYBRIDRAG_QUIET", help="Only results and errors."),
    click.option("--debug", is_flag=True, envvar="HYBRIDRAG_DEBUG", help="Show tracebacks."),
)  # fmt: skip


parallelism_option = click.option(
    "--parallelism",
    type=click.IntRange(1, 64),
    metavar="N",
    help="Streams, and ranges of long ones, worked on at once; default: the processors, at most 4.",
)


def command_options(function: Command) -> Command:
    """Add the global options; the command gets them as `settings`, and its errors become exit codes."""

    @functools.wraps(function)
    def wrapper(
        files: tuple[str, ...],
        env: str | None,
        state: str | None,
        format_: str,
        as_json: bool,
        no_color: bool,
        quiet: bool,
        debug: bool,
        **own: Any,
    ) -> Any:
        take_any_text(sys.stdout, sys.stderr)
        # What breaks while something is broken off is told as its cause; libraries' own tracebacks may hold data.
        logging.getLogger("asyncio").disabled = True
        machine = as_json or format_ == "json"
        looking = click.get_current_context().command_path.partition(" ")[2] in LOOKING
        settings = Settings(files, env, state, machine, not no_color, quiet, debug, looking)
        try:
            return function(settings=settings, **own)
        except HybridragError as error:
            fail(settings, error)
        except KeyboardInterrupt:
            sys.exit(130)
        except (BrokenPipeError, click.ClickException, click.exceptions.Exit):
            raise
        except Exception as error:
            fail(settings, unexpected(error))

    for option in reversed(_OPTIONS):
        wrapper = option(wrapper)
    return wrapper  # type: ignore[return-value]


def exit_codes(codes: Mapping[type[HybridragError], int]) -> Callable[[Command], Command]:
    """Errors of these kinds leave with these codes; the nearest kind counts, and a code set on an error before."""

    def decorate(function: Command) -> Command:
        @functools.wraps(function)
        def wrapper(*args: Any, **named: Any) -> Any:
            try:
                return function(*args, **named)
            except HybridragError as error:
                if "exit_code" not in vars(error):
                    error.exit_code = next(
                        (codes[kind] for kind in type(error).__mro__ if kind in codes), error.exit_code
                    )
                raise

        return wrapper  # type: ignore[return-value]

    return decorate


def unexpected(error: Exception) -> HybridragError:
    """Something we did not foresee; its text may hold data, so only its kind is told without --debug."""
    wrapped = HybridragError(
        f"unexpected error ({type(error).__name__})",
        hint="run the command again with --debug and report what it prints",
    )
    wrapped.__cause__ = error
    return wrapped


def fail(settings: Settings, error: HybridragError) -> None:
    """Report an error on stderr and leave with its exit code."""
    if settings.debug:
        from hybridrag.model.secret import without_resolved

        # A library's own error may hold the arguments of its call.
        sys.stderr.write(without_resolved("".join(traceback.format_exception(error))))
    if settings.json:
        click.echo(json.dumps({"error": error.as_dict()}, ensure_ascii=False), err=True)
    else:
        from rich.markup import escape

        text, arrow, hint = shown(str(error)).rpartition("\n  → ")
        body = f"{escape(text)}\n  [next]→ {escape(hint)}[/]" if arrow else escape(hint)
        settings.out(to_stderr=True).print(f"[bad]error[/]: {body}")
    sys.exit(error.exit_code)
