"""The unit that `render --as systemd` prints."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hybridrag.render.systemd import systemd_unit, unit_name


def made(folder: str, *words: str) -> str:
    argv = [sys.executable, "-m", "hybridrag", "watch", "run", "notes", *words]
    return systemd_unit("notes", environment="dev", argv=argv, folder=folder, drain_s=600)


def test_paths_with_meaning_to_systemd_are_escaped() -> None:
    """Spaces, quotes, dollars and per cent signs are taken as they are."""
    text = made("/srv/a b", "--file", '/srv/a b/50%/$x"y.yaml')
    assert "ExecStart=" in text
    assert '"/srv/a b/50%%/$$x\\"y.yaml"' in text
    assert "WorkingDirectory=/srv/a b" in text
    assert "Restart=on-failure" in text
    assert "TimeoutStopSec=630" in text


def test_systemd_accepts_it(tmp_path: Path) -> None:
    """As systemd itself judges."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    path = tmp_path / f"{unit_name('dev', 'notes')}.service"
    path.write_text(made(str(tmp_path), "--file", f"{tmp_path}/hybridrag.yaml"), encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(path)], capture_output=True, text=True, check=False
    )
    if "Failed to" in done.stderr and path.name not in done.stderr:
        pytest.skip(f"systemd-analyze cannot work here: {done.stderr.strip()[:200]}")
    assert path.name not in done.stderr, done.stderr
