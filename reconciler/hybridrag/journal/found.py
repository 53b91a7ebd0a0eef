"""What earlier runs found out about a database's records: what a target refused, and how many were switched to.

It saves a pass over the data, and is believed only where what is observed now still fits.
"""

from __future__ import annotations

import json
from pathlib import Path

from hybridrag.model.findings import Refusal

from .columns import checked
from .reading import UNREADABLE, open_read_only
from .version import tool


def refusals(path: Path) -> dict[str, dict[str, Refusal]]:
    """By database and part, what this version found its target to refuse; nothing when the journal cannot be read.

    Another version may know how to hold what this one refuses.
    """
    found: dict[str, dict[str, Refusal]] = {}
    try:
        with open_read_only(path) as db:
            query = "SELECT database, part, found FROM refusal WHERE tool = ?"
            for database, part, text in db.execute(query, (tool(),)) if db else ():
                found.setdefault(str(database), {})[str(part)] = checked(Refusal, json.loads(text))
    except UNREADABLE:
        return {}
    return found


def served_counts(path: Path) -> dict[str, dict[str, int]]:
    """By database, records of each stream when it began to serve; nothing when the journal cannot be read."""
    found: dict[str, dict[str, int]] = {}
    try:
        with open_read_only(path) as db:
            for database, namespace, records in (
                db.execute("SELECT database, namespace, records FROM served") if db else ()
            ):
                found.setdefault(str(database), {})[str(namespace)] = int(records)
    except UNREADABLE:
        return {}
    return found
