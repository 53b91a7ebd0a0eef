"""A systemd unit of the user's own manager for a watching daemon. Pure text; nothing is asked or written."""

from __future__ import annotations

from collections.abc import Sequence

_UNIT = """\
# Written by hybridrag render {database} --as systemd. To install it:
#   hybridrag render {database} --as systemd > ~/.config/systemd/user/{name}.service
#   systemctl --user daemon-reload && systemctl --user enable --now {name}.service
# Secrets are not in here: hybridrag reads the .env beside the spec itself, anew when it changes.
[Unit]
Description=hybridrag watches {described} ({environment})
StartLimitIntervalSec=0

[Service]
Type=simple
WorkingDirectory={folder}
ExecStart={argv}
Restart=on-failure
RestartSec=10
# The spec cannot be used, it is not found, or another daemon watches already: starting again would not help.
RestartPreventExitStatus=3 6 9
KillMode=mixed
TimeoutStopSec={stop_s}

[Install]
WantedBy=default.target
"""


def unit_name(environment: str, database: str) -> str:
    return f"hybridrag-{environment}-{database}"


def systemd_unit(database: str, *, environment: str, argv: Sequence[str], folder: str, drain_s: int) -> str:
    """The unit's text. `argv` and `folder` are absolute; `drain_s`: how long the document in hand may take."""
    return _UNIT.format(
        database=database,
        name=unit_name(environment, database),
        described=_escaped(database),
        environment=_escaped(environment),
        folder=_escaped(folder),
        argv=" ".join(_quoted(word) for word in argv),
        stop_s=drain_s + 30,
    )


def _escaped(text: str) -> str:
    """Without meaning to systemd: % begins one of its specifiers."""
    return text.replace("%", "%%")


def _quoted(word: str) -> str:
    """One argument of ExecStart: in quotes, and no variable in it."""
    inner = _escaped(word).replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return inner if word and all(char.isalnum() or char in "/._-=:,+@" for char in word) else f'"{inner}"'
