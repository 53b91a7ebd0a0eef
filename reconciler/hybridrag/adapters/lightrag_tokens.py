"""Which tokenizer cuts the documents of a database. Chosen once, so that a document is cut the same in every run."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from .lightrag_instance import word_tokenizer

_TIKTOKEN, _WORDS = "tiktoken", "words"
_WAIT_S = 8.0


def tokenizer(choice: Path) -> tuple[Any, str]:
    """LightRAG's tokenizer, and a line for the log. `choice` is the file that remembers which one."""
    chosen = choice.read_text("utf-8").strip() if choice.is_file() else None
    loaded = None if chosen == _WORDS else _tiktoken()
    if chosen is None:
        choice.write_text(_WORDS if loaded is None else _TIKTOKEN, "utf-8")
    if loaded is not None:
        return loaded, "documents are cut by tiktoken's tokens"
    again = f'; delete "{choice}" to try again' if chosen != _TIKTOKEN else ""
    return word_tokenizer(), f"tiktoken's table is not to be had: documents are cut by words{again}"


def _tiktoken() -> Any:
    """LightRAG's own default, unless its table takes longer than some seconds to come."""
    found: list[Any] = []

    def load() -> None:
        from lightrag.utils import TiktokenTokenizer

        try:
            found.append(TiktokenTokenizer())
        except Exception:  # no network, no package: whatever it is, the table is not to be had
            return

    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    thread.join(_WAIT_S)
    return found[0] if found else None
