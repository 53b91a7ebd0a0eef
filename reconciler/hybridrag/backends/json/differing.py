"""What differs between two states of a file, found by its raw bytes: only records that differ are ever parsed.

What differs is written as two small databases, as it was and as it is, in LightRAG's own form. They are read by the
readers that read whole databases, so a record means the same there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pybase64

from .files import identity
from .pieces import Pieces, Raw, Unknown, check, check_each, pieces_of

MOST = 50_000
"""Records that may differ in a file; beyond, reading all of it costs little more."""


@dataclass(slots=True)
class Known:
    """What was found out about files that do not change any more, by their identity: where their records stand."""

    pieces: dict[str, Pieces] = field(default_factory=dict)

    def look(self, path: Path) -> Pieces:
        """The file's records, each parsed once by itself. Raises Unknown."""
        name = identity(path)
        if name not in self.pieces:
            with Raw(path) as raw:
                found = pieces_of(raw, path)
                check_each(raw, path, found)
            self.pieces[name] = found
        return self.pieces[name]

    def put(self, path: Path, found: Pieces) -> None:
        """Of a file whose every record was parsed, or is the same as one that was."""
        self.pieces[identity(path)] = found


def same(before: Path, after: Path) -> bool:
    """Whether a file was not written since it was linked; neither being there is the same, too."""
    if not before.is_file() or not after.is_file():
        return not before.is_file() and not after.is_file()
    return identity(before) == identity(after)


def write_differing(before: Path, after: Path, known: Known, was: Path, now: Path) -> None:
    """Put the records of two states of a file that differ into files of the same name in `was` and `now`.

    Raises Unknown where only reading both files as a whole can tell.
    """
    if not before.is_file() or not after.is_file():
        raise Unknown("the file is not there in both states")
    old = known.look(before)
    with Raw(before) as first, Raw(after) as second:
        new = pieces_of(second, after)
        if (old.head, old.tail, old.row) != (new.head, new.tail, new.row):
            raise Unknown("the file begins or ends otherwise than before")
        gone, come = _apart(first, old, second, new)
        if max(len(gone), len(come)) > MOST:
            raise Unknown("too much of it differs")
        for index in come:
            if not after.name.endswith(".graphml"):
                check(second.read(*_span(new, index)))
        _write(first, old, gone, was / before.name)
        _write(second, new, come, now / after.name)
    known.put(after, new)


def _span(pieces: Pieces, index: int) -> tuple[int, int]:
    return pieces.bounds[2 * index], pieces.bounds[2 * index + 1]


def _apart(first: Raw, old: Pieces, second: Raw, new: Pieces) -> tuple[list[int], list[int]]:
    """(records of the old file, records of the new file) that the other one does not hold like this."""
    kept = bytearray(len(old))
    come: list[int] = []
    pairs: list[tuple[int, int]] = []
    names = list(new.places)
    for group in new.groups():
        for index, text in zip(group, new.texts(second, group), strict=True):
            place = old.places.get(names[index])
            span = None if place is None else _span(old, place)
            if span is None or span[1] - span[0] != len(text) or first.read(*span) != text:
                come.append(index)
            elif place is not None:
                pairs.append((place, index))
    for pair in pairs if not new.row else _same_vectors(first, old, second, new, pairs, come):
        kept[pair[0]] = 1
    come.sort()
    return [index for index in range(len(old)) if not kept[index]], come


def _same_vectors(
    first: Raw, old: Pieces, second: Raw, new: Pieces, pairs: list[tuple[int, int]], come: list[int]
) -> list[tuple[int, int]]:
    """Those pairs whose rows of the matrix are the same as well; the others are added to `come`."""
    equal: list[tuple[int, int]] = []
    most = max(1, (1 << 20) // new.row)
    at = 0
    while at < len(pairs):
        stop = at + 1
        while stop < len(pairs) and stop - at < most and pairs[stop] == _next(pairs[stop - 1]):
            stop += 1
        run, size = pairs[at:stop], new.row
        one = old.rows(first, run[0][0], run[-1][0] + 1)
        other = new.rows(second, run[0][1], run[-1][1] + 1)
        if one == other:
            equal += run
        else:
            for number, pair in enumerate(run):
                place = slice(number * size, (number + 1) * size)
                if one[place] == other[place]:
                    equal.append(pair)
                else:
                    come.append(pair[1])
        at = stop
    return equal


def _next(pair: tuple[int, int]) -> tuple[int, int]:
    return pair[0] + 1, pair[1] + 1


def _write(raw: Raw, pieces: Pieces, chosen: list[int], path: Path) -> None:
    """Some records as a file of the same kind; none where there are none."""
    if not chosen:
        return
    with path.open("wb") as file:
        file.write(pieces.head)
        for number, index in enumerate(chosen):
            file.write(pieces.glue if number else b"")
            file.write(raw.read(*_span(pieces, index)))
        if pieces.row:
            file.write(b'], "matrix": "')
            rows = b"".join(pieces.rows(raw, index, index + 1) for index in chosen)
            file.write(pybase64.b64encode(rows))
        file.write(pieces.tail)
