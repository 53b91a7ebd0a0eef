"""The streams that LightRAG itself has; the one for stores of others is empty in most databases."""

from __future__ import annotations

from hybridrag.model.data import NAMESPACES, OTHER_STORES

OWN = tuple(namespace for namespace in NAMESPACES if namespace.name != OTHER_STORES)
NAMES = [namespace.name for namespace in OWN]
