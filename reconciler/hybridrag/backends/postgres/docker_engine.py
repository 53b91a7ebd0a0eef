"""The Docker engine: the client, and its many ways to fail in words. No other module speaks with Docker's SDK.

Called by `docker_server.py`. It knows nothing of what a container is for.
"""

from __future__ import annotations

import io
import os
import shutil
import socket
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any

from hybridrag.errors import BackendUnavailable
from hybridrag.model.said import said

_PATIENCE_S = 90
_LOCAL = ("unix://", "npipe://", "http+unix://", "tcp://127.0.0.1", "tcp://localhost", "tcp://[::1]")
_INSTEAD = "or use provision: {driver: embedded}, which needs no Docker"
_NO_NETWORK = (
    "no such host",
    "dial tcp",
    "lookup ",
    "timeout",
    "temporary failure",
    "unreachable",
    "tls handshake",
)


@contextmanager
def engine() -> Iterator[Any]:
    """A client (`docker.APIClient`), closed at the end. Raises BackendUnavailable for all that Docker refuses."""
    import requests
    from docker.errors import APIError, DockerException

    host = _host()
    if not host.startswith(_LOCAL):
        raise BackendUnavailable(
            f'Docker is set to "{host}", another machine; a container there cannot be reached on 127.0.0.1',
            hint="unset DOCKER_HOST, or provision there and declare the server without `provision`",
        )
    try:
        client = _client(host)
    except (DockerException, OSError) as error:
        raise _no_engine(error, host) from error
    try:
        yield client.api
    except APIError as error:
        raise BackendUnavailable(
            f"Docker refuses: {explanation(error)}", hint="correct what it says, then: hybridrag apply"
        ) from error
    except requests.exceptions.RequestException as error:
        raise _no_engine(error, host) from error
    finally:
        client.close()


def _host() -> str:
    """Where Docker's own command would look: DOCKER_HOST, else the current context."""
    from docker.context import ContextAPI
    from docker.errors import DockerException

    if host := os.environ.get("DOCKER_HOST"):
        return host
    try:
        context = ContextAPI.get_context(os.environ.get("DOCKER_CONTEXT"))
    except (DockerException, OSError, ValueError):
        context = None
    return (context.Host if context is not None else None) or "unix:///var/run/docker.sock"


def _client(host: str) -> Any:
    import docker  # slow to import, and needed by few commands

    if not host.startswith("unix://"):
        return docker.from_env(timeout=_PATIENCE_S)
    # Asked first by ourselves: the SDK wraps the system's error three times and forgets to close its socket.
    with socket.socket(socket.AF_UNIX) as probe:
        probe.connect(host.removeprefix("unix://"))
    return docker.DockerClient(base_url=host, timeout=_PATIENCE_S)


def explanation(error: Any) -> str:
    """What the engine said of a refused request, in one line."""
    return " ".join(said(error.explanation or error).split())


def _no_engine(error: BaseException, host: str) -> BackendUnavailable:
    """Not installed, not running, not permitted, not answering: four things to do about it."""
    where = host.removeprefix("unix://")
    cause = _system_error(error)
    if isinstance(cause, PermissionError):
        return BackendUnavailable(
            f"this user may not use Docker: no permission on {where}",
            hint='sudo usermod -aG docker "$USER" and log in again (or run the command with sudo), then: hybridrag plan',
        )
    if isinstance(cause, (FileNotFoundError, ConnectionRefusedError)):
        if shutil.which("docker") is None and shutil.which("dockerd") is None:
            return BackendUnavailable(
                "Docker is not installed on this machine",
                hint=f"install it (Debian: apt-get install docker.io; others: https://docs.docker.com/get-docker), {_INSTEAD}",
            )
        return BackendUnavailable(
            f"Docker is installed, but its engine does not run (nothing answers at {where})",
            hint=f"start it (systemctl start docker; or Docker Desktop), then: hybridrag plan; {_INSTEAD}",
        )
    return BackendUnavailable(
        f"the Docker engine at {where} does not answer: {' '.join(str(cause or error).split())}",
        hint="docker info shows the same; when it works: hybridrag plan",
    )


def _system_error(error: BaseException) -> OSError | None:
    """The system's own error inside an HTTP client's."""
    pending: list[object] = [error]
    while pending:
        one = pending.pop()
        if isinstance(one, OSError) and one.errno and type(one).__module__ == "builtins":
            return one
        if isinstance(one, BaseException):
            pending += [*one.args, one.__cause__]
    return None


def pull(client: Any, image: str) -> None:
    """Gets an image that is not on this machine."""
    from docker.errors import APIError, NotFound
    from docker.utils import parse_repository_tag

    repository, tag = parse_repository_tag(image)
    try:
        said = [
            line.get("error")
            for line in client.pull(repository, tag=tag or "latest", stream=True, decode=True)
        ]
        why = next((text for text in said if text), None)
    except NotFound as error:
        why = explanation(error)
    except APIError as error:
        why = explanation(error)
    if why is None:
        return
    if any(words in why.lower() for words in _NO_NETWORK):
        raise BackendUnavailable(
            f'the image "{image}" is not on this machine, and its registry cannot be reached: {why}',
            hint=f"connect to the network, or bring it here (docker save … | docker load); then: hybridrag apply; {_INSTEAD}",
        )
    raise BackendUnavailable(
        f'the image "{image}" is not on this machine and cannot be pulled: {why}',
        hint="correct provision.image in the spec (or docker login to its registry), then: hybridrag apply",
    )


def read_file(client: Any, container: str, path: str) -> str | None:
    """A small file out of a container, running or not; None when there is none."""
    from docker.errors import APIError

    try:
        stream, _ = client.get_archive(container, path)
        packed = b"".join(stream)
    except APIError:
        return None
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        for member in archive:
            if (file := archive.extractfile(member)) is not None:
                return file.read().decode("utf-8", "replace")
    return None


def first_names(client: Any, container: str, path: str, most: int = 3) -> list[str]:
    """The first few names in a folder of a container, running or not; the rest is not read."""
    from docker.errors import APIError

    try:
        stream, _ = client.get_archive(container, path)
    except APIError:
        return []
    names: list[str] = []
    with tarfile.open(fileobj=_Chunks(stream), mode="r|") as archive:  # type: ignore[call-overload]
        for member in archive:
            _, _, name = member.name.rstrip("/").partition("/")
            names += [name] if name else []
            if len(names) == most:
                break
    stream.close()
    return names


class _Chunks:
    """What `tarfile` needs of a file, over the pieces that Docker sends."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def read(self, size: int) -> bytes:
        while len(self._rest) < size and (piece := next(self._pieces, b"")):
            self._rest += piece
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken


def put_private(client: Any, container: str, path: PurePosixPath, text: str) -> None:
    """A file that only root inside the container may read, in a folder that only root may enter.

    It goes into the container's own layer: there it lasts as long as the container, and is in nobody's
    environment, argument list or "inspect".
    """
    folder = tarfile.TarInfo(path.parent.name)
    folder.type, folder.mode = tarfile.DIRTYPE, 0o700
    file = tarfile.TarInfo(f"{path.parent.name}/{path.name}")
    file.mode = 0o400
    client.put_archive(container, str(path.parent.parent), _packed([(folder, b""), (file, text.encode())]))


def put_file(client: Any, container: str, path: PurePosixPath, text: str) -> None:
    """A file that everybody inside the container may read, in a folder that is there already and stays as it is."""
    file = tarfile.TarInfo(path.name)
    file.mode = 0o444
    client.put_archive(container, str(path.parent), _packed([(file, text.encode())]))


def _packed(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for member, data in members:
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def run_inside(client: Any, container: str, command: list[str]) -> tuple[int, str]:
    """(exit code, output) of a program run in a running container as root."""
    made = client.exec_create(container, command, user="0")
    output = client.exec_start(made["Id"])
    code = client.exec_inspect(made["Id"])["ExitCode"]
    return int(code), output.decode("utf-8", "replace")


def last_words(client: Any, container: str, lines: int = 8) -> str:
    """The end of a container's log, set off from our own words."""
    said = client.logs(container, tail=lines).decode("utf-8", "replace")
    return "\n".join(f"    {line}" for line in said.strip().splitlines())
