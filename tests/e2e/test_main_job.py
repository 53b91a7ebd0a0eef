"""The main job, from a shell: plan, apply, and nothing left to do."""

from __future__ import annotations

from tests.conftest import Project, digests


def test_plan_apply_and_a_second_apply_says_no_changes(project: Project) -> None:
    """A JSON database is planned, moved, verified and switched; the source is untouched; twice is once."""
    before = digests(project.data)
    assert "7 steps" in project.ok("plan") or "6 steps" in project.ok("plan")
    assert "0 missing, 0 extra, 0 different" in project.ok("apply", "--auto-approve")
    assert "No changes" in project.ok("apply", "--auto-approve")
    assert "notes pg healthy" in " ".join(project.ok("status").split())
    assert "equal" in project.ok("verify", "notes")
    assert digests(project.data) == before
