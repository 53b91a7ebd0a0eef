"""Checks a spec against the JSON Schema and the models; says what is wrong in plain words.

Called by `spec.loader` with a merged, interpolated tree. Neither jsonschema's nor pydantic's sentences
reach a user: they quote the value, and the value may be a secret.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from pydantic import ValidationError

from .models import Environment
from .nodes import KeyPath, Node
from .problems import Problem, listing, quote, related, subject, suggestion
from .schema import NO_VARIABLE, runtime

if TYPE_CHECKING:
    from jsonschema import Draft7Validator
    from jsonschema.exceptions import ValidationError as Violation

LITERAL_SECRET = (
    "a secret may not stand in the spec; "  # noqa: S105 - words about secrets, not one
    "write {env: NAME}, {file: PATH} or {command: [...]}"
)
_KINDS = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "object": "a map",
    "array": "a list",
    "boolean": "true or false",
    "null": "empty",
}


@functools.cache
def _validator() -> Draft7Validator:
    from jsonschema import Draft7Validator, exceptions, validators  # slow to import, so only when needed

    def no_variable(_: object, why: str, __: object, ___: object) -> Iterator[Violation]:
        # Always complains; whether a variable gave the value is known by the caller only.
        yield exceptions.ValidationError(why)

    extend: Any = validators.extend
    return cast("Draft7Validator", extend(Draft7Validator, {NO_VARIABLE: no_variable})(runtime()))


def _kind(value: object) -> str:
    if value is None:
        return "empty"
    names = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "text",
        dict: "a map",
        list: "a list",
    }
    return names[type(value)]


def schema_problems(root: Node, document: object) -> list[Problem]:
    """Everything the schema forbids."""
    found: list[Problem] = []
    for violation in _validator().iter_errors(document):
        found.extend(_translate(violation, root))
    return found


def _translate(violation: Violation, root: Node) -> Iterator[Problem]:
    path: KeyPath = tuple(violation.absolute_path)
    node = root.nearest(path)
    schema: Mapping[str, Any] = violation.schema if isinstance(violation.schema, dict) else {}
    rule, value = str(violation.validator), violation.instance
    wanted: Any = violation.validator_value
    name = subject(path)

    def problem(text: str, hint: str | None = None, *, covers: bool = False) -> Problem:
        return Problem(text=text, hint=hint, at=node.at, path=path, covers=covers)

    if schema.get("x-secret") and rule in ("type", "additionalProperties"):
        yield problem(LITERAL_SECRET, covers=True)
    elif rule == NO_VARIABLE:
        if node.variable and wanted == "secret":
            yield problem(LITERAL_SECRET, covers=True)
        elif node.variable:
            yield problem(f'{name} is the name of a variable; write it without "$"', covers=True)
    elif list(violation.schema_path)[-2:-1] == ["propertyNames"]:
        key = node.child(str(value)) or node
        text = f"the name {quote(str(value))} {_why_not(rule, wanted, schema)}"
        yield Problem(text=text, at=key.key_at or key.at, path=(*path, str(value)))
    elif rule == "anyOf":
        yield from _alternatives(violation, root)
    elif rule == "additionalProperties":
        yield from _unknown_keys(node, path, schema.get("properties", {}))
    elif rule == "required":
        for key in wanted:
            if isinstance(value, dict) and key not in value:
                place = f" in {name}" if path else ""
                yield Problem(text=f"missing key {quote(key)}{place}", at=node.at, path=(*path, key))
    elif rule in ("enum", "const"):
        known = [str(each) for each in (wanted if rule == "enum" else [wanted])]
        if isinstance(value, str) and not node.variable and isinstance(wanted, (str, list)):
            near = suggestion(value, known)
            yield problem(f"unknown {subject(path)[1:-1]} {quote(value)}{near}", f"known: {listing(known)}")
        else:
            yield problem(f"{name} must be {' or '.join(known)}")
    elif rule == "type":
        yield problem(*_wrong_type(name, wanted, node, value, top=not path))
    else:
        yield problem(f"{name} {_why_not(rule, wanted, schema)}")


def _why_not(rule: str, wanted: Any, schema: Mapping[str, Any]) -> str:
    """The rest of a sentence that starts with what is wrong."""
    if rule == "pattern":
        return str(schema.get("patternErrorMessage", "has characters that are not allowed here"))
    if rule in ("minLength", "minItems") and wanted == 1:
        return "may not be empty"
    words = {
        "minimum": f"must be at least {wanted}",
        "maximum": f"must be at most {wanted}",
        "minLength": f"must have at least {wanted} characters",
        "maxLength": f"must have at most {wanted} characters",
        "minItems": f"must have at least {wanted} items",
    }
    return words.get(rule, "is not valid here")


def _wrong_type(name: str, wanted: Any, node: Node, value: object, *, top: bool) -> tuple[str, str | None]:
    kinds = [wanted] if isinstance(wanted, str) else list(wanted)
    hint = None
    if top:
        hint = "a spec starts with version: 1"
    elif kinds == ["string"] and isinstance(value, (bool, int, float)):
        hint = "put it in quotes"
    elif isinstance(value, str) and node.quoted:
        hint = "remove the quotes"
    elif node.variable:
        hint = "the value comes from a variable"
    words = " or ".join(_KINDS[kind] for kind in kinds)
    # An empty value is often a map whose lines are all commented out.
    return f"{name} must be {words}, not {_kind(value)}", hint


def _alternatives(violation: Violation, root: Node) -> Iterator[Problem]:
    """Complaints of the alternative that was meant: the one whose type fits, else the first."""
    branches: dict[object, list[Violation]] = {}
    for inner in violation.context or ():
        branches.setdefault(inner.schema_path[0], []).append(inner)
    meant = [
        inner
        for inner in branches.values()
        if not any(each.validator == "type" and not each.path for each in inner)
    ]
    for inner in (meant or list(branches.values()))[0]:
        yield from _translate(inner, root)


def _unknown_keys(node: Node, path: KeyPath, known: Iterable[str]) -> Iterator[Problem]:
    written = node.value if isinstance(node.value, dict) else {}
    free = [key for key in known if key not in written]
    for key, child in written.items():
        if key not in known:
            yield Problem(
                text=f"unknown key {quote(key)}{suggestion(key, free)}",
                hint=f"known here: {listing(known)}",
                at=child.key_at or child.at,
                path=(*path, key),
                covers=True,
            )


def build(
    root: Node, document: object, earlier: Sequence[Problem]
) -> tuple[Environment | None, list[Problem]]:
    """The model, or None with what only the models know: rules between fields.

    What an `earlier` problem says about the same value, or one above or below it, is not said again.
    """
    try:
        return Environment.model_validate(document), []
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
    found: list[Problem] = []
    for detail in details:
        path = _path_of(detail["loc"], root)
        if any(each.path is not None and related(each.path, path) for each in earlier):
            continue
        if detail["type"] == "value_error":
            text, hint = f"{subject(path)}: {detail['ctx']['error']}", None
            if "exactly one of env" in text and isinstance(value := root.nearest(path).value, dict) and value:
                hint = "an overlay adds to the map below it; there, write null for the key that is not wanted"
        else:
            text, hint = f"{subject(path)} is not valid: {_plain_words(detail['msg'])}", None
        found.append(Problem(text=text, hint=hint, at=root.nearest(path).at, path=path))
    return None, found


def _path_of(location: Iterable[str | int], root: Node) -> KeyPath:
    """pydantic's location as a path in the tree: it adds the tag of a union and `[key]`."""
    path: list[str | int] = []
    here = root
    for part in location:
        child = here.child(part)
        if child is not None:
            here = child
            path.append(part)
    return tuple(path)


def _plain_words(message: str) -> str:
    return message.replace("Input should be", "it must be").replace("String should", "it should")
