"""What every engine promises, asked of each in the same words: see `tests.support.stand`."""

from __future__ import annotations

from pathlib import Path

import pytest

from hybridrag.actions.one_place import refuse_one_place
from hybridrag.errors import PlanRefused
from hybridrag.model.address import place_facts, shared
from tests.support.stand import ENGINES, Stand, stand_of


@pytest.fixture(params=ENGINES)
def stand(request: pytest.FixtureRequest, tmp_path: Path) -> Stand:
    return stand_of(request.param, request, tmp_path)


# --- places -------------------------------------------------------------------------------------------


async def test_a_place_has_one_address_whatever_entry_leads_there(stand: Stand) -> None:
    """Before anything was written there and after it; other workspaces, databases and folders have others."""
    for written in (False, True):
        if written:
            await stand.place().identify()
        mine = await stand.place().addresses()
        assert set(mine) == stand.slots
        for way in stand.ways:
            assert set(shared(mine, await way().addresses())) == stand.slots
        for other in stand.elsewhere:
            assert shared(mine, await other().addresses()) == []
        facts, _ = await stand.place().observe()
        assert {name: fact for name, fact in facts.items() if name.startswith("place/")} == place_facts(mine)


async def test_nothing_is_written_to_the_source_under_another_name(stand: Stand) -> None:
    """The last look before a copy, also through a way that no name gives away; another place is free."""
    for way in (*stand.ways, *stand.tunnels):
        with pytest.raises(PlanRefused, match=r"are one place .*nothing was copied"):
            await refuse_one_place(stand.part(stand.place(), way()))
    await refuse_one_place(stand.part(stand.place(), stand.elsewhere[0]()))
