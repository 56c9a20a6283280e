"""
The agent dies with any record of a swap, or of a return, as its last durable one, and comes back on the same plant.

Goal: it looks before it does anything, the run ends rightly, no route is changed twice, the incident stays the same.
Method: one undisturbed course tells the numbers of its records; then the course is run once for each number, with a disk
that ends the process there, for each order in which executor and loop may have their turn.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest

from agent.config import Config
from agent.core.records import IncidentOpened, Record, RunEnded, RunOpened, StepIntended
from agent.core.run import RunState
from agent.runtime.codec import from_plain
from agent.runtime.recall import recall
from drills.vdisk import Crash, SimFaults
from tests.fakes.virtual_site import (
    START_S,
    RunningAgent,
    Timing,
    VirtualSite,
    pass_time,
    same,
    site_config,
    virtually,
)

QUIET_S: Final = 5.0
AWAY_S: Final = 3.0  # from death to the next start
HOME_S: Final = 400.0

TIMINGS: Final = {
    "as it comes": Timing(),
    "the route moves before the loop hears of the acceptance": Timing(accepted_after_s=0.01, returns_after_s=0.05),
    "the route moves after the agent's death": Timing(moves_after_s=0.5),
}
THERE: Final = "add default via 192.0.2.129 dev eth2 metric 90 (ours)"
BACK: Final = "remove default via 192.0.2.129 dev eth2 metric 90 (ours)"


# How the process ends: with a record's whole group durable, or in the middle of that group, just before the record.
ENDS: Final = {"after": lambda seq: SimFaults(crash_at=seq), "before": lambda seq: SimFaults(torn_at=seq)}


CASES: Final = [*((name, "before") for name in TIMINGS), ("as it comes", "after")]
REBOOTS: Final = ("as it comes", "the route moves after the agent's death")


def timing(name: str) -> Timing:
    """Return the named timing, an own one."""
    return replace(TIMINGS[name])


async def swap(site: VirtualSite, life: RunningAgent) -> None:
    """Let the primary line die, and wait for the arrangement that follows."""
    await pass_time(QUIET_S)
    site.plant.kill("wan1")
    await life.until(lambda life: life.durable.arrangements != {})


async def come_home(site: VirtualSite, life: RunningAgent) -> None:
    """Let the primary line come back, and wait for the traffic to follow."""
    site.plant.mend("wan1")
    await life.until(lambda life: life.durable.arrangements == {}, HOME_S)
    await pass_time(2.0)


@cache
def course(name: str) -> tuple[range, range]:
    """Return the numbers of the records of an undisturbed swap, and of the return after it; one more than the run has."""

    async def main() -> tuple[range, range]:
        site = VirtualSite(sound_site(), timing=timing(name))
        async with site.agent() as life:
            await swap(site, life)
            await pass_time(1.0)
            await come_home(site, life)
        kinds = [type(from_plain(Record, json.loads(entry.body)).body) for entry in site.disk.entries]
        opened = [seq for seq, kind in enumerate(kinds, 1) if kind is RunOpened]
        ended = [seq for seq, kind in enumerate(kinds, 1) if kind is RunEnded]
        assert len(opened) == len(ended) == 2
        return range(opened[0], ended[0] + 2), range(opened[1], ended[1] + 1)

    return virtually(main())


@cache
def sound_site() -> Config:
    """Return a site with the shipped defaults."""
    with tempfile.TemporaryDirectory() as folder:
        return site_config(Path(folder))


def opened_incidents(site: VirtualSite) -> list[IncidentOpened]:
    """Return every incident that was ever opened, as the disk has it."""
    return [body for record in journalled(site) if isinstance(body := record.body, IncidentOpened)]


def journalled(site: VirtualSite) -> list[Record]:
    """Return every record on the disk."""
    return [from_plain(Record, json.loads(entry.body)) for entry in site.disk.entries]


def assert_looked_first(life: RunningAgent, interrupted: frozenset[str]) -> None:
    """Assert that no command left before executor and plant had been asked what became of those that were interrupted."""
    for index, (what, key) in enumerate(life.asked):
        if what == "perform" and key in interrupted:
            before = life.asked[:index]
            assert ("outcome", key) in before, life.asked
            assert any(kind == "look" and "path.line" in points for kind, points in before), life.asked


def assert_replays(site: VirtualSite, life: RunningAgent) -> None:
    """Assert that the journal, replayed, gives the state that the agent had."""
    opened = site.disk.open()
    assert same(recall(opened.checkpoint, opened.bodies), life.durable)


def assert_ended_rightly(life: RunningAgent) -> None:
    """
    Assert that every run ended as done, but for one that had touched nothing: whether the primary has been good for long
    enough is not known after a restart, so that it ends with that as its reason, counts for nothing, and another follows.
    """
    assert life.durable.lockouts == {}
    for run in life.durable.runs.values():
        if run.state is not RunState.DONE:
            assert (run.state, run.sends) == (RunState.UNDONE, None)
            assert "wan1 has been good for" in run.reason
            assert run.id not in life.durable.spent["standby.return"]


async def crashed(site: VirtualSite, seq: int, end: Callable[[int], SimFaults], *, in_return: bool) -> frozenset[str]:
    """Live until the process ends with record *seq*; return the keys whose intent it left behind."""
    site.disk.faults = end(seq)
    async with site.agent() as life:
        with contextlib.suppress(Crash):
            await swap(site, life)
            if in_return:
                await pass_time(1.0)
                await come_home(site, life)
        await site.until_crash(life)
    site.disk.open()  # cuts what the crash left half-written
    return frozenset(r.body.request.key for r in journalled(site) if isinstance(r.body, StepIntended))


@pytest.mark.parametrize(("name", "end"), CASES)
def test_a_swap_that_is_cut_anywhere_ends_on_the_standby_line_with_one_change_of_route(name: str, end: str) -> None:
    async def main(seq: int) -> None:
        site = VirtualSite(sound_site(), timing=timing(name))
        interrupted = await crashed(site, seq, ENDS[end], in_return=False)
        await pass_time(AWAY_S)
        async with site.agent() as life:
            await life.until(lambda life: life.durable.arrangements != {})
            await pass_time(5.0)

            assert_looked_first(life, interrupted)
            assert list(site.table.changes) == [THERE]
            assert {run.state for run in life.durable.runs.values()} == {RunState.DONE}
            assert life.durable.lockouts == {}
            (incident,) = life.durable.open_incidents()
            (first,) = opened_incidents(site)
            assert incident.id == first.id == "I1"
            assert incident.opened_at.boot_s < START_S + QUIET_S + 1.0
            await come_home(site, life)
            assert list(site.table.changes) == [THERE, BACK]
        assert_replays(site, life)

    for seq in course(name)[0]:
        tried(main, seq)


@pytest.mark.parametrize(("name", "end"), CASES)
def test_a_return_that_is_cut_anywhere_ends_on_the_primary_line_with_one_change_of_route(name: str, end: str) -> None:
    async def main(seq: int) -> None:
        site = VirtualSite(sound_site(), timing=timing(name))
        interrupted = await crashed(site, seq, ENDS[end], in_return=True)
        await pass_time(AWAY_S)
        async with site.agent() as life:
            await life.until(lambda life: life.durable.arrangements == {} and not life.durable.open_runs(), HOME_S)
            await pass_time(5.0)

            assert_looked_first(life, interrupted)
            assert list(site.table.changes) == [THERE, BACK]
            assert_ended_rightly(life)
            assert life.durable.open_incidents() == []
            assert [one.id for one in opened_incidents(site)] == ["I1"]
        assert_replays(site, life)

    for seq in course(name)[1]:
        tried(main, seq)


@pytest.mark.parametrize("name", REBOOTS)
def test_a_reboot_anywhere_in_a_swap_ends_on_the_standby_line(name: str) -> None:
    """The kernel forgets our route over a reboot, so that what a record says of it proves nothing any more."""

    async def main(seq: int) -> None:
        site = VirtualSite(sound_site(), timing=timing(name))
        interrupted = await crashed(site, seq, ENDS["before"], in_return=False)
        await pass_time(AWAY_S)
        site.reboot()
        before = list(site.table.changes)
        async with site.agent() as life:
            started_s = site.clock.now().boot_s
            await life.until(lambda _: site.plant.reaches_hq())
            await pass_time(60.0)

            assert_looked_first(life, interrupted)
            assert list(site.table.changes) == [*before, THERE]
            assert {run.state for run in life.durable.runs.values()} == {RunState.DONE}
            assert life.durable.arrangements["standby"].line == "wan2"
            assert life.durable.lockouts == {}
            assert [one.id for one in opened_incidents(site)] == ["I1"]
            commands = [r.at.boot_s for r in life.records if isinstance(r.body, StepIntended)]
            assert min(commands) >= started_s + site.config.site.boot_guard_s
            await come_home(site, life)
        assert_replays(site, life)

    for seq in course(name)[0]:
        tried(main, seq)


@pytest.mark.parametrize("name", REBOOTS)
def test_a_reboot_anywhere_in_a_return_ends_on_the_primary_line(name: str) -> None:
    async def main(seq: int) -> None:
        site = VirtualSite(sound_site(), timing=timing(name))
        interrupted = await crashed(site, seq, ENDS["before"], in_return=True)
        await pass_time(AWAY_S)
        site.reboot()
        before = list(site.table.changes)
        async with site.agent() as life:
            await pass_time(HOME_S)

            assert_looked_first(life, interrupted)
            assert list(site.table.changes) == before
            assert site.plant.way() == "wan1"
            assert life.durable.arrangements == {}
            assert life.durable.open_runs() == []
            assert life.durable.open_incidents() == []
            assert_ended_rightly(life)
        assert_replays(site, life)

    for seq in course(name)[1]:
        tried(main, seq)


def tried(main: Callable[[int], Coroutine[Any, Any, None]], seq: int) -> None:
    """Run *main* for one record, and say which it was when it fails."""
    try:
        virtually(main(seq))
    except BaseException as error:
        error.add_note(f"the process ended with record {seq}")
        raise
