"""The step that creates, starts, changes or repairs a server, from what was observed of it. Pure."""

from __future__ import annotations

from hybridrag.errors import BackendUnavailable
from hybridrag.model.facts import Facts
from hybridrag.model.plan import Hazard, HazardKind, Step
from hybridrag.model.wanted import Place


def provision(place: Place, server: Facts) -> list[Step]:
    """Nothing when the server runs as declared; raises BackendUnavailable when it cannot be made so."""
    change = server.get("change")
    if not place.provisioned or (server.get("reachable") and not change):
        return []
    if change == "refused":
        way_out = server.get("way_out")
        raise BackendUnavailable(
            f'backend "{place.name}": {server.get("refusal")}', hint=str(way_out) if way_out else None
        )
    state = str(server.get("state") or "absent")
    does = {"stopped": "start", "absent": "create and start"}.get(state, "repair and start")
    reason = f'backend "{place.name}" is {state}'
    if state == "running" and not server.get("reachable"):
        reason = f"it runs, but: {server.get('problem')}"
    if change:
        does = {"update": "change", "replace": "replace"}[str(change)]
    if server.get("differs"):
        differs = str(server.get("differs"))
        reason = differs if state == "running" else f"{reason}; {differs}"
    hazards = []
    if server.get("restarts"):
        restart = "the server restarts, which closes open connections; its data is kept"
        hazards.append(Hazard(kind=HazardKind.RESTART, detail=restart))
    if server.get("leaves"):
        hazards.append(Hazard(kind=HazardKind.OTHER_DATA, detail=str(server.get("leaves"))))
    what = server.get("server") or f"{server.get('provision') or 'embedded'} {place.type} server"
    return [
        Step(
            id=f"provision.{place.name}",
            verb="provision",
            target=place.name,
            summary=f"{does} the {what}{' (its volume stays)' if change == 'replace' else ''}",
            reason=reason,
            estimate_s=3.0 if server.get("provision") == "docker" else 1.0,
            hazards=tuple(hazards),
        )
    ]
