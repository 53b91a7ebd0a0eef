"""Promise 9: a network that cuts, stalls and truncates costs time, never a record."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time

from tests.support.target import content, run_sql

from .experiment import Experiment, Trial
from .lab import Lab, Torment

APPLY = ("apply", "--auto-approve")


class BadNetwork:
    """A TCP relay that ends, stalls or truncates each connection after a random number of bytes, while `bad` is set."""

    def __init__(self, port: int, rng: random.Random) -> None:
        self._to = ("127.0.0.1", port)
        self._rng = rng
        self.bad = True
        self.faults = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._to)
                after = int(self._rng.paretovariate(0.35) * 20_000) if self.bad else None
                kind = self._rng.choice(["cut", "reset", "stall", "truncate"])
                state = {"left": after}
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._relay, args=(one, other, state, kind), daemon=True).start()

    def _relay(
        self, one: socket.socket, other: socket.socket, state: dict[str, int | None], kind: str
    ) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                left = state["left"]
                if left is not None and left < len(data):
                    self.faults += 1
                    state["left"] = 0
                    if kind == "stall":
                        time.sleep(2)
                    elif kind == "truncate":
                        other.sendall(data[:left])
                    if kind == "reset":
                        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    break
                if left is not None:
                    state["left"] = left - len(data)
                other.sendall(data)
        for each in (one, other):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def _run(lab: Lab, trial: Trial) -> None:
    data = lab.database_of(1)
    with lab.project(data) as project:
        project.ok(*APPLY)
        expected = content(project.dsn or "", "notes")
    while trial.done < trial.runs:
        with lab.project(data) as project:
            network = BadNetwork(lab.server.port, random.Random(trial.rng.random()))
            spec = project.folder / "hybridrag.yaml"
            spec.write_text(spec.read_text().replace(f"port: {lab.server.port}", f"port: {network.port}"))
            codes: list[int | None] = []
            while 0 not in codes and len(codes) < 12:
                if len(codes) == 10:
                    network.bad = False
                run = Torment(project, *APPLY)
                codes.append(code := run.wait(150))
                run.kill()
                trial.check(code is not None, "it hung for 150 s")
                trial.check(
                    "Traceback" not in run.said() and "unexpected error" not in run.said(), run.said()
                )
                trial.check(code in (None, 0, 4, 5, 7), f"ended with {code}: {run.said()}")
            trial.check(codes[-1] == 0, f"it never came to an end: {codes}: {run.said()}")
            trial.check(content(project.dsn or "", "notes") == expected, f"another target after {codes}")
            held = run_sql(project.dsn or "", "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
            trial.count("advisory locks left", held[0][0])
            trial.count("faults of the network", network.faults)
            trial.count("applies", len(codes))
            network.close()
        trial.done += 1


def _restarts(lab: Lab, trial: Trial) -> None:
    data = lab.database_of(3)
    more = "migration: {batch: 25}"
    with lab.project(data, more=more) as project:
        project.ok(*APPLY)
        expected = content(project.dsn or "", "notes")
    while trial.done < trial.runs:
        kill = trial.done % 2 == 0
        with lab.project(data, more=more) as project:
            run = Torment(project, *APPLY)
            run.until('"step": "migrate.notes"')
            time.sleep(trial.rng.random() ** 2 * 1.5)
            lab.restart(kill=kill)
            code = run.wait(150)
            run.kill()
            trial.check(code in (0, 4), f"ended with {code} (None: it hung): {run.said()}")
            trial.count("had to be started again", code == 4)
            trial.check(code == 0 or "→ " in run.said(), f"no next command: {run.said()}")
            trial.ended(project.run(*APPLY), {0}, "the next apply")
            trial.ended(project.run("plan", "--detailed-exitcode"), {0}, "the plan after it")
            trial.check(content(project.dsn or "", "notes") == expected, f"another target after {code}")
            trial.count("SIGKILL" if kill else "restarts in order")
        trial.done += 1


EXPERIMENTS = (
    Experiment(
        number=9,
        name="network",
        promise="a bad network costs time, never a record",
        tried="a relay between us and the server cuts, resets, stalls or truncates every connection after a random number of bytes; "
        "`apply` is repeated until it ends; no hang, no traceback, and the target equals an undisturbed one",
        baseline="—",
        runs=60,
        short=0,
        run=_run,
        not_in_ci="its time-outs take a minute; tests/integration/test_outcome_unknown cuts connections",
    ),
    Experiment(
        number=9,
        name="restarts-in-copy",
        promise="a server that restarts in the middle of a copy costs time, never a record",
        tried="Postgres is restarted in order or by SIGKILL at a random moment of the copy: `apply` goes on, or ends with 4 and the next "
        "command, which ends with the target of an undisturbed run and leaves nothing to do",
        baseline="—",
        runs=60,
        short=1,
        run=_restarts,
    ),
)
