"""The embedding is a fact: what places, settings and the spec say of it must agree, and records must have vectors. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from hybridrag.errors import PlanRefused, SourceRefused
from hybridrag.model.data import BY_NAME, Slot, printable
from hybridrag.model.facts import Facts, Observation
from hybridrag.model.selection import Embedding, Told, plain_model
from hybridrag.model.vectors import Elsewhere, elsewhere_in, re_embedding, strangers
from hybridrag.model.wanted import Wanted

from .completeness import counted, missing_streams, records_in_use
from .parts import JSON, Part, canonical, store_thing

SHOWN = 4
"""Places that an error names; more say the same."""


@dataclass(frozen=True, slots=True)
class Serving:
    """What was seen of the places that serve a database: records by stream, None where not known; `backend` of its vectors."""

    backend: str
    records: Mapping[str, int | None] = field(default_factory=dict)
    elsewhere: Sequence[Elsewhere] = ()


def serving_of(item: Wanted, parts: Sequence[Part], observation: Observation) -> Serving:
    """From an observation, in which counts of what is in place are details."""
    vector = next((part for part in parts if Slot.VECTOR in part.slots), None)
    if vector is None:
        return Serving("")
    name = canonical(vector.target) if vector.in_place else vector.source
    thing = store_thing(item.database, name, vector.slots)
    found = elsewhere_in({**observation.detail(thing), **observation.of(thing)})
    return Serving(name, records_in_use(item.database, parts, observation), found)


def without_vectors(records: Mapping[str, int | None]) -> list[str]:
    """In words the records that have no vector at all; see `completeness`."""
    return [str(each) for each in missing_streams(records) if BY_NAME[each.namespace].slot is Slot.VECTOR]


def words_of(embedding: Embedding) -> str:
    """An embedding for people."""
    named = f'model "{printable(embedding.model)}"' if embedding.model else "no model"
    return f"{named} with {embedding.dim:,} dimensions"


def refuse_strangers(item: Wanted, serving: Serving, *, kept: bool = False) -> None:
    """Raises PlanRefused where vectors of the database lie under another model than the spec's. `kept`: in a kept copy."""
    found = strangers(serving.records, serving.elsewhere)
    if not found:
        return
    spaces = " and ".join(dict.fromkeys(each.space for each in found))
    missing = not any(serving.records.get(each.namespace) for each in found)
    none = "there are none" if missing else "not all of them are there"
    what = "the vectors of the copy kept" if kept else "its vectors"
    key = f"databases.{item.database}.embedding"
    raise (PlanRefused if kept else SourceRefused)(
        f'database "{item.database}": the spec says embedding {words_of(item.embedding)}, but in backend '
        f'"{serving.backend}" {what} lie under {spaces}: {_listed(map(str, found))}; under the spec\'s {none}',
        hint=f"set {key}.model and .dim to what made them (what LightRAG is told as EMBEDDING_MODEL and EMBEDDING_DIM; "
        f"model: null where it is told none). Or, where the spec is right, delete those rows. "
        f"{_sentence(re_embedding(serving.records))}",
    )


def refuse_told(item: Wanted, told: Sequence[Told], serving: Serving, *, named: bool) -> None:
    """Raises PlanRefused where settings of the database's LightRAG name another embedding than the spec.

    `named`: its vectors are, or are to be, in places that are named after the model.
    """
    apart = [(each, words) for each in told if (words := _apart(item.embedding, each, named=named))]
    if not apart:
        return
    key = f"databases.{item.database}.embedding"
    first, _ = apart[0]
    other = first.model is not None and plain_model(first.model) != plain_model(item.embedding.model)
    value = (
        f"{key}.model to {printable(first.model) if first.model else 'null'}"
        if other
        else f"{key}.dim to {first.dim}"
    )
    raise SourceRefused(
        f'database "{item.database}": the spec says embedding {words_of(item.embedding)}, but '
        f"{_listed(f'{each.where} says {words}' for each, words in apart)}",
        hint=f"set {value}, or correct EMBEDDING_MODEL and EMBEDDING_DIM there: which of the two made the vectors, LightRAG's "
        f"own settings of that time tell. {_sentence(re_embedding(serving.records))}",
    )


def _apart(embedding: Embedding, told: Told, *, named: bool) -> str | None:
    """What is told in other words than the spec; None where both agree, or one says nothing."""
    words = []
    # A database in files works without the name of its model, so not to name it is no contradiction there.
    says = told.model is not None and (named or bool(embedding.model and told.model))
    if says and plain_model(told.model) != plain_model(embedding.model):
        words.append(f'model "{printable(told.model)}"' if told.model else "no model")
    if told.dim is not None and told.dim != embedding.dim:
        words.append(f"{told.dim:,} dimensions")
    return " with ".join(words) or None


def told_in(details: Facts) -> list[Told]:
    """What was read of settings, from the details of an observation (`as_details`)."""
    models, dims = (
        {n[len(k) :]: v for n, v in details.items() if n.startswith(k)} for k in ("model/", "dim/")
    )
    return [
        Told(
            where=where,
            model=model if isinstance(model := models.get(where), str) else None,
            dim=dim if isinstance(dim := dims.get(where), int) else None,
        )
        for where in sorted({*models, *dims})
    ]


def as_details(told: Iterable[Told]) -> Facts:
    """Settings as details of an observation: one that agrees changes no plan, so none may make a plan stale."""
    found: dict[str, str | int | None] = {}
    for each in told:
        if each.model is not None:
            found[f"model/{each.where}"] = each.model
        if each.dim is not None:
            found[f"dim/{each.where}"] = each.dim
    return found


def refuse_losing(item: Wanted, part: Part, source: Facts, target: Facts, warnings: list[str]) -> None:
    """Raises PlanRefused where a kept copy would be replaced that alone still holds a whole stream."""
    mine, kept = counted(source, part.slots), counted(target, part.slots)
    lost = {name: count for name, count in kept.items() if count and mine[name] == 0}
    if cache := lost.pop("llm_response_cache", None):  # LightRAG itself empties it when asked to
        warnings.append(
            f'database "{item.database}": what serves holds no LLM cache; the {cache:,} records of it that the copy kept in '
            f'"{part.target.name}" holds are replaced by none'
        )
    if not lost:
        return
    beside = {each.namespace: str(each) for each in missing_streams(mine)}
    lacking = _listed(beside.get(name, f"no {BY_NAME[name].title}") for name in lost)
    told = _listed(f"{count:,} {BY_NAME[name].title}" for name, count in lost.items())
    others = _listed(str(each) for each in elsewhere_in(source) if each.namespace in lost)
    raise SourceRefused(
        f'database "{item.database}": backend "{part.source}" holds {lacking}{f" (there are {others})" if others else ""}; the '
        f'copy kept in "{part.target.name}", which would be replaced, does: {told}',
        hint=f"hybridrag repair {item.database} puts back what is kept; hybridrag rollback {item.database} --discard-new serves "
        f"it as it was left; where it is not needed any more, delete it first: hybridrag retire {item.database}",
    )


def is_named(parts: Iterable[Part]) -> bool:
    """Whether vectors are, or are to be, in places that are named after the model: in anything but files."""
    vector = [part for part in parts if Slot.VECTOR in part.slots]
    return any(name != JSON for part in vector for name in (part.source, canonical(part.target)))


def _listed(words: Iterable[str]) -> str:
    every = list(words)
    more = f" and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return ", ".join(every[:SHOWN]) + more


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:]
