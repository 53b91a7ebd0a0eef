"""Files are held by links while somebody replaces them all the time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hybridrag.backends.json.snapshot import linked

NAME = "kv_store_full_docs.json"
WRITER = """
import os, sys
while True:
    with open(sys.argv[1] + ".new", "w") as file:
        file.write('{"doc-1": {"content": "text"}}')
    os.replace(sys.argv[1] + ".new", sys.argv[1])
"""


def test_a_file_that_is_replaced_at_that_moment_is_held_all_the_same(tmp_path: Path) -> None:
    """The system refuses about every 200th link of such a file."""
    (tmp_path / NAME).write_text("{}", encoding="utf-8")
    with subprocess.Popen([sys.executable, "-c", WRITER, tmp_path / NAME]) as writer:
        try:
            for _ in range(3000):
                with linked(tmp_path, [NAME]) as held:
                    assert (held / NAME).read_bytes().startswith(b"{")
        finally:
            writer.kill()
