"""Compare every generated file with what the models say now; `--write` brings them up to date (`make schemas`)."""

from __future__ import annotations

import sys
from pathlib import Path

from hybridrag.render import contract
from hybridrag.spec import schema

FOLDER = Path(__file__).parents[2] / "schemas"


def main(write: bool) -> int:
    wanted = {**contract.texts(), "environment.schema.json": schema.text()}
    stale = []
    for name, text in wanted.items():
        path = FOLDER / name
        if not path.is_file() or path.read_text("utf-8") != text:
            stale.append(name)
            if write:
                path.write_text(text, encoding="utf-8")
    extra = sorted({path.name for path in FOLDER.glob("*.json")} - wanted.keys())
    print("generated files:", ("written " if write else "stale ") + ", ".join(stale) if stale else "fresh")
    if extra:
        print("nobody generates:", ", ".join(extra))
    if stale and not write:
        print("run: make schemas")
    return 1 if extra or (stale and not write) else 0


if __name__ == "__main__":
    sys.exit(main("--write" in sys.argv[1:]))
