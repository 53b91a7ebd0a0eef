"""LightRAG's child processes without paying for its imports each time: a process that has them forks one for each task.

A launcher, which starts within milliseconds, stands where the child would: it hands its pipes, folder and environment to
that process, ends with the child's exit code, and the child ends with it. Commands with a real start (`CommandServer.serves`)
have real children, and so have the daemon and whatever is started as a script.
"""

from __future__ import annotations

import array
import asyncio
import atexit
import contextlib
import functools
import importlib
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NoReturn

from hybridrag.adapters import lightrag_process

CHILD = "hybridrag.adapters.lightrag_child"
PRELOADED = (
    CHILD,
    "lightrag",
    "lightrag.kg.json_doc_status_impl",
    "lightrag.kg.json_kv_impl",
    "lightrag.kg.nano_vector_db_impl",
    "lightrag.kg.networkx_impl",
    "lightrag.kg.postgres_impl",
)
MOST = 1 << 17
"""Bytes of a folder and an environment, in one message."""
LAUNCHER = """\
import _socket, os, sys
asked = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
asked.connect(sys.argv[1])
told = [os.fsencode(os.getcwd()), *(name + b"=" + value for name, value in os.environb.items())]
handed = b"".join(fd.to_bytes(4, sys.byteorder) for fd in (0, 1, 2))
asked.sendmsg([b"\\0".join(told)], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, handed)])
for fd in (0, 1, 2):
    os.close(fd)
os._exit(int(asked.recv(16) or b"1") & 255)
"""
_start = lightrag_process.start


class LightRagServer:
    """One for a test worker. `address` is where launchers ask."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="lightrag-")
        self.address = str(Path(self._folder.name) / "asked")
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
            listening.bind(self.address)
            listening.listen(64)
            self._alive, theirs = socket.socketpair()
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", __name__, str(listening.fileno()), str(theirs.fileno())],
                    cwd=Path(__file__).parents[2],
                    pass_fds=[listening.fileno(), theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )

    def close(self) -> None:
        self._alive.close()
        self._process.wait(10)
        self._folder.cleanup()


@functools.cache
def lightrag() -> LightRagServer:
    """This worker's; it ends with it."""
    server = LightRagServer()
    atexit.register(server.close)
    return server


def use(address: str | None = None) -> None:
    """Let this process's LightRAG children be forked: by the server at an address, or by one of its own when first asked."""

    async def start(
        module: str,
        folder: str,
        env: Mapping[str, str],
        *,
        inherit: Collection[int] = (),
        limit: int = 1 << 16,
    ) -> asyncio.subprocess.Process:
        if module != CHILD or inherit:
            return await _start(module, folder, env, inherit=inherit, limit=limit)
        pipe = asyncio.subprocess.PIPE
        at = address or lightrag().address
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-ISc", LAUNCHER, at),
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            cwd=folder,
            env=env,
            limit=limit,
        )

    lightrag_process.start = start


def _answer(asked: socket.socket) -> NoReturn:
    """In a process for one child: it does the work, and this one tells its exit code and ends it with its launcher."""
    told, ancillary, _, _ = asked.recvmsg(MOST, socket.CMSG_SPACE(3 * 4))
    handed = array.array("i", ancillary[0][2])
    child = os.fork()
    if child == 0:
        asked.close()
        os._exit(_child(told.split(b"\0"), handed))
    for descriptor in handed:
        os.close(descriptor)
    ended = os.pidfd_open(child)
    ready, _, _ = select.select([asked, ended], [], [])
    if ended not in ready:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    with contextlib.suppress(OSError):
        asked.send(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _child(told: list[bytes], handed: array.array[int]) -> int:
    folder, *variables = told
    for at, descriptor in enumerate(handed):
        os.dup2(descriptor, at)
    os.closerange(3, 256)
    os.chdir(folder)
    os.environ.clear()
    for variable in variables:
        name, _, value = variable.partition(b"=")
        os.environb[name] = value
    sys.argv = [CHILD, str(os.getppid())]
    sys.stdin = open(0, encoding="utf-8")  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, errors="backslashreplace")  # noqa: SIM115
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]
    main: Any = sys.modules[CHILD].main  # type: ignore[attr-defined]
    code = 1
    try:
        code = main()
    except BaseException:
        import traceback

        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    return code


def serve(listening: socket.socket, alive: socket.socket) -> None:
    before = dict(os.environ)
    for name in PRELOADED:
        importlib.import_module(name)
    os.environ.clear()
    os.environ.update(before)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    while True:
        ready, _, _ = select.select([listening, alive], [], [])
        if alive in ready:
            return
        asked, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            alive.close()
            _answer(asked)
        asked.close()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


if __name__ == "__main__":
    serve(*(socket.socket(fileno=int(number)) for number in sys.argv[1:3]))
