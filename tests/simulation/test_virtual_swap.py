"""A whole agent in virtual time: swap, return, budget, a failing disk, suspends, and a day of random faults."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Final

import pytest

from agent.core.apply import apply
from agent.core.model import HoldAsked, ReleaseAsked, ResetAsked
from agent.core.records import (
    ArrangementEntered,
    ArrangementLeft,
    ArrangementLost,
    GapSeen,
    JournalTrouble,
    RunEnded,
    RunLookedAgain,
    RunOpened,
)
from agent.core.run import RunState
from agent.core.state import Durable
from agent.runtime.journal import JournalLimits
from agent.runtime.recall import recall
from drills.vdisk import SimFaults
from tests.fakes.virtual_plant import LineFault
from tests.fakes.virtual_site import (
    SITE_ROUTES,
    RunningAgent,
    VirtualSite,
    pass_time,
    same,
    site_config,
    virtually,
)

QUIET_S: Final = 40.0  # the boot guard is over by then
HOME_S: Final = 400.0
HOUR_S: Final = 3600.0
DAY_S: Final = 24 * HOUR_S
EVERY_S: Final = 150.0  # from one trouble of the day to the next, on average
THERE: Final = "add default via 192.0.2.129 dev eth2 metric 90 (ours)"
BACK: Final = "remove default via 192.0.2.129 dev eth2 metric 90 (ours)"


def on_standby(life: RunningAgent) -> bool:
    """Tell whether the site is on its standby line."""
    return life.durable.arrangements != {}


def at_home(life: RunningAgent) -> bool:
    """Tell whether the site is in its normal arrangement, with nothing under way."""
    return life.durable.arrangements == {} and not life.durable.open_runs()


async def swap_and_return(site: VirtualSite, life: RunningAgent) -> None:
    """Let the primary die and come back, and wait until the traffic has followed both."""
    site.plant.kill("wan1")
    await life.until(on_standby)
    await pass_time(2.0)
    site.plant.mend("wan1")
    await life.until(at_home, HOME_S)
    await pass_time(2.0)


def test_a_silent_death_of_the_primary_moves_traffic_within_half_a_second_and_back_when_it_is_good_again(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        site = VirtualSite(site_config(tmp_path))
        loop = asyncio.get_running_loop()
        async with site.agent() as life:
            await pass_time(QUIET_S)
            died_at = loop.time()
            site.plant.kill("wan1")
            await life.until(lambda _: site.plant.reaches_hq())
            assert loop.time() - died_at < 0.5
            await life.until(on_standby)
            (incident,) = life.durable.open_incidents()
            assert incident.cause.candidates == ("line:wan1:access",)
            await pass_time(30.0)
            site.plant.mend("wan1")
            mended_at = loop.time()
            await life.until(at_home, HOME_S)

            assert 60.0 < loop.time() - mended_at < 66.0
            assert list(site.table.changes) == [THERE, BACK]
            assert site.table.seen() == SITE_ROUTES
            assert life.durable.open_incidents() == []
            assert [run.state for run in life.durable.runs.values()] == [RunState.DONE, RunState.DONE]

    virtually(main())


def test_the_shipped_defaults_freeze_the_third_swap_until_a_person_resets_it(tmp_path: Path) -> None:
    async def main() -> None:
        site = VirtualSite(site_config(tmp_path))
        async with site.agent() as life:
            await pass_time(QUIET_S)
            for _ in range(2):
                await swap_and_return(site, life)
            assert len(life.bodies(ArrangementLeft)) == 2
            before = list(site.table.changes)

            site.plant.kill("wan1")
            await pass_time(60.0)

            assert list(site.table.changes) == before
            assert life.durable.refusals["standby"].code == "locked"
            assert "2 runs in 60 min" in life.durable.lockouts["standby"].reason
            (incident,) = life.durable.open_incidents()
            assert incident.tier == "red"
            await pass_time(HOUR_S)
            assert list(site.table.changes) == before  # the hour is over, and it stays locked
            await life.loop.ask(ResetAsked("li", "standby"))
            await life.until(on_standby)
            assert list(site.table.changes) == [*before, THERE]

    virtually(main())


def test_a_third_return_within_a_day_waits_for_a_person(tmp_path: Path) -> None:
    async def main() -> None:
        site = VirtualSite(site_config(tmp_path, "limits: {budget: none}"))
        async with site.agent() as life:
            await pass_time(QUIET_S)
            for _ in range(2):
                await swap_and_return(site, life)
            site.plant.kill("wan1")
            await life.until(on_standby)
            site.plant.mend("wan1")

            await pass_time(300.0)

            assert on_standby(life)
            assert life.durable.refusals["standby.return"].code == "returned_often"

    virtually(main())


# ---------------------------------------------------------------- the disk


def test_while_nothing_can_be_remembered_no_run_starts_and_watching_goes_on(tmp_path: Path) -> None:
    async def main() -> None:
        site = VirtualSite(site_config(tmp_path))
        async with site.agent() as life:
            await pass_time(QUIET_S)
            site.disk.faults = SimFaults(full_from=1)
            site.plant.kill("wan2", "hq")  # the first thing that is to be remembered
            await pass_time(2.0)
            site.plant.mend("wan2")
            await pass_time(90.0)
            site.plant.kill("wan1")
            await pass_time(20.0)

            assert life.bodies(RunOpened) == []
            assert not site.table.changes
            assert life.loop.state.durable.alarms["wan1.hq_dead"].id is not None
            assert life.durable.refusals["standby"].code == "journal_not_durable"
            assert "No space left" in life.loop.journal_view.reason
            site.disk.faults = SimFaults()
            await life.until(on_standby)
            assert [body.durable for body in life.bodies(JournalTrouble)] == [False, True]
        opened = site.disk.open()
        assert same(recall(opened.checkpoint, opened.bodies), life.durable)

    virtually(main())


def test_a_command_does_not_leave_before_its_intent_is_durable_and_is_asked_anew_when_that_took_too_long(
    tmp_path: Path,
) -> None:
    async def main(stays_full_s: float) -> VirtualSite:
        site = VirtualSite(site_config(tmp_path))
        async with site.agent() as life:
            await pass_time(QUIET_S)
            site.disk.faults = SimFaults(full_from=1)  # the very records of the swap find the disk full
            site.plant.kill("wan1")
            await pass_time(stays_full_s)
            assert not site.table.changes
            site.disk.faults = SimFaults()
            await life.until(on_standby)
            assert list(site.table.changes) == [THERE]
        return site

    virtually(main(1.0))
    late = virtually(main(8.0))
    assert [key for what, key in late.lives[0].asked if what == "perform"] == ["R1.0.2"]


def test_a_queue_that_is_full_takes_no_decision_and_decides_anew_later(tmp_path: Path) -> None:
    async def main() -> None:
        site = VirtualSite(site_config(tmp_path), limits=JournalLimits(queue_entries=12))
        async with site.agent() as life:
            await pass_time(QUIET_S)
            site.disk.faults = SimFaults(full_from=1)
            for name in ("wan2", "wan1"):
                site.plant.kill(name)
                await pass_time(20.0)
            assert not site.table.changes
            assert life.loop.state.volatile.journal_durable is False
            site.plant.mend("wan2")
            site.disk.faults = SimFaults()
            await life.until(on_standby)
        opened = site.disk.open()
        assert same(recall(opened.checkpoint, opened.bodies), life.durable)

    virtually(main())


def test_a_damaged_journal_leads_to_a_watching_agent_that_does_not_act(tmp_path: Path) -> None:
    async def main() -> None:
        site = VirtualSite(site_config(tmp_path))
        async with site.agent() as life:
            await pass_time(QUIET_S)
        site.disk.damage(2)
        async with site.agent() as life:
            await pass_time(QUIET_S)
            site.plant.kill("wan1")
            await pass_time(60.0)

            assert not site.table.changes
            assert life.durable.open_incidents()
            assert life.durable.hold is not None
            assert "safe mode" in life.durable.hold.reason
            assert life.loop.journal_view.safe_reason is not None

    virtually(main())


# ---------------------------------------------------------------- time


def test_a_suspend_makes_all_that_was_known_stale_and_nothing_acts_before_it_is_seen_again(tmp_path: Path) -> None:
    async def main() -> None:
        site = VirtualSite(site_config(tmp_path))
        async with site.agent() as life:
            await pass_time(QUIET_S)
            site.clock.suspended_s += 3600.0
            await pass_time(2.0)
            (gap,) = life.bodies(GapSeen)
            assert gap.gap_s == pytest.approx(3600.0, abs=1.5)
            assert life.durable.open_incidents() == []
            site.plant.kill("wan1")
            await life.until(on_standby)

            assert list(site.table.changes) == [THERE]

    virtually(main())


def test_a_suspend_in_the_middle_of_a_swap_looks_again_and_ends_it(tmp_path: Path) -> None:
    async def main() -> None:
        site = VirtualSite(site_config(tmp_path))
        site.timing.moves_after_s = 0.5
        async with site.agent() as life:
            await pass_time(QUIET_S)
            site.plant.kill("wan1")
            await life.until(lambda life: life.durable.open_runs() != [])
            site.plant.set_line("wan2", LineFault(hidden="send_failed"))
            await pass_time(0.45)
            site.clock.suspended_s += 600.0
            site.plant.mend("wan2")
            await life.until(on_standby)

            assert list(site.table.changes) == [THERE]
            assert [body.end for body in life.bodies(RunEnded)] == [RunState.DONE]
            assert len(life.bodies(RunLookedAgain)) <= 1

    virtually(main())


def test_a_step_of_the_wall_clock_starts_no_run_and_ends_no_limit(tmp_path: Path) -> None:
    async def main() -> None:
        site = VirtualSite(site_config(tmp_path))
        async with site.agent() as life:
            await pass_time(QUIET_S)
            for _ in range(2):
                await swap_and_return(site, life)
            site.clock.utc_step_s += 86_400.0
            await pass_time(2.0)
            before = list(site.table.changes)
            site.plant.kill("wan1")
            await pass_time(60.0)

            assert list(site.table.changes) == before
            assert life.durable.refusals["standby"].code == "locked"

    virtually(main())


# ---------------------------------------------------------------- an arrangement that was lost


@pytest.mark.parametrize("ends", ["a reboot", "a hand"])
def test_an_arrangement_that_the_plant_contradicts_is_given_up_and_the_swap_is_asked_anew(
    tmp_path: Path, ends: str
) -> None:
    async def main() -> None:
        site = VirtualSite(site_config(tmp_path))
        async with site.agent() as life:
            await pass_time(QUIET_S)
            site.plant.kill("wan1")
            await life.until(on_standby)
            await pass_time(10.0)
            if ends == "a hand":
                site.table.reboot()
                await life.until(lambda life: len(life.bodies(ArrangementEntered)) == 2)
        if ends == "a reboot":
            site.reboot()
            async with site.agent() as life:
                await life.until(lambda life: bool(life.bodies(ArrangementEntered)))
        (lost,) = life.bodies(ArrangementLost)
        assert lost.reason.startswith("wan2 is good, and yet it does not hold that path.")
        assert list(site.table.changes) == [THERE, THERE]
        assert [one.id for one in life.durable.open_incidents()] == ["I1"]

    virtually(main())


def test_an_arrangement_is_not_given_up_because_the_standby_line_dies_too(tmp_path: Path) -> None:
    async def main() -> None:
        site = VirtualSite(site_config(tmp_path))
        async with site.agent() as life:
            await pass_time(QUIET_S)
            site.plant.kill("wan1")
            await life.until(on_standby)
            await pass_time(20.0)
            site.plant.kill("wan2")
            await pass_time(60.0)

            assert life.bodies(ArrangementLost) == []
            assert on_standby(life)
            assert list(site.table.changes) == [THERE]

    virtually(main())


# ---------------------------------------------------------------- a day


USUAL: Final = ("die", "die", "kill", "loss", "mend", "mend", "hide", "mains", "ups", "person", "disk", "crash", "stop")
RARE: Final = ("reboot", "suspend", "clock", "hand")


class Trouble:
    """What happens to a site in a day, by a seed: one thing after the other, and at last all is well again."""

    def __init__(self, site: VirtualSite, seed: int) -> None:
        self.site = site
        self.random = random.Random(seed)
        self.done: list[str] = []

    async def one(self, life: RunningAgent) -> str:
        """Do one thing, and return what becomes of the agent: "" when it goes on, else its end."""
        what = self.random.choice(USUAL if self.random.random() < 0.9 else RARE)
        self.done.append(what)
        return (await getattr(self, what)(life)) or ""

    async def die(self, life: RunningAgent) -> None:
        await self.mend(life)
        await pass_time(90.0)
        self.site.plant.kill("wan1")

    async def kill(self, life: RunningAgent) -> None:
        line = self.random.choice(("wan1", "wan1", "wan2"))
        rungs = self.random.choice((("edge", "hq"), ("hq",), ("cpe", "edge", "hq")))
        self.site.plant.set_line(line, LineFault(frozenset(rungs), carrier=self.random.random() < 0.9))

    async def loss(self, life: RunningAgent) -> None:
        line = self.random.choice(("wan1", "wan2"))
        self.site.plant.set_line(line, LineFault(loss_ratio=self.random.choice((0.03, 0.1, 0.3, 0.6))))

    async def mend(self, life: RunningAgent) -> None:
        for line in ("wan1", "wan2"):
            self.site.plant.mend(line)
        self.site.plant.mains, self.site.plant.ups_fault = True, None

    async def hide(self, life: RunningAgent) -> None:
        self.site.plant.set_line(self.random.choice(("wan1", "wan2")), LineFault(hidden="send_failed"))

    async def mains(self, life: RunningAgent) -> None:
        self.site.plant.mains = not self.site.plant.mains

    async def ups(self, life: RunningAgent) -> None:
        self.site.plant.ups_fault = self.random.choice(("timed_out", "driver_not_connected", None))

    async def person(self, life: RunningAgent) -> None:
        if life.durable.hold is None and self.random.random() < 0.3:
            await life.loop.ask(HoldAsked("wang", "work on the rack", self.random.random() < 0.5, 600.0))
        else:
            await life.loop.ask(ReleaseAsked("wang"))
            await life.loop.ask(ResetAsked("wang", "standby"))

    async def disk(self, life: RunningAgent) -> None:
        self.site.disk.faults = SimFaults(full_from=1)
        await pass_time(self.random.uniform(1.0, 120.0))
        self.site.disk.faults = SimFaults()
        await pass_time(10.0)

    async def crash(self, life: RunningAgent) -> None:
        self.site.disk.faults = SimFaults(crash_at=self.site.disk.head[0] + self.random.randint(1, 12))

    async def stop(self, life: RunningAgent) -> str:
        return "stop"

    async def reboot(self, life: RunningAgent) -> str:
        return "reboot"

    async def suspend(self, life: RunningAgent) -> None:
        self.site.clock.suspended_s += self.random.uniform(5.0, 900.0)

    async def clock(self, life: RunningAgent) -> None:
        self.site.clock.utc_step_s += self.random.choice((-3600.0, 3600.0, 5.0))

    async def hand(self, life: RunningAgent) -> None:
        self.site.table.reboot()


async def live(site: VirtualSite, trouble: Trouble, until_s: float) -> None:
    """One life of the agent, until its end or the end of the day."""
    loop = asyncio.get_running_loop()
    opened = site.disk.open()
    before = recall(opened.checkpoint, opened.bodies)
    end = ""
    async with site.agent() as life:
        while loop.time() < until_s and not life.task.done() and end not in ("stop", "reboot"):
            await asyncio.wait({life.task}, timeout=trouble.random.expovariate(1 / EVERY_S))
            if not life.task.done():
                end = await trouble.one(life)
            assert life.loop.violation is None, life.loop.violation
            assert sum(route.ours for route in site.table.seen()) <= 1
        if not life.task.done():
            await pass_time(10.0)  # what is decided has become durable
    assert same(replayed(before, life), life.durable), "the records do not lead to the state"
    opened = site.disk.open()
    if life.task.cancelled():  # what a crash has left undurable, the dead agent alone has known
        assert same(recall(opened.checkpoint, opened.bodies), life.durable), "the journal does not lead to the state"
    site.disk.faults = SimFaults()
    if end == "reboot":
        site.reboot()


def replayed(before: Durable, life: RunningAgent) -> Durable:
    """Return *before* after every record of this life, by apply alone."""
    for record in life.records:
        before = apply(before, record)
    return before


@pytest.mark.parametrize(("seed", "length_s"), [(1, DAY_S), (2, HOUR_S), (3, HOUR_S)])
def test_a_day_of_random_faults_breaks_no_rule_and_ends_well(tmp_path: Path, seed: int, length_s: float) -> None:
    """The whole day leaves the UPS out, whose many alarms would make it twice as long to compute."""

    async def main() -> None:
        ups_period = "10s" if length_s < DAY_S else ""
        config = site_config(tmp_path, "limits: {budget: none}", path_period="3s", ups_period=ups_period)
        site = VirtualSite(config, every_s=2.0, limits=JournalLimits(segment_entries=400))
        trouble = Trouble(site, seed)
        loop = asyncio.get_running_loop()
        end_s = loop.time() + length_s
        while loop.time() < end_s:
            await live(site, trouble, end_s)

        await trouble.mend(site.lives[-1])
        site.disk.faults = SimFaults()
        async with site.agent() as life:
            await life.loop.ask(ReleaseAsked("wang"))
            await life.loop.ask(ResetAsked("wang", "standby"))
            await pass_time(HOUR_S)
            assert life.durable.open_incidents() == []
            assert life.durable.open_runs() == []
            assert life.durable.alarms == {}
            assert len(life.durable.runs) > 2 or length_s < DAY_S, trouble.done

    virtually(main())
