"""Names of workspaces: what LightRAG takes (`utils.py` 1.5.7, validate_workspace), and what lightrag-server makes of them. Pure."""

from __future__ import annotations

import re

NAME = r"^([^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*|\.[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*|\.\.[^/\\\x00-\x1f\x7f]+)$"
"""One component of a path, and neither "." nor ".."; without control characters, which no variable should carry."""


def of_server(workspace: str) -> str:
    """What lightrag-server makes of WORKSPACE (`api/config.py`); LightRAG itself takes the name as it is."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", workspace)


def server_warning(database: str, workspace: str) -> str | None:
    """Words where a lightrag-server that is told WORKSPACE alone would look in another place."""
    looked_in = of_server(workspace)
    if looked_in == workspace:
        return None
    return (
        f'database "{database}": lightrag-server makes "{looked_in}" of WORKSPACE={workspace} and would look there; give '
        f"it the other variables of hybridrag render {database} as well"
    )
