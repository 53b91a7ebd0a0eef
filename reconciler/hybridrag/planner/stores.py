"""What was observed of a part's source and of its place in the target: usable, or the reason why not. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping

from hybridrag.errors import BackendUnavailable, NotFound, PlanRefused, SourceRefused, SourceUnreadable
from hybridrag.model.address import same_place
from hybridrag.model.data import Slot, streams_of
from hybridrag.model.facts import Facts
from hybridrag.model.marks import MarkState
from hybridrag.model.plan import KEPT, owner_of
from hybridrag.model.wanted import Wanted

from .overwriting import held, holds, place
from .parts import JSON, Part, kept_state


def count(facts: Facts, namespace: str) -> int:
    value = facts.get(f"records/{namespace}")
    return value if isinstance(value, int) else 0


def total(facts: Facts, slots: Collection[Slot] = tuple(Slot)) -> int:
    """Records of some slots."""
    return sum(count(facts, name) for name in streams_of(slots))


def reachable_source(item: Wanted, part: Part, server: Facts | None) -> None:
    """Raises where the backend that serves a part is not in the spec any more, or does not answer."""
    if server is None:
        raise PlanRefused(
            f'database "{item.database}" is served by backend "{part.source}", which is not in the spec',
            hint=f'declare "{part.source}" below backends again, or set databases.{item.database}.backend to what it is '
            "to the database now",
        )
    if not server.get("reachable"):
        hint = f"hybridrag backend start {part.source}" if server.get("provision") else server.get("hint")
        raise BackendUnavailable(
            f'database "{item.database}" cannot be moved from backend "{part.source}": {server.get("problem")}',
            hint=str(hint) if hint else None,
        )


def blank_files(item: Wanted, facts: Facts) -> list[str]:
    """Warnings: files of a source that hold nothing, and that LightRAG reads as missing ones."""
    return [
        f'database "{item.database}": "{name.partition("/")[2]}" is empty; LightRAG reads it as a missing file'
        for name in sorted(facts)
        if name.startswith("blank/")
    ]


def way_back(item: Wanted, entry: Facts) -> str:
    """Words for a hint: what an earlier backend still holds; "" where the registry's entry names none."""
    kept = sorted(name.partition("/")[2] for name in entry if name.startswith("kept/"))
    if not kept:
        return ""
    return f"; or go back to what {kept[0]} was left with: hybridrag rollback {item.database} --discard-new"


def start_once(item: Wanted) -> str:
    """The way to the tables of the model, for vectors that still lie in tables without its suffix."""
    return (
        f"start LightRAG once with EMBEDDING_MODEL={item.embedding.model} (hybridrag render {item.database}), then run "
        f"hybridrag plan; or, if it is told no model, take databases.{item.database}.embedding.model out of the spec"
    )


def usable_source(item: Wanted, part: Part, facts: Facts, entry: Facts, there: Facts | None = None) -> Facts:
    """The source's facts. Raises why it cannot be read as it is.

    `entry`: the registry's, of the database. `there`: what was observed of its place in the target.
    """
    if facts.get("unsuffixed"):
        raise SourceRefused(f'database "{item.database}": {facts["unsuffixed"]}', hint=start_once(item))
    if not facts.get("exists"):
        raise _absent(item, part, facts, way_back(item, entry), there or {})
    damaged = [(name.partition("/")[2], why) for name, why in facts.items() if name.startswith("damaged/")]
    if damaged:
        name, why = damaged[0]
        raise SourceUnreadable(
            f'database "{item.database}": "{name}" is damaged: {why}',
            where=f"{item.path}/{name}",
            hint=f"repair or restore {name} (LightRAG cannot open it either), then run hybridrag plan",
        )
    if facts.get("anchor"):
        raise SourceRefused(
            f'database "{item.database}" was written by a newer LightRAG, which notes its storages in "{facts["anchor"]}" '
            "and would refuse to start on others",
            hint="keep it where it is until a hybridrag that knows the note; this one leaves it untouched",
        )
    for name, dim in facts.items():
        if name.startswith("dim/") and dim is not None and dim != item.embedding.dim:
            raise SourceRefused(
                f'database "{item.database}": its vectors have {dim} dimensions ({name[4:]}), the spec says '
                f"{item.embedding.dim}",
                hint=f"set databases.{item.database}.embedding.dim to {dim} (another model would need re-embedding)",
            )
    return facts


def _absent(item: Wanted, part: Part, facts: Facts, back: str, there: Facts) -> NotFound:
    if part.source == JSON and not facts.get("exists") and there.get("migration") is None and holds(there):
        what: object = f'there are no files in "{item.path}", and {place(item, part)} holds data already ({held(part, there)})'
        model = f" --embedding-model {item.embedding.model}" if item.embedding.model else ""
        hint = (
            f"if that is the database: remove databases.{item.database} from the spec, then hybridrag db create "
            f"{item.database} --backend {part.target.name} --workspace {shlex.quote(item.workspace)} --embedding-dim "
            f"{item.embedding.dim}{model}; else correct databases.{item.database}.path"
        )
    elif part.source == JSON:
        what = facts.get("missing") or facts.get("problem") or f'the folder "{item.path}" does not exist'
        hint = f"correct databases.{item.database}.path in the spec, then run hybridrag plan{back}"
    else:
        what = facts.get("missing") or facts.get("problem") or f'backend "{part.source}" does not hold it'
        hint = f"hybridrag status shows what is where{back}"
    return NotFound(f'database "{item.database}": {what}', hint=hint)


def usable_target(item: Wanted, part: Part, facts: Facts, identity: str, kept: bool) -> str | None:
    """The migration whose kept copy is replaced, if any. Raises where the place is not free, or not ours.

    `kept`: the registry says that this backend served the slots before, so what lies there is this database's own.
    """
    if facts.get("problem"):
        hint = facts.get("hint")
        raise BackendUnavailable(
            f'database "{item.database}": its place in backend "{part.target.name}" cannot be observed: {facts["problem"]}',
            hint=str(hint) if hint else "run hybridrag plan again",
        )
    begun = facts.get("migration")
    if (
        begun is not None
        and facts.get("state") == MarkState.SWITCHED
        and not kept
        and part.target.type == JSON
    ):
        # Files keep the mark of what once wrote them; who served since is known to the registry alone.
        begun = None
    if begun is not None and owner_of(str(begun)) != owner_of(identity):
        raise PlanRefused(
            f'database "{item.database}": {place(item, part)} holds the unfinished copy of another database',
            hint=f"set databases.{item.database}.workspace to a free name, or finish the other migration first",
        )
    if kept and (facts.get("state") == MarkState.SWITCHED or begun is None):
        if begun is not None:
            return str(begun)
        return KEPT if holds(facts) or facts.get("state") == MarkState.SWITCHED else None
    if kept and part.target.type == JSON:
        return KEPT  # the files still stand beside our unfinished copy
    if begun is None and holds(facts):
        raise PlanRefused(
            f'database "{item.database}": {place(item, part)} holds data of several migrations ({held(part, facts)})',
            hint=f"set databases.{item.database}.workspace to a free name, or empty that workspace yourself",
        )
    return None


def refuse_unsound(item: Wanted, facts: Facts) -> None:
    """Raises BackendUnavailable where the place cannot take, or keep, what it would be given."""
    if facts.get("refusal"):
        raise BackendUnavailable(
            f'database "{item.database}": {facts["refusal"]}', hint=str(facts.get("way_out"))
        )


def refuse_same_place(item: Wanted, part: Part, source: Facts, target: Facts) -> None:
    """Raises PlanRefused where two backends of the spec lead to one place: a copy would be read while it is written."""
    same = same_place(source, target, part.ordered)
    if not same:
        return
    names = " and ".join(", ".join(slot.value for slot in same).rsplit(", ", 1))
    stay = ", ".join(
        f"{slot.value}: {part.source if slot in same else part.target.name}"
        for slot in Slot
        if slot in part.slots
    )
    raise PlanRefused(
        f'database "{item.database}": backends "{part.source}" and "{part.target.name}" are one place for the {names} '
        f"slot{'s' if len(same) > 1 else ''}: the same database of the same server, with the same workspace",
        hint=f"leave what stays where it is, in databases.{item.database}.backend: {{{stay}}}"
        if len(same) < len(part.slots)
        else f"leave databases.{item.database}.backend at {part.source}, or name another server or database",
    )


def refuse_two_servers(item: Wanted, targets: Mapping[str, Facts]) -> None:
    """Raises PlanRefused where slots would lie in two databases of one engine, of which LightRAG can open one only.

    `targets`: facts of the parts' places by backend.
    """
    found = {name: facts["server"] for name, facts in targets.items() if facts.get("server") is not None}
    if len(set(found.values())) > 1:
        names = " and ".join(f'"{name}"' for name in sorted(found))
        raise PlanRefused(
            f'database "{item.database}": backends {names} are different Postgres databases, and LightRAG keeps one '
            "connection pool for all its Postgres storages",
            hint=f"name one Postgres database for all slots of databases.{item.database}.backend that are in Postgres",
        )


def reclaimable(part: Part, entry: Facts, target: Facts, fingerprint: str) -> bool:
    """Whether the copy kept in the target may be brought up to date in place.

    It must be as it was when it was left, or just made from this very state of the source (a kill came before the
    registry said so), and hold nothing that did not come along.
    """
    if not part.target.mends or not target.get("schema") or entry.get(f"left_behind/{part.target.name}"):
        return False
    if target.get("migration") is None:
        finished = target.get("state") is None
    else:
        finished = target.get("state") == MarkState.SWITCHED
        if finished and target.get("source_fingerprint") == fingerprint:
            return True
    noted = entry.get(kept_state(part))
    return finished and noted is not None and target.get("fingerprint") == noted
