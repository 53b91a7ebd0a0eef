"""Pure planning, and the plan file."""

from __future__ import annotations

from .planfile import PlanFile, load, refuse_if_stale, save, to_file, to_plan
from .planning import in_use, make_plan, provision_plan

__all__ = [
    "PlanFile",
    "in_use",
    "load",
    "make_plan",
    "provision_plan",
    "refuse_if_stale",
    "save",
    "to_file",
    "to_plan",
]
