"""The only list of backends. A new engine is a folder beside the others and a line here."""

from __future__ import annotations

from hybridrag.model.strict import Strict

from .json.spec import JsonSpec
from .milvus.spec import MilvusSpec
from .postgres.spec import PostgresSpec

SPECS: dict[str, type[Strict]] = {"json": JsonSpec, "postgres": PostgresSpec, "milvus": MilvusSpec}
"""Short backend type name -> the model of its entry below `backends:`."""
