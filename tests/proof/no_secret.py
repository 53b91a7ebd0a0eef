"""Promise 8: no secret leaves the connection it is for, whatever goes wrong."""

from __future__ import annotations

import contextlib
import shutil
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from hybridrag.failpoints import VARIABLE, Point
from tests.conftest import DIM, EXAMPLE, Project
from tests.support.target import run_sql

from .experiment import Experiment, Trial
from .lab import Lab

CORES = ("Kanari1Pw", "Kanari2Cs", "Kanari3Lm", "Kanari4Em", "Kanari5Sv")
"""Password, connection string, keys of both models and of a lightrag-server: whatever the quoting, these letters stay."""


def _secret(core: str) -> str:
    return f"""p@s/:é %41'"$x{{y}}{core}#\\&?"""


class Echo(BaseHTTPRequestHandler):
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
def _rude() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class Watcher:
    """Looks at the argument lists and environments of all processes that a command starts, while it runs."""

    def __init__(self, trial: Trial, cwd: Path) -> None:
        self._trial, self._cwd, self._end = trial, str(cwd), threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._end.wait(0.02):
            for place in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    if not str((place / "cwd").readlink()).startswith(self._cwd):
                        continue
                    for name in ("cmdline", "environ"):
                        held = (place / name).read_bytes()
                        shown = [core for core in CORES if core.encode() in held]
                        argv = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:200]
                        self._trial.check(not shown, f"{name} of {argv} shows {shown}")
            self._trial.count("looks at processes")


def _declare(lab: Lab, project: Project, url: str) -> Path:
    """A secret in every place that takes one, by env, file and command; they lie outside of what is searched."""
    role = f"canary_{project.folder.name.replace('-', '_')}"
    text = _secret(CORES[0]).replace("'", "''")
    database = (project.dsn or "").rpartition("/")[2]
    run_sql(
        lab.server.dsn("tester"),
        f"CREATE ROLE {role} SUPERUSER LOGIN PASSWORD '{text}'",
        "SELECT 1",
    )
    secrets = lab.folder / f"secrets-{project.folder.name}"
    secrets.mkdir()
    wrong = f"postgresql://{role}:{quote(_secret(CORES[1]), safe='')}@127.0.0.1:{lab.server.port}/{database}"
    (secrets / "dsn").write_text(wrong, "utf-8")
    (secrets / "llm").write_text(_secret(CORES[2]), "utf-8")
    spec = project.folder / "hybridrag.yaml"
    wanted = yaml.safe_load(spec.read_text("utf-8"))
    show = [sys.executable, "-c", "import pathlib, sys; print(pathlib.Path(sys.argv[1]).read_text())"]
    wanted["backends"]["pg"] |= {"user": role, "password": {"file": str(secrets / "password")}}
    (secrets / "password").write_text(_secret(CORES[0]), "utf-8")
    wanted["backends"]["other"] = {"type": "postgres", "connection_string": {"file": str(secrets / "dsn")}}
    wanted["models"] = {
        "llm": {"binding": "openai", "model": "m", "base_url": f"{url}/v1", "api_key": {"command": [*show, str(secrets / "llm")]}},
        "embedding": {"binding": "openai", "base_url": f"{url}/v1", "api_key": {"file": str(secrets / "embed")}},
    }  # fmt: skip
    (secrets / "embed").write_text(_secret(CORES[3]), "utf-8")
    (secrets / "server").write_text(_secret(CORES[4]), "utf-8")
    (secrets / "server.env").write_text("WORKING_DIR=..\n", "utf-8")
    wanted["databases"]["notes"]["writer"] = {
        "kind": "lightrag-server", "url": url, "api_key": {"file": str(secrets / "server")},
        "env_file": str(secrets / "server.env"), "stop": ["true"], "start": ["true"], "timeout": 2,
    }  # fmt: skip
    spec.write_text(yaml.safe_dump(wanted, sort_keys=False), "utf-8")
    return secrets


def _edit(project: Project, old: str, new: str) -> None:
    spec = project.folder / "hybridrag.yaml"
    spec.write_text(spec.read_text("utf-8").replace(old, new), "utf-8")


def _run(lab: Lab, trial: Trial) -> None:
    while trial.done < trial.runs:
        with _rude() as url, lab.project(EXAMPLE / "archive", dim=DIM) as project:
            secrets = _declare(lab, project, url)
            with Watcher(trial, project.folder):
                _everything(trial, project, secrets)
            for path in project.folder.rglob("*"):
                if path.is_file():
                    shown = [core for core in CORES if core.encode() in path.read_bytes()]
                    trial.check(not shown, f"{path.relative_to(project.folder)} holds {shown}")
                    trial.count("files searched")
            shutil.rmtree(secrets)
        trial.done += 1


def _everything(trial: Trial, project: Project, secrets: Path) -> None:
    """What works, what is killed, and what fails in every way that a secret is near to."""
    number = 0

    def run(*argv: str, **variables: str) -> None:
        nonlocal number
        number += 1
        done = project.run(*argv, **variables)
        said = done.stdout + done.stderr
        shown = [core for core in CORES if core in said]
        at = [line for line in said.splitlines() if any(core in line for core in CORES)][:2]
        trial.check(not shown, f"hybridrag {' '.join(argv)} {variables} shows {shown}: {at}")
        trial.count("commands")
        trial.count(f"exit {done.returncode}")

    apply = ("apply", "--auto-approve", "--debug", "--events", "events.jsonl")
    run("validate", "--debug")
    run("plan", "--json", "--debug")
    run("plan", "--out", "saved.plan")
    run("health", "--json", "--debug")
    point = trial.rng.choice(list(Point)).value
    run(*apply, **{VARIABLE: f"{point}={trial.rng.choice(['kill', 'error'])}"})
    run(*apply)  # the server's key is refused, and told back to us
    spec = yaml.safe_load((project.folder / "hybridrag.yaml").read_text("utf-8"))
    spec["databases"]["notes"]["writer"] = {"kind": "none"}
    (project.folder / "hybridrag.yaml").write_text(yaml.safe_dump(spec, sort_keys=False), "utf-8")
    run("apply", "saved.plan", "--debug")
    run(*apply, "--json", **{VARIABLE: "switch.marked=error"})
    run(*apply)
    for look in (
        "status",
        "verify notes",
        "backend status notes --json",
        "render notes",
        "render notes --as compose",
    ):
        run(*look.split(), "--debug")
    run("query", "notes", "lighthouse", "--debug")
    right = (secrets / "password").read_text("utf-8")
    for wrong in (right + "x", f"\n{right}", right.replace("é", "\0")):
        (secrets / "password").write_text(wrong, "utf-8")
        run("plan", "--debug")
    (secrets / "password").write_text(right, "utf-8")
    dsn = (secrets / "dsn").read_text("utf-8")
    _edit(project, "backend: pg", "backend: other")
    for wrong in (
        dsn,
        dsn.replace("://", ":/"),
        dsn.replace("%", "%%"),
        dsn + "?sslmode=nope",
        f"host=x password='{_secret(CORES[1])}",
        dsn.replace("@127", "@@[127"),
    ):
        (secrets / "dsn").write_text(wrong, "utf-8")
        run("plan", "--debug")
    run("health", "--debug")
    _edit(project, "connection_string:", "conection_string:")
    run("plan", "--debug")
    # Somebody writes the secret itself where a reference belongs.
    _edit(project, "password:", f"password: {CORES[0]}\n    was:")
    run("status", "--json", "--debug")
    text = (project.folder / "hybridrag.yaml").read_text("utf-8")
    (project.folder / "hybridrag.yaml").write_text(text.replace(CORES[0], "x"), "utf-8")


EXPERIMENTS = (
    Experiment(
        number=8,
        name="no-secret",
        promise="no secret is shown, whatever goes wrong",
        tried="passwords with every special character as password, connection string, keys of models and of a lightrag-server (by file and "
        "command); everything is run with --debug: successes, kills, failing disks, wrong and malformed secrets, a server that tells "
        "the key back; output, plan, state, events and files are searched, and argument lists and environments of every process",
        baseline="Terraform's plan file: password in clear, mode 0644",
        runs=30,
        short=1,
        run=_run,
    ),
)
