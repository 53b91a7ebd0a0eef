"""A connection string, URI or keyword form, as libpq reads it (through psycopg, which carries libpq).

No error made here holds any part of the string, except the name of a parameter where that cannot be a piece of a
password.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hybridrag.errors import SpecInvalid
from hybridrag.model.secret import Secret

from .spec import RESERVED_SETTINGS, SETTING_NAME, TlsMode

DEFAULT_PORT = 5432
FORMS = "postgresql://user:password@host:5432/database, with % and : / ? # @ in the password percent-encoded; or host=… user=… password='…' dbname=…"
_UNCHANGED: Mapping[str, frozenset[str]] = {
    "channel_binding": frozenset({"disable", "prefer"}),
    "client_encoding": frozenset({"utf8", "utf-8", "UTF8", "UTF-8", "auto"}),
    "gssencmode": frozenset({"disable", "prefer"}),
    "hostaddr": frozenset(),
    "keepalives": frozenset({"1"}),
    "load_balance_hosts": frozenset({"disable"}),
    "replication": frozenset({"false", "off", "no", "0"}),
    "require_auth": frozenset(),
    "sslcompression": frozenset({"0"}),
    "sslnegotiation": frozenset({"postgres"}),
    "sslsni": frozenset({"1"}),
    "ssl_min_protocol_version": frozenset({"TLSv1.2"}),
    "target_session_attrs": frozenset({"any", "read-write", "primary"}),
}
"""What libpq knows and asyncpg (LightRAG's driver) does not: accepted where the value asks for nothing else."""
_READ = frozenset(
    [
        "user",
        "password",
        "host",
        "port",
        "dbname",
        "sslmode",
        "sslrootcert",
        "sslcert",
        "sslkey",
        "options",
        "connect_timeout",
        "application_name",
        "fallback_application_name",
    ]
)
_MODES: Mapping[str, TlsMode] = {
    "disable": "disable",
    "allow": "allow",
    "prefer": "prefer",
    "require": "require",
    "verify-ca": "verify-ca",
    "verify-full": "verify-full",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Dsn:
    """What a connection string says. None: it does not say."""

    hosts: tuple[tuple[str, int], ...]
    user: str
    database: str
    password: Secret | None
    mode: TlsMode | None
    ca: Path | None
    cert: Path | None
    key: Path | None
    settings: Mapping[str, str]
    connect_timeout_s: float | None


def parse_dsn(string: Secret, *, used_by: str) -> Dsn:
    """Raises SpecInvalid, which names `used_by` and at most a parameter, never a value."""
    said = _libpq(string.reveal(), used_by)
    for name in said.keys() - _READ:
        if said[name] not in _UNCHANGED.get(name, frozenset()):
            raise _wrong(
                used_by,
                f'its parameter "{name}" asks for what asyncpg, the driver of LightRAG, cannot do',
                f"remove {name} from the connection string"
                + (" (sslmode=verify-full proves the server as well)" if name == "channel_binding" else ""),
            )
    if not (user := said.get("user")):
        raise _wrong(used_by, "it names no user", f"write it as {FORMS}")
    mode = said.get("sslmode")
    if mode is not None and mode not in _MODES:
        raise _wrong(
            used_by, 'its parameter "sslmode" is none of libpq\'s modes', f"write one of {', '.join(_MODES)}"
        )
    system = said.get("sslrootcert") == "system"
    if system and mode not in (None, "verify-full"):
        raise _wrong(used_by, '"sslrootcert=system" needs sslmode=verify-full', "write sslmode=verify-full")
    files = {name: Path(said[name]).absolute() if said.get(name) else None for name in ("sslcert", "sslkey")}
    if (files["sslcert"] is None) != (files["sslkey"] is None):
        raise _wrong(used_by, '"sslcert" and "sslkey" belong together', "name both files, or neither of them")
    return Dsn(
        hosts=_hosts(said, used_by),
        user=user,
        database=said.get("dbname") or user,
        password=Secret(said["password"]) if said.get("password") else None,
        mode="verify-full" if system else _MODES[mode] if mode else None,
        ca=Path(said["sslrootcert"]).absolute() if said.get("sslrootcert") and not system else None,
        cert=files["sslcert"],
        key=files["sslkey"],
        settings=dict(_settings(said, used_by)),
        connect_timeout_s=_timeout(said, used_by),
    )


def _libpq(string: str, used_by: str) -> dict[str, str]:
    import psycopg  # carries libpq; only a connection string needs it
    from psycopg import pq

    unknown = None
    try:
        if "\0" in string:
            raise ValueError
        options = pq.Conninfo.parse(string.encode())
        return {each.keyword.decode(): each.val.decode() for each in options if each.val is not None}
    except psycopg.Error as error:
        unknown = _harmless_name(string, str(error))
    except ValueError:  # also bytes that are no text
        pass
    # Outside of the handlers: libpq's own words hold pieces of the string, and would be chained to ours.
    if unknown:
        raise _wrong(
            used_by, f'libpq knows no parameter "{unknown}"', "correct its name, or remove it from the string"
        )
    raise _wrong(used_by, "it is not a connection string of Postgres", f"write it as {FORMS}")


def _harmless_name(string: str, words: str) -> str | None:
    """The unknown parameter that libpq names, unless it may be a piece of a password with an unencoded "?" or space."""
    found = re.search(r'invalid (?:URI query parameter|connection option): ?"?\s*"?([A-Za-z_]{2,40})"', words)
    found = found or re.search(r'invalid connection option "([A-Za-z_]{2,40})"', words)
    if found is None:
        return None
    name = found[1]
    if re.match(r"postgres(ql)?://", string):
        authority, _, query = string.partition("?")
        return name if "@" not in query and ("@" in authority or "@" not in string) else None
    before = re.split(rf"\b{name}\s*=", string, maxsplit=1)[0]
    last = re.findall(r"(\w+)\s*=", before)
    return name if not last or last[-1] != "password" else None


def _hosts(said: Mapping[str, str], used_by: str) -> tuple[tuple[str, int], ...]:
    hosts = said.get("host", "").split(",")
    if not all(hosts):
        raise _wrong(used_by, "it names no host", f"write it as {FORMS}; a unix socket as host=/folder")
    ports = said.get("port", "").split(",")
    if len(ports) not in (1, len(hosts)):
        raise _wrong(
            used_by, f"it names {len(hosts)} hosts and {len(ports)} ports", "give each host its port"
        )
    ports = ports * len(hosts) if len(ports) == 1 else ports
    if any(port and not (re.fullmatch("[0-9]{1,5}", port) and 1 <= int(port) <= 65535) for port in ports):
        raise _wrong(used_by, "its port is not a number from 1 to 65535", f"write it as {FORMS}")
    return tuple((host, int(port or DEFAULT_PORT)) for host, port in zip(hosts, ports, strict=True))


def _settings(said: Mapping[str, str], used_by: str) -> Iterator[tuple[str, str]]:
    """Session settings in `options`, split as the server splits them: at spaces, a backslash keeps one."""
    words = [
        re.sub(r"\\(.)", r"\1", word) for word in re.findall(r"(?:\\.|\S)+", said.get("options") or "", re.S)
    ]
    while words:
        word = words.pop(0)
        if word == "-c" and words:
            word = words.pop(0)
        elif word.startswith(("-c", "--")):
            word = word[2:]
        else:
            word = ""
        name, equals, value = word.partition("=")
        name = name.replace("-", "_")
        if not equals or not re.fullmatch(SETTING_NAME, name):
            raise _wrong(
                used_by, 'its parameter "options" is not a list of settings', "write options=-c name=value"
            )
        if name.lower() in RESERVED_SETTINGS or "&" in value:
            why = "LightRAG cannot pass on a value with &" if "&" in value else "hybridrag sets it itself"
            raise _wrong(used_by, f'its options set "{name}": {why}', f"remove {name} from the options")
        yield name, value


def _timeout(said: Mapping[str, str], used_by: str) -> float | None:
    text = said.get("connect_timeout") or "0"
    if not re.fullmatch("-?[0-9]{1,6}", text):
        raise _wrong(
            used_by, 'its parameter "connect_timeout" is not a number of seconds', "write connect_timeout=10"
        )
    return float(text) if int(text) > 0 else None


def _wrong(used_by: str, what: str, hint: str) -> SpecInvalid:
    return SpecInvalid(f"{used_by} cannot be used: {what}", hint=hint)
