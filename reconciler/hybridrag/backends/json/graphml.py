"""Stream nodes and edges of the GraphML file that LightRAG's NetworkXStorage writes, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lxml import etree

from hybridrag.model.data import EDGE_SEPARATOR, Batch

from .counting import count_records
from .kv import BATCH_BYTES, Counted, malformed

_NS = "{http://graphml.graphdrawing.org/xmlns}"
_ROOT, _KEY, _NODE, _EDGE, _DATA = (_NS + name for name in ("graphml", "key", "node", "edge", "data"))


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise ValueError(f'"{text[:20]}" is not a boolean')
    return text.lower() in ("true", "1")


_CASTS: dict[str, Callable[[str], Any]] = {
    "int": int,
    "long": int,
    "float": float,
    "double": float,
    "boolean": _boolean,
}
Types = dict[str, tuple[str, Callable[[str], Any]]]


def edge_key(one: str, other: str) -> str:
    """Key of an undirected edge; ordered as LightRAG orders it (Python's min and max)."""
    return f"{min(one, other)}{EDGE_SEPARATOR}{max(one, other)}"


def read_graph(path: Path, namespace: str, *, skip: int, rows: int) -> Iterator[Batch]:
    """Batches of nodes (key: id) or of edges (key: both ends); fields are the typed attributes."""
    if not path.is_file():
        return
    position = start = 0
    batch = Batch(namespace=namespace, position=0)
    with path.open("rb") as file:
        counted = Counted(file)
        try:
            for key, fields in _elements(path, counted, namespace):
                position += 1
                if position > skip:
                    batch.keys.append(key)
                    batch.fields.append(fields)
                if len(batch) >= rows or (batch.keys and counted.done - start >= BATCH_BYTES):
                    batch.position, batch.size = position, counted.done - start
                    start = counted.done
                    yield batch
                    batch = Batch(namespace=namespace, position=0)
        except KeyError as error:
            raise malformed(
                path, position, f"the next {namespace[:-1]} has no attribute {error}", opens=True
            ) from None
        except etree.XMLSyntaxError as error:
            raise malformed(path, position, error) from None
        except ValueError as error:
            raise malformed(path, position, error, opens=True) from None
    if len(batch):
        batch.position, batch.size = position, counted.done - start
        yield batch


def _elements(path: Path, counted: Counted, namespace: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(key, attributes) of each node or of each edge."""
    types: Types = {}
    found = 0
    nodes = count_records(path)["nodes"] if namespace == "nodes" else -1
    wanted = _NODE if namespace == "nodes" else _EDGE
    parser = etree.iterparse(
        counted,
        events=("end",),
        tag=(_KEY, _NODE, _EDGE),
        huge_tree=True,
        resolve_entities=False,
        no_network=True,
        remove_comments=True,
        remove_pis=True,
    )
    for _, element in parser:
        if element.tag == _KEY:
            cast = _CASTS.get(element.get("attr.type", "string"), str)
            types[element.get("id", "")] = (element.get("attr.name", ""), cast)
            continue
        if element.tag == wanted:
            found += 1
            yield _key(element, namespace), _attributes(element, types)
        elif found == nodes:
            return  # LightRAG writes nodes before edges; all of them were seen
        element.clear()
        while element.getprevious() is not None:
            del element.getparent()[0]
    if parser.root.tag != _ROOT:
        raise ValueError("its root is not <graphml> in the namespace of GraphML")


def _key(element: Any, namespace: str) -> str:
    if namespace == "nodes":
        return str(element.attrib["id"])
    return edge_key(element.attrib["source"], element.attrib["target"])


def _attributes(element: Any, types: Types) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for data in element.iterchildren(_DATA):
        if (key := data.attrib["key"]) not in types:
            raise ValueError(f'the attribute "{key[:60]}" of a record is not declared')
        if len(data):
            raise ValueError(f'the attribute "{key[:60]}" of a record holds more than text')
        name, cast = types[key]
        fields[name] = (
            "" if data.text is None else cast(data.text)
        )  # empty is "", whatever the type (networkx)
    return fields
