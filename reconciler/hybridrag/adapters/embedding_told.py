"""What settings files near a database say of its embedding: `.env` and `config.ini` beside it, the `.env` of its writer.

Reads regular files of at most a megabyte and takes two values out of each; whatever cannot be read says nothing. A file that
belongs to another database is passed over.
"""

from __future__ import annotations

import configparser
import contextlib
import io
import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hybridrag.model.selection import Embedding, Told, plain_model
from hybridrag.spec.env_text import values_of

MOST_BYTES = 1 << 20
_FILES = ("JsonKVStorage", "NanoVectorDBStorage", "FaissVectorDBStorage", "")
_NONE = ("", "none")
"""What LightRAG takes for no value (`get_env_value`, special_none)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Near:
    """A database and where its settings may stand: in its folder `path`, beside it, beside the spec (`base_dir`).

    `env_file` is what the spec declares for its writer, with the key that declares it. `others` are the embeddings of the
    spec's other databases: a file that fits each of them belongs to the one whose model it names.
    """

    path: Path
    workspace: str
    base_dir: Path
    embedding: Embedding
    env_file: tuple[Path, str] | None = None
    others: Collection[Embedding] = ()

    def told(self) -> list[Told]:
        """One entry for each file that says something; read-only."""
        found: list[Told] = []
        seen: set[str] = set()
        if self.env_file is not None:
            file, key = self.env_file
            seen.add(os.path.realpath(file))
            values = _env(file)
            found += _told(f"{file} ({key})", values) if values else []
        for folder in dict.fromkeys((self.path, self.path.parent, self.base_dir)):
            for name, read in ((".env", _env), ("config.ini", _ini)):
                file = folder / name
                if (real := os.path.realpath(file)) in seen:
                    continue
                seen.add(real)
                if values := read(file):
                    found += [each for each in _told(str(file), values) if self._mine(values, folder, each)]
        return found

    def _mine(self, values: Mapping[str, str], folder: Path, told: Told) -> bool:
        fits = self._fits(values, folder)
        if fits is not None:
            return fits
        model = plain_model(told.model)
        return model == plain_model(self.embedding.model) or model not in {
            plain_model(other.model) for other in self.others
        }

    def _fits(self, values: Mapping[str, str], folder: Path) -> bool | None:
        """Whether the settings are this database's; None where they do not tell whose they are."""
        space = re.sub(r"[^a-zA-Z0-9_]", "_", values.get("WORKSPACE", ""))
        spaces = {value for name, value in values.items() if name.endswith("_WORKSPACE")} | {space}
        if values.get("LIGHTRAG_VECTOR_STORAGE", "") not in _FILES and any(spaces):
            return self.workspace in spaces
        mine = os.path.realpath(self.path)
        if working := values.get("WORKING_DIR"):
            at = os.path.realpath(folder / working)
            return mine == os.path.realpath(f"{at}/{space}") or (mine == at and space == self.workspace)
        if space:
            return space in (self.workspace, self.path.name)
        usual = folder / "rag_storage"
        if usual.is_dir():
            return mine == os.path.realpath(usual)
        return None


def _told(where: str, values: Mapping[str, str]) -> Iterator[Told]:
    model, dim = values.get("EMBEDDING_MODEL"), values.get("EMBEDDING_DIM", "")
    number = int(dim) if re.fullmatch(r"\s*[0-9]{1,6}\s*", dim) else None
    if model is not None:
        model = "" if model.strip().lower() in _NONE else model.strip()
    if model is not None or number:
        yield Told(where=where, model=model, dim=number or None)


def _env(path: Path) -> dict[str, str]:
    from dotenv.parser import parse_stream

    text = _text(path)
    # As LightRAG's own reader does, a line that is not understood is passed over; but nothing is logged.
    kept = [each.original.string for each in parse_stream(io.StringIO(text)) if not each.error]
    return values_of("".join(kept))


def _ini(path: Path) -> dict[str, str]:
    """The same values from LightRAG's second settings file; a workspace stands in the section of its engine."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    with contextlib.suppress(configparser.Error):
        parser.read_string(_text(path))
    found: dict[str, str] = {}
    for section in parser.sections():
        for option, value in parser.items(section):
            name = option.upper()
            if name == "WORKSPACE":
                found.setdefault("LIGHTRAG_VECTOR_STORAGE", section)
                found[f"{section.upper()}_WORKSPACE"] = value
            elif name in ("EMBEDDING_MODEL", "EMBEDDING_DIM", "WORKING_DIR"):
                found[name] = value
    return found


def _text(path: Path) -> str:
    """ "" for anything but a readable regular file of a sensible size; a pipe is not waited for."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    raw = b""
    try:
        found = os.fstat(descriptor)
        if stat.S_ISREG(found.st_mode) and found.st_size <= MOST_BYTES:
            raw = os.read(descriptor, MOST_BYTES)
    except OSError:
        return ""
    finally:
        os.close(descriptor)
    return raw.decode("utf-8-sig", "replace")
