"""What a `type: json` backend may say in the spec."""

from __future__ import annotations

from typing import Literal

from hybridrag.model.strict import Strict


class JsonSpec(Strict):
    """JSON files below each database's own `path`; nothing to connect to and nothing to provision."""

    type: Literal["json"]
