"""Runs `hybridrag …` without paying for its imports each time: a process that has them forks one child per command.

Each command is a process and a session of its own as ever, with its own environment, folder, pipes and exit code. What
Python and libraries read while they start (`PYTHON…`, `LC_…`) needs a real start: `serves` says so.
"""

from __future__ import annotations

import array
import contextlib
import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from tests.support.lightrag_children import lightrag, use

READ_AT_START = ("PYTHON", "LC_", "LANG", "OPENBLAS", "OMP_", "MALLOC_")
IN_PROCESSES_OF_THEIR_OWN = ("_child", "lightrag_instance", "lightrag_models", "__main__")
"""Modules that import LightRAG; a command must not have it."""


class CommandServer:
    """One for a test worker; use `run` like `subprocess.run`."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket = ours
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(theirs.fileno()), lightrag().address],
            cwd=Path(__file__).parents[2],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )
        theirs.close()

    def close(self) -> None:
        self._socket.close()
        self._process.wait(10)

    @staticmethod
    def serves(variables: Mapping[str, str]) -> bool:
        """Whether a command with these variables is the same without a start of its own."""
        return not any(name.startswith(READ_AT_START) for name in variables)

    def run(
        self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Raises TimeoutExpired, with the command's whole session killed."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            self._socket.settimeout(60)
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with ours, theirs:
                handed = array.array("i", [theirs.fileno(), out.fileno(), err.fileno()])
                ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, handed)]
                self._socket.sendmsg([b"!"], ancillary)
                theirs.close()
                asked = json.dumps({"argv": list(argv), "cwd": str(cwd), "env": dict(env)}).encode()
                with ours.dup() as told:
                    told.sendall(len(asked).to_bytes(8, "big"))
                    for start in range(0, len(asked), 1 << 16):
                        told.sendall(asked[start : start + (1 << 16)])
                ours.settimeout(timeout)
                pid = int(ours.recv(64))
                try:
                    code = int(ours.recv(64))
                except TimeoutError:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(pid, signal.SIGKILL)
                    raise subprocess.TimeoutExpired(list(argv), timeout) from None
            said = [file.seek(0) or file.read().decode("utf-8", "replace") for file in (out, err)]
        return subprocess.CompletedProcess(list(argv), code, *said)


def _answer(told: socket.socket, out: int, err: int) -> NoReturn:
    """In a process for one command: its child does the work, and this one tells pid and exit code."""
    size = int.from_bytes(told.recv(8), "big")
    text = b""
    while len(text) < size:
        text += told.recv(1 << 16)
    asked = json.loads(text)
    child = os.fork()
    if child == 0:
        told.close()
        os._exit(_command(asked, out, err))
    told.send(str(child).encode())
    with contextlib.suppress(OSError):
        told.send(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())
    os._exit(0)


def _command(asked: dict[str, object], out: int, err: int) -> int:
    import atexit

    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    for at, source in enumerate((nothing, out, err)):
        os.dup2(source, at)
    os.closerange(3, 256)
    argv, cwd, env = asked["argv"], asked["cwd"], asked["env"]
    assert isinstance(argv, list)
    assert isinstance(env, dict)
    os.chdir(str(cwd))
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["hybridrag", *argv]
    sys.path[0] = str(cwd)
    sys.stdin = open(0, encoding="utf-8")  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, errors="backslashreplace")  # noqa: SIM115
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]
    from hybridrag import failpoints
    from hybridrag.cli import main

    if failpoints.VARIABLE in env:
        failpoints._armed = None  # as if read while it started
    code: object = 0
    try:
        main(prog_name="hybridrag")
    except SystemExit as end:
        code = end.code
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    return code if isinstance(code, int) else int(code is not None)


def serve(at: int, lightrag_at: str) -> None:
    import hybridrag

    use(lightrag_at)
    for module in pkgutil.walk_packages(hybridrag.__path__, "hybridrag."):
        if not module.name.endswith(IN_PROCESSES_OF_THEIR_OWN):
            with contextlib.suppress(ImportError):  # what an optional package would bring
                importlib.import_module(module.name)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with socket.socket(fileno=at) as asked:
        while True:
            data, ancillary, _, _ = asked.recvmsg(1, socket.CMSG_SPACE(3 * 4))
            if not data:
                return
            told, out, err = array.array("i", ancillary[0][2])
            if os.fork() == 0:
                asked.close()
                _answer(socket.socket(fileno=told), out, err)
            for descriptor in (told, out, err):
                os.close(descriptor)
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2])
