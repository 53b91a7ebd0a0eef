"""Stream nodes and edges of the GraphML file that LightRAG's NetworkXStorage writes, in bounded memory."""

from __future__ import annotations

import xml.etree.ElementTree as ET  # noqa: S405 - expat >= 2.4 limits entity expansion, and the file is the user's own
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hybridrag.model.data import EDGE_SEPARATOR, Batch

from .kv import BATCH_BYTES, Counted, malformed

_NS = "{http://graphml.graphdrawing.org/xmlns}"
_CASTS: dict[str, Callable[[str], Any]] = {
    "int": int,
    "long": int,
    "float": float,
    "double": float,
    "boolean": lambda text: text.strip().lower() in ("true", "1"),
}


def edge_key(one: str, other: str) -> str:
    """Key of an undirected edge; ordered as LightRAG orders it (Python's min and max)."""
    return f"{min(one, other)}{EDGE_SEPARATOR}{max(one, other)}"


def read_graph(path: Path, namespace: str, *, skip: int, rows: int) -> Iterator[Batch]:
    """Batches of nodes (key: id) or of edges (key: both ends); fields are the typed attributes."""
    if not path.is_file():
        return
    wanted = _NS + ("node" if namespace == "nodes" else "edge")
    elements = {_NS + "node", _NS + "edge"}
    position = 0
    types: dict[str, tuple[str, Callable[[str], Any]]] = {}
    graph: ET.Element | None = None
    batch = Batch(namespace=namespace, position=0)
    start = 0
    with path.open("rb") as file:
        counted = Counted(file)
        try:
            for event, element in ET.iterparse(counted, events=("start", "end")):  # noqa: S314 - see the import
                tag = element.tag
                if event == "start":
                    if tag == _NS + "graph":
                        graph = element
                    continue
                if tag == _NS + "key":
                    cast = _CASTS.get(element.get("attr.type", "string"), str)
                    types[element.get("id", "")] = (element.get("attr.name", ""), cast)
                elif tag in elements:
                    if tag == wanted:
                        position += 1
                        if position > skip:
                            batch.keys.append(_key(element, namespace))
                            batch.fields.append(_attributes(element, types))
                    if graph is not None:
                        graph.clear()
                    if len(batch) >= rows or (batch.keys and counted.done - start >= BATCH_BYTES):
                        batch.position, batch.size = position, counted.done - start
                        start = counted.done
                        yield batch
                        batch = Batch(namespace=namespace, position=0)
        except (ET.ParseError, KeyError, ValueError) as error:
            raise malformed(path, position, error) from None
    if len(batch):
        batch.position, batch.size = position, counted.done - start
        yield batch


def _key(element: ET.Element, namespace: str) -> str:
    if namespace == "nodes":
        return element.attrib["id"]
    return edge_key(element.attrib["source"], element.attrib["target"])


def _attributes(element: ET.Element, types: dict[str, tuple[str, Callable[[str], Any]]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for data in element:
        name, cast = types[data.attrib["key"]]
        fields[name] = cast(data.text or "")
    return fields
