"""`python -m hybridrag`."""

from __future__ import annotations

from hybridrag.cli import main

if __name__ == "__main__":
    main(prog_name="hybridrag")
