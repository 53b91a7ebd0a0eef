"""The folder of a database that `hybridrag db create` registers: usable, and of which dimensions."""

from __future__ import annotations

from pathlib import Path

from hybridrag.errors import NotFound, SpecInvalid


def dimensions(folder: Path) -> set[int] | None:
    """What the vector files of a JSON database say; None where there is no database and one may begin.

    Raises NotFound for a folder that holds something else.
    """
    from hybridrag.backends.json import files

    try:
        if not folder.exists() or (folder.is_dir() and files.nothing_of_lightrag(folder)):
            return None
    except OSError as error:
        raise unusable(folder, error) from None
    vectors = [path for path in files.present(folder) if path.name.startswith("vdb_") and path.is_file()]
    return {dim for path in vectors if (dim := files.vector_dim(path)) is not None}


def unusable(folder: Path, error: OSError) -> NotFound:
    return NotFound(
        f'the folder "{folder}" cannot be used: {error.strerror}',
        hint="give another --path, or correct this one",
    )


def dimension(folder: Path, found: set[int] | None, said: int | None) -> int:
    if len(found or ()) > 1:
        listed = ", ".join(map(str, sorted(found or ())))
        raise SpecInvalid(f'the vector files in "{folder}" disagree on their dimensions ({listed})')
    real = next(iter(found or ()), None)
    if real is not None and said not in (None, real):
        raise SpecInvalid(
            f'the vectors in "{folder}" have {real} dimensions, not {said}', hint="leave --embedding-dim out"
        )
    if real is None and said is None:
        raise SpecInvalid(
            f'the length of an embedding is not known: "{folder}" holds no vectors',
            hint="give --embedding-dim N, as the embedding model says (1536 for text-embedding-3-small)",
        )
    return int(real or said or 0)
