"""Provision: create and start the server that the spec declares."""

from __future__ import annotations

from .base import Context


class Provision:
    verb = "provision"

    async def check(self, context: Context, *, ran: bool) -> str | None:
        facts, details = await context.backend.observe()
        if not facts.get("reachable"):
            return None
        pid = details.get("pid")
        return f"running{f' (pid {pid})' if pid else ''}"

    async def do(self, context: Context) -> None:
        await context.backend.provision()
