"""Are two structured answers of LightRAG (`aquery_data`) the same? What differs, in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]
IDENTITY: dict[str, Callable[[Record], str]] = {
    "entities": lambda record: record["entity_name"],
    "relationships": lambda record: " — ".join(sorted((record["src_id"], record["tgt_id"]))),
    "chunks": lambda record: record["chunk_id"],
}
RANKED = {("local", "entities"), ("global", "relationships"), ("naive", "chunks")}
"""What a mode gives in the order of its vector search. Everything else is sorted by something that ties often
(degree, weight, number of mentions), and at ties each graph storage has an order of its own."""


def differences(mode: str, one: Record, other: Record, *, ignore: Sequence[str] = ()) -> list[str]:
    """Empty when both hold the same records with the same fields, in the same order where the order means something."""
    found = []
    for kind, identity in IDENTITY.items():
        left, right = one.get(kind, []), other.get(kind, [])
        names, others = [identity(record) for record in left], [identity(record) for record in right]
        if len(set(names)) != len(names) or len(set(others)) != len(others):
            found.append(f"{kind}: a record comes twice")
        if only := set(names) ^ set(others):
            found.append(f"{kind}: only on one side: {sorted(only)}")
        elif (mode, kind) in RANKED and names != others:
            found.append(f"{kind}: another order: {names} / {others}")
        facts = {identity(record): _facts(record, one, ignore) for record in left}
        for record in right:
            name = identity(record)
            if name in facts and facts[name] != (there := _facts(record, other, ignore)):
                found.append(f"{kind}: {name!r}: {facts[name]} / {there}")
    return found


def _facts(record: Record, answer: Record, ignore: Sequence[str]) -> dict[str, Any]:
    """A record without what only numbers this one answer; the number of its source becomes the source's name."""
    named = {item["reference_id"]: item["file_path"] for item in answer.get("references", [])}
    facts = {key: value for key, value in record.items() if key not in {"src_id", "tgt_id", *ignore}}
    if "reference_id" in facts:
        facts["reference_id"] = named.get(facts["reference_id"], facts["reference_id"])
    return facts


def order_differences(
    scored: Sequence[tuple[str, float]], ids: Sequence[str], *, tie: float = 1e-6
) -> list[str]:
    """Compare a ranking with scores to one without: where the names differ, their scores must be equal.

    LightRAG tells the score of a hit on JSON only. Two hits that score the same may stand in any order.
    """
    scores = dict(scored)
    if sorted(scores) != sorted(ids):
        return [f"only on one side: {sorted(set(scores) ^ set(ids))}"]
    return [
        f"rank {rank}: {name!r} ({score}) / {other!r} ({scores[other]})"
        for rank, ((name, score), other) in enumerate(zip(scored, ids, strict=True), 1)
        if name != other and abs(score - scores[other]) > tie
    ]
