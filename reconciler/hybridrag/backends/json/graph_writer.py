"""Nodes and edges as GraphML, element by element, as networkx writes a graph (`readwrite/graphml.py`).

The file begins with the attributes of all its elements, so nodes and edges are kept aside until all were seen.
"""

from __future__ import annotations

import hashlib
import io
from array import array
from typing import Any

import numpy as np
import numpy.typing as npt
from lxml import etree

from hybridrag.model.data import EDGE_SEPARATOR, Batch

_NAMESPACES = {
    "xmlns": "http://graphml.graphdrawing.org/xmlns",
    "xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance",
    "xsi:schemaLocation": "http://graphml.graphdrawing.org/xmlns http://graphml.graphdrawing.org/xmlns/1.0/graphml.xsd",
}
_TYPES = {str: "string", bool: "boolean", int: "long", float: "double"}
ORDER_BYTES = 8
"""What is remembered of each node: a 64-bit hash of its id."""


class GraphText:
    """Element by element; `keys` are the attributes met so far (element, name, type), numbered as networkx does."""

    def __init__(self, keys: list[tuple[str, str, str]], order: bytes) -> None:
        self.keys = keys
        self._numbers = {key: number for number, key in enumerate(keys)}
        self._order = array("Q", order)
        self._sorted: npt.NDArray[np.uint64] | None = None
        self._places: npt.NDArray[np.int64] | None = None

    def nodes(self, batch: Batch) -> tuple[bytes, bytes]:
        """(text, the nodes' part of the order) of an examined batch."""
        text = [
            self._element("node", fields, id=key)
            for key, fields in zip(batch.keys, batch.fields, strict=True)
        ]
        order = array("Q", map(_hash, batch.keys))
        self._order.extend(order)
        return b"".join(text), order.tobytes()

    def edges(self, batch: Batch) -> bytes:
        """Text of an examined batch. networkx writes an edge from the end that stands first among the nodes."""
        ends = [key.split(EDGE_SEPARATOR) for key in batch.keys]
        swapped = (self._place([one for one, _ in ends]) > self._place([other for _, other in ends])).tolist()
        return b"".join(
            self._element("edge", fields, source=pair[swap], target=pair[not swap])
            for pair, swap, fields in zip(ends, swapped, batch.fields, strict=True)
        )

    def frame(self) -> tuple[bytes, bytes]:
        """What stands before the first node and after the last edge."""
        buffer = io.BytesIO()
        with etree.xmlfile(buffer, encoding="utf-8") as xml:
            xml.write_declaration()
            with xml.element("graphml", _NAMESPACES):
                for number in reversed(range(len(self.keys))):
                    scope, name, kind = self.keys[number]
                    about = {"id": f"d{number}", "for": scope, "attr.name": name, "attr.type": kind}
                    xml.write(etree.Element("key", about), pretty_print=True)
                with xml.element("graph", edgedefault="undirected"):
                    pass
        head, tag, tail = buffer.getvalue().rpartition(b"</graph>")
        return head, tag + tail

    def _element(self, scope: str, fields: dict[str, Any], **ends: str) -> bytes:
        element = etree.Element(scope, **ends)
        for name, value in fields.items():
            key = (scope, name, _TYPES[type(value)])
            number = self._numbers.get(key)
            if number is None:
                number = self._numbers[key] = len(self.keys)
                self.keys.append(key)
            etree.SubElement(element, "data", key=f"d{number}").text = str(value)
        text: bytes = etree.tostring(element, encoding="utf-8", xml_declaration=False, pretty_print=True)
        return text

    def _place(self, names: list[str]) -> npt.NDArray[np.int64]:
        """Where each node stands; one that is not there stands last."""
        if self._sorted is None or self._places is None:
            order = np.frombuffer(self._order.tobytes(), dtype=np.uint64)
            self._places = np.argsort(order, kind="stable")
            self._sorted = order[self._places]
        hashes = np.fromiter(map(_hash, names), dtype=np.uint64, count=len(names))
        if not len(self._sorted):
            return np.zeros(len(names), dtype=np.int64)
        found = np.minimum(np.searchsorted(self._sorted, hashes), len(self._sorted) - 1)
        return np.where(self._sorted[found] == hashes, self._places[found], len(self._sorted))


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=ORDER_BYTES).digest(), "little")
