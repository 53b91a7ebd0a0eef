"""Secrets that can be recognised wherever they turn up, and those who look for them."""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from .experiment import Trial

KINDS = ("password", "string", "llm", "server", "env")
"""Password and connection string by file, a model's key by command, a server's by file, another model's by a variable."""


@dataclass(frozen=True, slots=True)
class Canaries:
    """One run's own secrets: another run on this machine has others. Whatever the quoting, the core's letters stay."""

    mark: str = field(default_factory=lambda: secrets.token_hex(4))

    def core(self, kind: str) -> str:
        return f"Kanari{KINDS.index(kind)}x{self.mark}"

    def secret(self, kind: str) -> str:
        return f"""p@s/:é %41'"$x{{y}}{self.core(kind)}#\\&?"""

    def of_container(self) -> str:
        """An image's first start takes a password through a file of lines."""
        return f"""p@s/:# %41'$x{self.core("password")}"""

    def shown_in(self, held: str | bytes, *, but: tuple[str, ...] = ()) -> list[str]:
        """The kinds whose secret is in there, less those that may be."""
        held = held.encode("utf-8", "replace") if isinstance(held, str) else held
        return [kind for kind in KINDS if kind not in but and self.core(kind).encode() in held]


class _Echo(BaseHTTPRequestHandler):
    """A model and a lightrag-server that refuse, and rudely tell which key they were given."""

    def _answer(self) -> None:
        body = f'{{"error": {{"message": "no: {dict(self.headers)!r}"}}}}'.encode()
        self.send_response(401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = _answer

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@contextlib.contextmanager
def rude_server() -> Iterator[str]:
    """The address of one who tells every key back."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class Watcher:
    """Looks at the argument list of every process of this machine and at its environment, while open.

    A variable that the user set is in the environment of what he starts. Inside of a container only argument lists count:
    the image's own start hands the password, which it reads from a private file, on to its children as a variable.
    """

    def __init__(self, trial: Trial, canaries: Canaries) -> None:
        self._trial, self._canaries, self._end = trial, canaries, threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._seen: set[str] = set()

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        looked_at: set[tuple[str, bytes]] = set()
        while not self._end.wait(0.03):
            for place in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    argv = (place / "cmdline").read_bytes()
                    if (place.name, argv) in looked_at:
                        continue
                    looked_at.add((place.name, argv))
                    self._note("argument list", argv, argv, ())
                    if (place / "ns" / "pid").readlink() == Path("/proc/self/ns/pid").readlink():
                        self._note("environment", (place / "environ").read_bytes(), argv, ("env",))
            self._trial.count("looks at all processes")

    def _note(self, what: str, held: bytes, argv: bytes, but: tuple[str, ...]) -> None:
        if shown := self._canaries.shown_in(held, but=but):
            words = f"{what} of {argv.replace(bytes(1), b' ').decode(errors='replace')[:200]} shows {shown}"
            if words not in self._seen:
                self._seen.add(words)
                self._trial.check(False, words)


BROKEN = '''\
"""Imported by every Python process that finds it: libraries that fail, and tell all they know while they do."""

import os

if wanted := os.environ.get("BROKEN"):
    import asyncpg

    kind = {"unexpected": RuntimeError, "network": ConnectionError, "server": asyncpg.PostgresError}[wanted.split("-")[0]]

    async def connect(*args, **named):
        raise kind(f"connect{args}{named} password={named.get('password')}")

    def late(method):
        calls = []

        async def passed(self, *args, **named):
            calls.append(0)
            if len(calls) < 5:
                return await method(self, *args, **named)
            raise kind(f"{self._params} {self._params.password!r} {self._params.password}")

        return passed

    if wanted.endswith("-late"):
        for name in ("fetch", "fetchrow", "fetchval", "execute", "copy_to_table"):
            setattr(asyncpg.Connection, name, late(getattr(asyncpg.Connection, name)))
    else:
        asyncpg.connect = asyncpg.create_pool = connect
'''
FAULTS = tuple(f"{kind}{when}" for kind in ("unexpected", "network", "server") for when in ("", "-late"))
"""How the broken library fails: an error that nobody foresaw, a network's, a server's; at once, or in the middle."""
