"""A stand-in for an embedding model: feature hashing, deterministic, free, offline.

A real project names its own function here, for example one that calls its embedding service. It takes a list
of texts and returns an array of shape (texts, dimensions).
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

import numpy as np
import numpy.typing as npt

DIM = 96


def vector(text: str, dim: int = DIM) -> npt.NDArray[np.float32]:
    """Signed word hashes plus a little noise of the text's own, so that no two texts tie. Not normalised."""
    total = np.zeros(dim, np.float32)
    for word in re.findall(r"\w+", text.lower()):
        number = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
        total[number % dim] += 1.0 if number >> 63 else -1.0
        total[(number >> 20) % dim] += 0.5
    seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
    noise = np.random.default_rng(seed).standard_normal(dim).astype(np.float32)
    return total + noise * np.float32(0.15 * max(1.0, float(np.linalg.norm(total))) / dim**0.5)


async def embed(texts: list[str], **_: Any) -> npt.NDArray[np.float32]:
    """What `embedding.function` in the spec points at."""
    return np.stack([vector(text) for text in texts])
