"""Provision: create, start, change or repair the server that the spec declares."""

from __future__ import annotations

from hybridrag.errors import PlanRefused
from hybridrag.model.plan import NEEDS_CONSENT
from hybridrag.model.ports import Backend

from .base import Context


class Provision:
    verb = "provision"

    async def check(self, context: Context, *, ran: bool) -> str | None:
        facts, details = await _server(context).observe()
        if not facts.get("reachable") or facts.get("change"):
            return None
        pid = details.get("pid")
        return f"running{f' (pid {pid})' if pid else ''}"

    async def do(self, context: Context) -> None:
        for hazard in context.step.hazards:
            if hazard.kind in NEEDS_CONSENT and hazard.kind not in context.allowed:
                raise PlanRefused(
                    f'backend "{_server(context).name}": {hazard.detail}',
                    hint=f"if that is meant: hybridrag apply --allow {hazard.kind.value}",
                )
        await _server(context).provision()


def _server(context: Context) -> Backend:
    if context.backend is None:
        raise RuntimeError(f"step {context.step.id} is about no backend")
    return context.backend
