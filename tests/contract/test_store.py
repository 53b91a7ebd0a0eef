"""What every engine promises, asked of each in the same words: see `tests.support.stand`."""

from __future__ import annotations

from pathlib import Path

import pytest

from hybridrag.actions.one_place import refuse_one_place
from hybridrag.errors import PlanRefused
from hybridrag.model.address import place_facts, shared
from hybridrag.model.data import streams_of
from hybridrag.model.marks import MarkState
from hybridrag.model.ports import Store
from tests.support.stand import ENGINES, FIRST, Stand, stand_of

SELDOM = [
    pytest.param(engine, marks=pytest.mark.slow) if engine in ("age", "milvus") else engine
    for engine in ENGINES
]
"""For tests that have LightRAG make its schema several times."""


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


# --- marks --------------------------------------------------------------------------------------------

COPIED, VERIFIED, SWITCHED = MarkState.COPIED, MarkState.VERIFIED, MarkState.SWITCHED


async def _refused(stand: Stand, store: Store, words: str, *states: MarkState) -> None:
    """Marks that may not be made, by this migration; and what was there stays."""
    before = await stand.state(store)
    for state in states:
        with pytest.raises(PlanRefused, match=words):
            await store.mark(FIRST, state)
    assert await stand.state(store) == before


async def _not_patched(store: Store, words: str, migration: str = FIRST) -> None:
    if (mending := store.mending()) is not None:
        with pytest.raises(PlanRefused, match=words):
            async with mending.open(migration):
                pass


async def _a_glance_reads_no_row(stand: Stand, store: Store) -> None:
    """It tells counts and mark as the exact look does."""
    facts, _ = await store.observe()
    with stand.no_rows():
        (glance,) = await store.glance()
    counts = {name: facts[f"records/{name}"] for name in streams_of(stand.slots)}
    assert {name: glance.records[name] for name in counts} == counts
    assert glance.problem is None
    assert glance.state in (facts["state"], None)


async def test_words_for_a_server_are_its_engines(stand: Stand) -> None:
    facts, _ = await stand.backend.observe()
    words = stand.backend.words(facts)
    product = {"json": "", "milvus": "Milvus "}.get(stand.engine, "PostgreSQL ")
    assert bool(words) == bool(product)
    assert all(each.startswith((product, "pgvector ", "Apache AGE ")) for each in words)
    assert stand.backend.words({"reachable": False}) == ()


async def test_marks_go_their_way_and_no_other(stand: Stand) -> None:
    """Only what was verified is switched to, what serves is neither changed nor marked anew, and twice is as good as once."""
    store = stand.place()
    with pytest.raises(PlanRefused, match="taken over by another migration"):
        await store.withdraw(FIRST)
    await stand.copy(store, limit=3)
    await _refused(stand, store, "only copying; it cannot become", VERIFIED, SWITCHED)
    await _not_patched(store, "it is not finished")
    await store.withdraw(FIRST)
    assert await stand.state(store) == "copying"

    await stand.copy(store)
    await _refused(stand, store, "only copied; it cannot become switched", SWITCHED)
    with pytest.raises(PlanRefused, match="taken over by another migration"):
        await store.mark("db1-b", VERIFIED)
    for state in (COPIED, VERIFIED, COPIED, VERIFIED, VERIFIED):
        await store.mark(FIRST, state)
        assert await stand.state(store) == state.value
    await _not_patched(store, "taken over", "db1-b")

    await store.mark(FIRST, SWITCHED)
    await store.mark(FIRST, SWITCHED)
    await _refused(stand, store, "was switched to; it cannot become", COPIED, VERIFIED)
    await _not_patched(store, "it serves")
    for migration in (FIRST, "db1-b", "db2-a"):
        with pytest.raises(
            PlanRefused, match=r"in use by an earlier migration that was completed|is not ours"
        ):
            await stand.copy(store, migration)
    assert (await stand.verified(store)).equal
    await _a_glance_reads_no_row(stand, store)

    for _ in range(2):
        await store.withdraw(FIRST)
        assert await stand.state(store) == "verified"
    await store.mark(FIRST, SWITCHED)
    assert (await stand.verified(store)).equal


@pytest.mark.parametrize("stand", SELDOM, indirect=True)
async def test_a_copy_goes_on_only_for_the_state_that_it_counts(stand: Stand) -> None:
    """The same migration from its checkpoint; another state of the source, and another migration, from the start."""
    store = stand.place()
    name = streams_of(stand.slots)[0]
    written = await stand.copy(store, limit=3)
    async with store.open_writer(FIRST, "fingerprint") as writer:
        assert await writer.prepare() == {name: written}
    async with store.open_writer(FIRST, "another state") as writer:
        assert await writer.prepare() == {}
    whole = await stand.copy(store, fingerprint="another state")
    report = await stand.verified(store)
    assert report.equal, report.listed
    assert report.records == whole
    with pytest.raises(PlanRefused, match="unfinished copy of another database"):
        await stand.copy(store, "db2-a")
    assert await stand.copy(store, "db1-b") == whole
    assert (await store.observe())[0]["migration"] == "db1-b"


@pytest.mark.parametrize("stand", SELDOM, indirect=True)
async def test_a_kept_copy_gives_way_where_it_is_named_and_is_taken_back_by_its_own(stand: Stand) -> None:
    """The same state of the source may come twice: what was switched to is never taken for a copy to go on with."""
    store = stand.place()
    whole = await stand.copy(store)
    for state in (VERIFIED, SWITCHED):
        await store.mark(FIRST, state)
    if (mending := store.mending()) is not None:
        with pytest.raises(PlanRefused, match="taken over"):
            await mending.reclaim("db2-a")
        await mending.reclaim("db1-b")
        facts, _ = await store.observe()
        assert (facts["migration"], facts["state"]) == ("db1-b", "copied")
        await mending.reclaim("db1-b")  # once more, as after a kill
        await store.mark("db1-b", VERIFIED)
        await store.mark("db1-b", SWITCHED)
    kept = str((await store.observe())[0]["migration"])
    assert await stand.copy(store, kept, replaces=kept) == whole
    assert await stand.state(store) == "copied"
    assert (await stand.verified(store, kept)).equal


async def test_single_records_are_put_and_removed_until_it_serves(stand: Stand) -> None:
    """From then on the copy is unverified, until it is verified again."""
    store = stand.place()
    mending = store.mending()
    if mending is None:
        pytest.skip("files are written whole")
    await stand.copy(store)
    await store.mark(FIRST, VERIFIED)
    name = streams_of(stand.slots)[-1]
    batch = await anext(aiter(stand.source.reader().read(name, rows=5)))
    async with mending.open(FIRST) as patcher:
        await patcher.remove(name, batch.keys)
        await patcher.remove(name, batch.keys)
        assert len(await mending.fetch(name, batch.keys)) == 0
        assert await stand.state(store) == "copied"
        await patcher.put(batch)
        await patcher.put(batch)
    assert len(await mending.fetch(name, batch.keys)) == len(batch)
    assert (await stand.verified(store)).equal
