"""The base of every pydantic model: frozen, and a key it does not know is an error."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """Frozen model that forbids unknown keys; used where untrusted data enters (spec, plan file, registry)."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
