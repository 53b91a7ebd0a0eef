"""Pure planning, and the plan file."""

from __future__ import annotations

from .parts import JSON, Part, in_use, parts_of, store_thing
from .planfile import PlanFile, load, refuse_if_other, refuse_if_stale, save, to_file, to_plan
from .planning import make_plan, provision_plan

__all__ = [
    "JSON",
    "Part",
    "PlanFile",
    "in_use",
    "load",
    "make_plan",
    "parts_of",
    "provision_plan",
    "refuse_if_other",
    "refuse_if_stale",
    "save",
    "store_thing",
    "to_file",
    "to_plan",
]
