"""hybridrag: Terraform for LightRAG storage.

    env = hybridrag.load("hybridrag.yaml")
    plan = await hybridrag.plan(env)
    run = await hybridrag.apply(plan, on_event=print)
    async with hybridrag.open(env, "notes") as rag: ...

Everything is imported on first use, so that `import hybridrag` and `hybridrag --help` stay quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hybridrag.api import apply, connect, load, open, plan

__version__ = "0.1.0"
__all__ = ["__version__", "apply", "connect", "load", "open", "plan"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from hybridrag import api

        return getattr(api, name)
    raise AttributeError(f"module 'hybridrag' has no attribute {name!r}")
