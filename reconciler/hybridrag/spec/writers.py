"""The nouns of a spec about who writes a database: its writer, what it ingests, with which models."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hybridrag.model.secret import SecretRef
from hybridrag.model.strict import Strict

from .values import Duration, SpecPath

Argv = Annotated[tuple[str, ...], Field(min_length=1)]
Seconds = Annotated[int, Field(ge=1, le=3600)]
Url = Annotated[
    str,
    Field(
        pattern=r"^https?://[^\s]+$",
        json_schema_extra={"patternErrorMessage": "must be an http:// or https:// address"},
    ),
]
EnvFile = Annotated[
    SpecPath,
    Field(
        description="The .env that the writer reads when it starts: while it stands, it is rewritten for the backend that "
        "serves then, and put back when it does not start."
    ),
]


class NoWriterSpec(Strict):
    """Nobody who could be paused; the source is watched, and a change before the switch stops the run."""

    kind: Literal["none"]


class WatcherWriterSpec(Strict):
    """hybridrag's own daemon (`hybridrag watch`), which ingests `source` with `models`."""

    kind: Literal["watcher"]
    interval: Duration = Field(
        default="300s", description="How often the source is looked through, beside file events."
    )
    timeout: Seconds = Field(
        default=600, description="Seconds that the document in hand may take when it is to pause."
    )


class CommandWriterSpec(Strict):
    """A writer that commands of the user's stop and start; each may be run twice.

    They are argument lists, run in the spec's folder, never through a shell.
    """

    kind: Literal["command"]
    pause: Argv = Field(description="Stops the writer; returns when nothing is written any more.")
    resume: Argv = Field(description="Lets it go on, on the backend that the registry names then.")
    check: Argv | None = Field(
        default=None,
        description="Ends with 0 while the writer stands; asked after pause and before the switch.",
    )
    env_file: EnvFile | None = None
    timeout: Seconds = Field(default=60, description="Seconds that each of them may take.")


class DockerWriterSpec(Strict):
    """A container, which is stopped and started."""

    kind: Literal["docker"]
    container: str = Field(min_length=1, description="Its name or id.")
    env_file: EnvFile | None = None
    timeout: Seconds = Field(default=60, description="Seconds it may take to stop, before it is killed.")


class SystemdWriterSpec(Strict):
    """A systemd unit, which is stopped and started."""

    kind: Literal["systemd"]
    unit: str = Field(min_length=1, description="For example lightrag.service.")
    user: bool = Field(default=False, description="A unit of the user's own manager (systemctl --user).")
    env_file: EnvFile | None = None
    timeout: Seconds = Field(default=60, description="Seconds it may take to stop or start.")


class ServerWriterSpec(Strict):
    """A lightrag-server. It is stopped once its pipeline is idle, and started on the backend that serves then."""

    kind: Literal["lightrag-server"]
    url: Url = Field(description="Where it answers, for example http://127.0.0.1:9621.")
    api_key: SecretRef | None = Field(default=None, description="Its LIGHTRAG_API_KEY.")
    env_file: EnvFile
    stop: Argv = Field(description="Stops it: an argument list, run in the spec's folder.")
    start: Argv = Field(
        description="Starts it in the background: an argument list, run in the spec's folder."
    )
    timeout: Seconds = Field(
        default=300, description="Seconds until its pipeline must be idle, and until it must answer again."
    )


WriterSpec = Annotated[
    NoWriterSpec
    | WatcherWriterSpec
    | ServerWriterSpec
    | DockerWriterSpec
    | SystemdWriterSpec
    | CommandWriterSpec,
    Field(discriminator="kind"),
]


def how_stopped(writer: WriterSpec) -> str:
    """The words for it in a plan."""
    if isinstance(writer, ServerWriterSpec):
        return f"wait until lightrag-server at {writer.url} is idle, then stop it"
    if isinstance(writer, DockerWriterSpec):
        return f'stop the container "{writer.container}"'
    if isinstance(writer, SystemdWriterSpec):
        return f'stop the unit "{writer.unit}"'
    return "stop the writer"


Extension = Annotated[
    str,
    Field(
        pattern=r"^\.[A-Za-z0-9_]{1,16}$",
        json_schema_extra={"patternErrorMessage": 'must be an extension such as ".md"'},
    ),
]


class SourceSpec(Strict):
    """What the watcher ingests."""

    type: Literal["filesystem", "specstory"] = Field(
        default="filesystem",
        description="A folder of text files, or a project with the sessions that SpecStory keeps in .specstory/history.",
    )
    path: SpecPath = Field(description="The folder, relative to the first spec file.")
    recursive: bool = True
    extensions: tuple[Extension, ...] = Field(default=(".md", ".txt"), min_length=1)


class LlmSpec(Strict):
    """The language model that extracts entities and answers, through LightRAG's own binding."""

    binding: Literal["openai", "ollama"] = Field(description="openai: anything that speaks its protocol.")
    model: str = Field(min_length=1)
    base_url: Url | None = Field(default=None, description="Default: the binding's own.")
    api_key: SecretRef | None = None


class EmbeddingModelSpec(Strict):
    """How embeddings are made; which one is said by each database's `embedding.model`."""

    binding: Literal["openai", "ollama"] = Field(description="openai: anything that speaks its protocol.")
    base_url: Url | None = Field(default=None, description="Default: the binding's own.")
    api_key: SecretRef | None = None


class ModelsSpec(Strict):
    """The models that `watch` and `query` use; a migration uses none."""

    llm: LlmSpec | None = None
    embedding: EmbeddingModelSpec | None = None
