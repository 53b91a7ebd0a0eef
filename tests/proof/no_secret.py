"""Promise 8: no secret leaves the connection it is for, whatever goes wrong."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import yaml

from hybridrag.failpoints import VARIABLE, Point
from hybridrag.spec.env_text import quoted
from tests.conftest import DIM, EXAMPLE, Project, clean_environment
from tests.support.docker.engine import Engine
from tests.support.target import run_sql

from .canaries import BROKEN, FAULTS, Canaries, Watcher, rude_server
from .experiment import Experiment, Trial
from .lab import Lab

IMAGE = "pgvector/pgvector:pg16"
MEANT = ".env"
"""The user's own file: there, in the environment of what he starts, and in what `render --with-secrets` prints, secrets belong."""


def _declare(lab: Lab, project: Project, url: str, canaries: Canaries) -> Path:
    """A secret in every place that takes one, by env, file and command; the files lie outside of what is searched."""
    role = f"canary_{canaries.mark}"
    text = canaries.secret("password").replace("'", "''")
    database = (project.dsn or "").rpartition("/")[2]
    run_sql(lab.server.dsn("tester"), f"CREATE ROLE {role} SUPERUSER LOGIN PASSWORD '{text}'", "SELECT 1")
    secrets = lab.folder / f"secrets-{canaries.mark}"
    secrets.mkdir()
    wrong = f"postgresql://{role}:{quote(canaries.secret('string'), safe='')}@127.0.0.1:{lab.server.port}/{database}"
    (secrets / "dsn").write_text(wrong, "utf-8")
    for kind in ("password", "llm", "server"):
        (secrets / kind).write_text(canaries.secret(kind), "utf-8")
    (secrets / "server.env").write_text("WORKING_DIR=..\n", "utf-8")
    (secrets / "sitecustomize.py").write_text(BROKEN, "utf-8")
    with (project.folder / ".env").open("a", encoding="utf-8") as file:
        file.write(f"KANARI_KEY={quoted(canaries.secret('env'))}\n")
    spec = project.folder / "hybridrag.yaml"
    wanted = yaml.safe_load(spec.read_text("utf-8"))
    show = [sys.executable, "-c", "import pathlib, sys; print(pathlib.Path(sys.argv[1]).read_text())"]
    wanted["backends"]["pg"] |= {"user": role, "password": {"file": str(secrets / "password")}}
    wanted["backends"]["other"] = {"type": "postgres", "connection_string": {"file": str(secrets / "dsn")}}
    wanted["models"] = {
        "llm": {"binding": "openai", "model": "m", "base_url": f"{url}/v1", "api_key": {"command": [*show, str(secrets / "llm")]}},
        "embedding": {"binding": "openai", "base_url": f"{url}/v1", "api_key": {"env": "KANARI_KEY"}},
    }  # fmt: skip
    wanted["databases"]["notes"]["writer"] = {
        "kind": "lightrag-server", "url": url, "api_key": {"file": str(secrets / "server")},
        "env_file": str(secrets / "server.env"), "stop": ["true"], "start": ["true"], "timeout": 2,
    }  # fmt: skip
    spec.write_text(yaml.safe_dump(wanted, sort_keys=False), "utf-8")
    return secrets


def _edit(project: Project, old: str, new: str) -> None:
    spec = project.folder / "hybridrag.yaml"
    spec.write_text(spec.read_text("utf-8").replace(old, new), "utf-8")


class Searched:
    """A project whose commands' output is searched, command by command."""

    def __init__(self, trial: Trial, project: Project, canaries: Canaries) -> None:
        self._trial, self.project, self._canaries = trial, project, canaries
        for name in ("home", "tmp"):
            (project.folder / name).mkdir()
        self._places = {"HOME": str(project.folder / "home"), "TMPDIR": str(project.folder / "tmp")}

    def run(self, *argv: str, meant: tuple[str, ...] = (), **variables: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "hybridrag", *argv],
            cwd=self.project.folder,
            env=clean_environment(**self._places, **variables),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            start_new_session=True,  # a kill is one of its whole group
        )
        said = done.stdout + done.stderr
        shown = self._canaries.shown_in(said, but=meant)
        told = {name: value for name, value in variables.items() if name != "PYTHONPATH"}
        at = [line for line in said.splitlines() if self._canaries.mark in line and "Kanari" in line][:2]
        self._trial.check(not shown, f"hybridrag {' '.join(argv)} {told} shows {shown}: {at}")
        self._trial.count("commands")
        self._trial.count(f"exit {done.returncode}")
        for kind in meant:
            self._trial.check(
                kind in self._canaries.shown_in(said), f"hybridrag {' '.join(argv)} lacks its {kind}"
            )
        return said

    def files(self) -> None:
        """What was written: no secret in it, and the plan and the state for their user alone."""
        for path in self.project.folder.rglob("*"):
            name = str(path.relative_to(self.project.folder))
            if not path.is_file():
                continue
            shown = self._canaries.shown_in(path.read_bytes(), but=("env",) if name == MEANT else ())
            self._trial.check(not shown, f"{name} holds {shown}")
            self._trial.count("files searched")
            if name.startswith("state/") or name == "saved.plan":
                mode = path.stat().st_mode & 0o777
                # The registry names places only, and is there to be read by whatever uses the databases.
                allowed = 0o644 if path.name == "registry.yaml" else 0o600
                self._trial.check(mode | allowed == allowed, f"{name} has mode {mode:o}")


def _run(lab: Lab, trial: Trial) -> None:
    while trial.done < trial.runs:
        canaries = Canaries()
        with rude_server() as url, lab.project(EXAMPLE / "archive", dim=DIM) as project:
            secrets = _declare(lab, project, url, canaries)
            searched = Searched(trial, project, canaries)
            with Watcher(trial, canaries):
                _until_it_serves(trial, searched, secrets)
                _looks(searched)
                _wrong_secrets(searched, secrets, canaries)
                searched.files()
                _in_the_spec(searched, canaries)
                if trial.done % 2 == 1:  # tests/integration/test_docker does it in CI
                    _in_a_container(trial, searched, canaries)
            searched.files()
            shutil.rmtree(secrets)
        trial.done += 1


def _until_it_serves(trial: Trial, searched: Searched, secrets: Path) -> None:
    """Killed, with failing disks, failing libraries and a server that refuses, until at last it succeeds."""
    run, project = searched.run, searched.project
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
    for fault in trial.rng.sample(FAULTS, 2):
        broken = {"BROKEN": fault, "PYTHONPATH": f"{secrets}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
        said = run(*apply, **broken)
        trial.check("error:" in said, f"nothing broke by {fault}: {said[-300:]}")
        run(trial.rng.choice(["status", "plan", "health"]), "--json", **broken)
    run(*apply, "--json", **{VARIABLE: "switch.marked=error"})
    run(*apply)


def _looks(searched: Searched) -> None:
    run = searched.run
    for look in (
        "status",
        "verify notes",
        "backend status notes --json",
        "render notes",
        "render notes --as compose",
    ):
        run(*look.split(), "--debug")
    run("render", "notes", "--with-secrets", meant=("password", "llm", "env"))
    run("query", "notes", "lighthouse", "--debug")
    run("history", "--debug")
    newest = run("history", "--json", "--debug")
    for each in [entry["run"] for entry in yaml.safe_load(newest)]:
        run("show", each, "--debug")
        run("show", each, "--json")


def _wrong_secrets(searched: Searched, secrets: Path, canaries: Canaries) -> None:
    """Refused by the server, and of a form that cannot be read; by password and by connection string."""
    run, project = searched.run, searched.project
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
        f"host=x password='{canaries.secret('string')}",
        dsn.replace("@127", "@@[127"),
    ):
        (secrets / "dsn").write_text(wrong, "utf-8")
        run("plan", "--debug")
    run("health", "--debug")
    _edit(project, "connection_string:", "conection_string:")
    run("plan", "--debug")


def _in_the_spec(searched: Searched, canaries: Canaries) -> None:
    """Somebody writes the secret itself where a reference belongs."""
    spec = searched.project.folder / "hybridrag.yaml"
    text = spec.read_text("utf-8")
    spec.write_text(text.replace("password:", f"password: {canaries.core('password')}\n    was:"), "utf-8")
    searched.run("status", "--json", "--debug")
    spec.write_text(text, "utf-8")


def _in_a_container(trial: Trial, searched: Searched, canaries: Canaries) -> None:
    """A server that is made here, where there is an engine: what the engine tells about it holds no password."""
    engine = Engine(os.environ.get("DOCKER_HOST"), own=False)
    trial.count("containers", 0)
    if (
        shutil.which("docker") is None
        or not engine.answers()
        or not engine.docker("image", "ls", "-q", IMAGE)
    ):
        return
    name = f"hybridrag-proof-{canaries.mark}"
    secret = searched.project.folder.parent / f"secrets-{canaries.mark}" / "container"
    secret.write_text(canaries.of_container(), "utf-8")
    spec = searched.project.folder / "hybridrag.yaml"
    wanted = {
        "version": 1, "environment": "boxed",
        "backends": {
            "files": {"type": "json"},
            "boxed": {
                "type": "postgres", "password": {"file": str(secret)},
                "provision": {"driver": "docker", "image": IMAGE, "container": name, "volume": f"{name}-data"},
            },
        },
        "databases": {"notes": {"path": "./notes", "backend": "boxed", "embedding": {"model": "hash-emb", "dim": DIM, "function": "embedding.py:embed"}}},
    }  # fmt: skip
    spec.write_text(yaml.safe_dump(wanted, sort_keys=False), "utf-8")
    try:
        said = searched.run("apply", "--auto-approve", "--debug")
        searched.run("status", "--debug")
        searched.run("backend", "status", "--json", "--verbose")
        if trial.check(engine.docker("ps", "-q", "--filter", f"name={name}"), f"no container: {said[-500:]}"):
            for look in (("inspect", name, f"{name}-data"), ("logs", name), ("top", name)):
                shown = canaries.shown_in(engine.docker(*look))
                trial.check(not shown, f"docker {look[0]} shows {shown}")
            trial.count("containers")
    finally:
        engine.docker("rm", "-fv", name, check=False)
        engine.docker("volume", "rm", f"{name}-data", check=False)


EXPERIMENTS = (
    Experiment(
        number=8,
        name="no-secret",
        promise="no secret is shown, whatever goes wrong",
        tried="passwords with every special character as password, connection string, keys of models and of a lightrag-server (by file, "
        "command and variable); everything is run with --debug: successes, kills, failing disks, libraries that fail and tell their "
        "arguments, wrong and malformed secrets, a server that tells the key back; output, `history` and `show`, plan, state, events and "
        "temporary files are searched, argument lists and environments of all processes, every second time `docker inspect`, `logs` and `top` of a server made in a container; the "
        "plan and all of the state but the registry of places are for their user alone (0600). A variable of the user's stays in his `.env` and in the environment of what he starts, and "
        "`render --with-secrets` prints what it is asked for",
        baseline="Terraform's plan file: password in clear, mode 0644",
        runs=30,
        short=1,
        run=_run,
    ),
)
