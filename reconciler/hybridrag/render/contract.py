"""The published contract of what this tool prints for machines: JSON Schemas (draft-07) of the plan file, the
status and the event stream, generated from the models. Never read at run time. Run this module to write them:

    python -m hybridrag.render.contract schemas
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from hybridrag.model import events
from hybridrag.planner import PlanFile
from hybridrag.spec.schema import draft07

from .drift_report import DriftsOut
from .status_contract import DatabaseStatusOut
from .status_json import StatusOut
from .watch_json import WatchStatusOut

Schema = dict[str, Any]

COMMAND = "python -m hybridrag.render.contract schemas"


def _headed(title: str, schema: Schema) -> Schema:
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": title,
        "$comment": f"Generated: {COMMAND}",
        **schema,
    }


def plan() -> Schema:
    """What `plan --json` prints and `plan --out` saves."""
    return _headed("hybridrag plan", draft07(PlanFile.model_json_schema(mode="serialization")))


def status() -> Schema:
    """What `status --json` prints."""
    return _headed("hybridrag status", draft07(StatusOut.model_json_schema(mode="serialization")))


def backend_status() -> Schema:
    """What `backend status DB --json` prints; without DB, a list of these below `databases`."""
    made = draft07(DatabaseStatusOut.model_json_schema(mode="serialization"))
    return _headed("hybridrag backend status", made)


def drift() -> Schema:
    """What `drift --json` prints."""
    return _headed("hybridrag drift", draft07(DriftsOut.model_json_schema(mode="serialization")))


def watch_status() -> Schema:
    """What `watch status --json` prints, and the other `watch` commands with `--json`."""
    return _headed("hybridrag watch status", draft07(WatchStatusOut.model_json_schema(mode="serialization")))


def _event(kind: type[events.Event]) -> Schema:
    made = draft07(TypeAdapter(kind).json_schema(mode="serialization"))
    own: Schema = {"version": {"const": events.EVENTS_VERSION}, "type": {"const": kind.type}}
    fields = made.get("properties", {})
    return {
        **made,
        "properties": {**own, **fields},
        "required": [*own, *fields],
        "additionalProperties": False,
    }


def event_stream() -> Schema:
    """One line of `apply --events FILE`, and of `apply --json`; `type` says which."""
    found = [
        item for item in vars(events).values() if isinstance(item, type) and issubclass(item, events.Event)
    ]
    kinds = sorted((kind for kind in found if kind is not events.Event), key=lambda kind: kind.type)
    made = {kind.__name__: _event(kind) for kind in kinds}
    nested = {name: part for each in made.values() for name, part in each.pop("definitions", {}).items()}
    return _headed(
        "hybridrag event",
        {
            "type": "object",
            "required": ["version", "type"],
            "properties": {"type": {"enum": [kind.type for kind in kinds]}},
            "allOf": [
                {
                    "if": {"properties": {"type": {"const": kind.type}}, "required": ["type"]},
                    "then": {"$ref": f"#/definitions/{kind.__name__}"},
                }
                for kind in kinds
            ],
            "definitions": {**nested, **made},
        },
    )


def texts() -> dict[str, str]:
    """File name -> what it holds."""
    made = {
        "plan": plan(),
        "status": status(),
        "backend-status": backend_status(),
        "watch-status": watch_status(),
        "drift": drift(),
        "events": event_stream(),
    }
    return {
        f"{name}.schema.json": json.dumps(schema, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        for name, schema in made.items()
    }


def main(folder: str) -> None:
    for name, text in texts().items():
        Path(folder, name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
