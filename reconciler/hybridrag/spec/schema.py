"""The JSON Schema (draft-07) of a spec, generated from the models.

Two forms: `runtime()` is what `spec.schema_check` validates a merged and interpolated spec with;
`published()` is the committed `schemas/environment.schema.json` that editors read, where `${VAR}` may
stand for any scalar. The file is never read at run time. Run this module to print it:

    python -m hybridrag.spec.schema > schemas/environment.schema.json
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from typing import Any

from pydantic import TypeAdapter

from hybridrag.backends import KEYS
from hybridrag.model.secret import SecretRef

from .models import Environment, Name

Schema = dict[str, Any]

COMMAND = "python -m hybridrag.spec.schema > schemas/environment.schema.json"
NO_VARIABLE = "noVariable"
"""Our keyword in the runtime form: no variable may give this value. `secret` or `name` says why."""
_SECRET = f"#/definitions/{SecretRef.__name__}"
_CONSTRAINED = {"pattern", "maxLength", "enum", "const", "minimum", "maximum"}


def _each(schema: Schema, change: Callable[[Schema], Schema]) -> Schema:
    """A copy with `change` applied to each schema directly inside, by the keywords pydantic uses."""
    out = dict(schema)
    for keyword in ("properties", "definitions"):
        if keyword in out:
            out[keyword] = {name: change(inner) for name, inner in out[keyword].items()}
    for keyword in ("anyOf", "allOf", "oneOf"):
        if keyword in out:
            out[keyword] = [change(inner) for inner in out[keyword]]
    for keyword in ("items", "additionalProperties", "then"):
        if isinstance(out.get(keyword), dict):
            out[keyword] = change(out[keyword])
    return out


@functools.cache
def _key_rules() -> dict[str, Schema]:
    """What a key of a map must be, by its pattern; asked for itself, every pydantic tells all of a rule."""
    rules = [TypeAdapter(kind).json_schema() for kind in (Name, *KEYS)]
    return {rule["pattern"]: rule for rule in rules}


def draft07(schema: Schema) -> Schema:
    """pydantic's 2020-12 words in draft-07's."""
    out = dict(schema)
    if "$defs" in out:
        out["definitions"] = out.pop("$defs")
    for noise in ("title", "format"):  # titles repeat the key; `format: path` is not part of JSON Schema
        if not isinstance(out.get(noise), dict):
            out.pop(noise, None)
    if len(out.get("enum", ())) == 1:  # older pydantic
        (out["const"],) = out.pop("enum")
    if "patternProperties" in out:
        # A map with constrained keys: as names and values, a bad name is told apart from an unknown key.
        ((pattern, out["additionalProperties"]),) = out.pop("patternProperties").items()
        out["propertyNames"] = _key_rules()[pattern]
    if "discriminator" in out:
        out = _by_type(out)
    if "$ref" in out:
        reference = {"$ref": out.pop("$ref").replace("#/$defs/", "#/definitions/")}
        out = {"allOf": [reference], **out} if out else reference  # draft-07 ignores what stands beside $ref
    return _each(out, draft07)


def _by_type(union: Schema) -> Schema:
    """A discriminated union as one `if`/`then` per member, so that only the chosen one complains."""
    key = union["discriminator"]["propertyName"]
    members = union["discriminator"]["mapping"]
    return {
        "type": "object",
        "required": [key],
        "properties": {key: {"enum": sorted(members)}},
        "allOf": [
            {
                "if": {"properties": {key: {"const": name}}, "required": [key]},
                "then": {"$ref": reference},
            }
            for name, reference in sorted(members.items())
        ],
    }


def _guarded(schema: Schema) -> Schema:
    """Marks where a secret is expected, so that a variable cannot put one there."""
    out = dict(schema)
    if {"$ref": _SECRET} in out.get("anyOf", []):
        out[NO_VARIABLE] = "secret"
    return _each(out, _guarded)


def _templated(schema: Schema) -> Schema:
    """Lets text with a `$` stand wherever a value must fit more than `type: string`."""
    out = _each(schema, _templated)
    if "anyOf" in out:  # an alternative that became two alternatives stands beside the others
        out["anyOf"] = [
            each
            for inner in out["anyOf"]
            for each in (inner["anyOf"] if inner.keys() == {"anyOf"} else [inner])
        ]
    scalar = out.get("type") in ("integer", "number", "boolean") or (
        out.get("type", "string") == "string" and _CONSTRAINED & out.keys()
    )
    if not scalar:
        return out
    outside: Schema = {key: out.pop(key) for key in ("default", "description") if key in out}
    return {**outside, "anyOf": [out, {"type": "string", "pattern": r"^.*\$\{?.*"}]}


@functools.cache
def runtime() -> Schema:
    """The strict form, for a spec whose variables are filled in. Do not change what is returned."""
    schema = _guarded(draft07(Environment.model_json_schema()))
    secret = schema["definitions"][SecretRef.__name__]
    secret["x-secret"] = True
    secret["properties"]["env"][NO_VARIABLE] = "name"
    return schema


def published() -> Schema:
    """The form that editors read, for a spec as it is written."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "hybridrag environment",
        "$comment": f"Generated: {COMMAND}",
        **_templated(draft07(Environment.model_json_schema())),
    }


def text() -> str:
    """What `schemas/environment.schema.json` holds."""
    return (
        json.dumps(published(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    )  # any pydantic, one order


if __name__ == "__main__":
    sys.stdout.write(text())
