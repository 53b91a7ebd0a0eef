"""Build the wheel and look inside: only the package, all of it, its marker and its licence."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main() -> int:
    source = ROOT / "reconciler"
    wanted = {str(path.relative_to(source)) for path in source.rglob("*.py")} | {"hybridrag/py.typed"}
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "build", "--wheel", "--outdir", folder, str(ROOT)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        wheel = next(Path(folder).glob("*.whl"))
        names = set(zipfile.ZipFile(wheel).namelist())
    inside = {name for name in names if ".dist-info/" not in name}
    if inside != wanted:
        print("only in the wheel:", sorted(inside - wanted), "missing from it:", sorted(wanted - inside))
        return 1
    if not any(name.endswith("LICENSE") for name in names):
        print("the wheel has no licence")
        return 1
    print(f"{wheel.name}: {len(inside)} files, as it should be")
    return 0


if __name__ == "__main__":
    sys.exit(main())
