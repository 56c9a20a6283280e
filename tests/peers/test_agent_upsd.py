"""
The agent on a real `upsd` with a real driver: each fault of the way to the UPS is its own fact, and none is "mains lost".

A second client beside the agent's probe tells when the server itself first had an answer. Needs the package nut-server.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import pytest

from agent.app import Agent, running, this_machine
from agent.clock import boot_s
from agent.config import load
from agent.core.alarm import Alarm, AlarmState
from agent.core.model import Observation, PointId, Quality, Tier
from agent.core.records import AlarmMoved, Body, IncidentClosed, IncidentOpened, Record
from agent.errors import ProbeFault
from probes import PROBES
from probes.wire.nut import NutClient
from runbooks import ACTIONS
from tests.peers.upsd import RealUpsd

B = TypeVar("B", bound=Body)

PERIOD_S: Final = 1.0  # of the status lane, as shipped
SLACK_S: Final = 0.3  # for a busy machine
ON_DELAY_S: Final = 2.0
PATIENCE_S: Final = 20.0
LOOK_S: Final = 0.02

SITE: Final = """
site: {{id: branch-01, agent: {{boot_guard: 0s}}}}
equipment:
  mains: {{kind: utility}}
  ups-a: {{kind: ups, fed_by: mains, ups: {ups}, host: {host}, port: {port}, reply_timeout: 1s}}
  this-host: {{kind: host, fed_by: ups-a}}
alarms:
  ups-a.mains_absent: {{yellow: {{on_delay: 2s}}}}
  ups-a.unreadable: {{yellow: {{on_delay: 3s}}}}
server: {{socket: {folder}/control.sock, metrics: "127.0.0.1:0", state_dir: {folder}/state}}
"""


@dataclass(slots=True)
class Watched:
    """An agent with everything that it decided."""

    agent: Agent
    records: list[Record] = field(default_factory=list)

    def seen(self, point: str) -> Observation | None:
        """Return the last observation of a point of the UPS."""
        return self.agent.loop.state.volatile.seen.get(PointId(f"ups-a.{point}"))

    def alarm(self, name: str) -> Alarm | None:
        """Return an alarm of the UPS that is not normal."""
        return self.agent.loop.state.durable.alarms.get(f"ups-a.{name}")

    def bodies(self, kind: type[B]) -> list[B]:
        """Return what of *kind* was decided, oldest first."""
        return [record.body for record in self.records if isinstance(record.body, kind)]

    def moved(self, name: str) -> list[AlarmMoved]:
        """Return the changes of one alarm of the UPS."""
        return [body for body in self.bodies(AlarmMoved) if body.key == f"ups-a.{name}"]

    async def until(self, what: str, is_it: Callable[[], object]) -> None:
        """Wait until *is_it* holds. Raises AssertionError."""
        deadline = boot_s() + PATIENCE_S
        while not is_it():
            assert boot_s() < deadline, f"never seen: {what}; {self.seen('on_battery')}"
            await asyncio.sleep(LOOK_S)

    async def until_good(self, *, on_battery: bool) -> Observation:
        """Wait until the agent sees this, and return how it saw it."""

        def is_it() -> bool:
            seen = self.seen("on_battery")
            return seen is not None and (seen.quality, seen.value) == (Quality.GOOD, on_battery)

        await self.until(f"on_battery {on_battery}", is_it)
        found = self.seen("on_battery")
        assert found is not None
        return found

    async def until_hidden(self, *faults: str) -> None:
        """Wait until every point of the status lane is unknown by one of *faults*."""

        def is_it() -> bool:
            seen = [self.seen(point) for point in ("on_battery", "mains_present", "battery_low")]
            return all(o is not None and o.quality is Quality.UNKNOWN and o.fault in faults for o in seen)

        await self.until(f"unknown by {' or '.join(faults)}", is_it)


@pytest.fixture
async def upsd(tmp_path: Path) -> AsyncIterator[RealUpsd]:
    folder = tmp_path / "nut"
    folder.mkdir()
    async with RealUpsd(folder, max_age_s=3) as upsd:
        yield upsd


@pytest.fixture
async def watched(upsd: RealUpsd, tmp_path: Path) -> AsyncIterator[Watched]:
    host, port = upsd.address
    site = tmp_path / "site.yaml"
    site.write_text(SITE.format(ups=upsd.ups, host=host, port=port, folder=tmp_path), encoding="utf-8")
    config = load(site, PROBES, ACTIONS)
    async with running(config, config.state_dir, this_machine()) as agent:
        watched = Watched(agent)
        agent.loop.on_record(watched.records.append)
        await watched.until_good(on_battery=False)
        yield watched
        assert not any(task.done() for task in agent.tasks)


async def first_answer(upsd: RealUpsd, status: str) -> float:
    """Return when the server itself first says that the UPS has this *status*, in boot seconds."""
    client = NutClient(*upsd.address)
    deadline = boot_s() + PATIENCE_S
    try:
        while True:
            asked_at = boot_s()
            with contextlib.suppress(ProbeFault):
                if status in (await client.get_var(upsd.ups, "ups.status")).split():
                    return asked_at
            assert boot_s() < deadline, f"the server never says {status}"
            await asyncio.sleep(LOOK_S)
    finally:
        await client.close()


async def test_mains_lost_is_a_fact_within_one_poll_an_alarm_after_its_delay_and_over_when_the_mains_is_back(
    upsd: RealUpsd, watched: Watched
) -> None:
    await upsd.set_variables({"ups.status": "OB DISCHRG"})
    since = await first_answer(upsd, "OB")
    fact = await watched.until_good(on_battery=True)
    assert fact.asked_at <= since + PERIOD_S + SLACK_S
    await watched.until("pending", lambda: watched.moved("mains_absent"))
    assert watched.moved("mains_absent")[0].rungs["yellow"].state is AlarmState.PENDING
    assert watched.moved("mains_absent")[0].tier is Tier.OK

    await watched.until("yellow", lambda: (a := watched.alarm("mains_absent")) is not None and a.tier() is Tier.YELLOW)
    moments = [r.at.boot_s for r in watched.records if isinstance(r.body, AlarmMoved) and "mains_absent" in r.body.key]
    assert moments[1] - moments[0] == pytest.approx(ON_DELAY_S, abs=SLACK_S)
    (opened,) = watched.bodies(IncidentOpened)
    assert opened.cause.kind == "utility"

    await upsd.set_variables({"ups.status": "OB DISCHRG LB"})
    since = await first_answer(upsd, "LB")
    await watched.until("red", lambda: (a := watched.alarm("mains_absent")) is not None and a.tier() is Tier.RED)
    assert watched.records[-1].at.boot_s <= since + PERIOD_S + SLACK_S

    await upsd.set_variables({"ups.status": "OL CHRG"})
    await watched.until("over", lambda: watched.alarm("mains_absent") is None)
    await watched.until("closed", lambda: watched.bodies(IncidentClosed))
    assert [body.id for body in watched.bodies(IncidentClosed)] == [opened.id] == ["I1"]
    assert len({body.id for body in watched.moved("mains_absent") if body.id is not None}) == 1


async def test_a_dip_shorter_than_the_delay_never_becomes_an_alarm(upsd: RealUpsd, watched: Watched) -> None:
    await upsd.set_variables({"ups.status": "OB"})
    await watched.until_good(on_battery=True)
    await upsd.set_variables({"ups.status": "OL"})
    await watched.until_good(on_battery=False)
    await watched.until("normal again", lambda: watched.alarm("mains_absent") is None)

    was_long = any(body.tier is not Tier.OK for body in watched.moved("mains_absent"))
    spans = [r.at.boot_s for r in watched.records if isinstance(r.body, AlarmMoved) and "mains_absent" in r.body.key]
    assert not was_long or spans[-1] - spans[0] >= ON_DELAY_S  # the driver reads its file each second, or two


async def seen_again(upsd: RealUpsd, watched: Watched) -> None:
    """Assert that the agent sees the UPS within one poll of the first answer that the server had."""
    first = await first_answer(upsd, "OL")
    fact = await watched.until_good(on_battery=False)
    assert fact.answered_at <= first + PERIOD_S + SLACK_S, f"{fact.answered_at - first:.2f} s"


def never_took_it_for_the_mains(watched: Watched) -> None:
    """Assert that no alarm speaks of the mains or of the battery."""
    names = {str(body.key) for body in watched.bodies(AlarmMoved)}
    assert {name for name in names if name.startswith("ups-a.")} <= {"ups-a.unreadable"}
    causes = {one.cause.equipment: one.cause.kind for one in watched.bodies(IncidentOpened)}
    assert causes.get(("ups-a",), "device") == "device"
    assert ("mains",) not in causes


async def test_a_frozen_server_is_timed_out_and_then_seen_again(upsd: RealUpsd, watched: Watched) -> None:
    await upsd.freeze()
    await watched.until_hidden("timed_out")
    await watched.until("unreadable", lambda: (a := watched.alarm("unreadable")) is not None and a.id is not None)
    await upsd.thaw()

    await seen_again(upsd, watched)
    never_took_it_for_the_mains(watched)


async def test_a_stopped_server_is_refused_and_a_restarted_one_waits_for_its_driver(
    upsd: RealUpsd, watched: Watched
) -> None:
    await upsd.stop()
    await watched.until_hidden("refused")
    await upsd.start()
    await watched.until_hidden("wait", "driver_not_connected")

    await seen_again(upsd, watched)
    never_took_it_for_the_mains(watched)


async def test_a_killed_driver_is_told_as_such_and_seen_again_when_it_is_back(upsd: RealUpsd, watched: Watched) -> None:
    await upsd.kill_driver()
    await watched.until_hidden("driver_not_connected")
    await upsd.start_driver()

    await seen_again(upsd, watched)
    never_took_it_for_the_mains(watched)


async def test_a_silent_driver_is_stale_and_seen_again_when_it_speaks(upsd: RealUpsd, watched: Watched) -> None:
    await upsd.freeze_driver()
    await watched.until_hidden("data_stale")
    await upsd.thaw_driver()

    await seen_again(upsd, watched)
    never_took_it_for_the_mains(watched)


async def test_a_ups_that_falls_silent_on_battery_is_told_so_and_its_alarm_is_not_cleared(
    upsd: RealUpsd, watched: Watched
) -> None:
    await upsd.set_variables({"ups.status": "OB"})
    await watched.until("yellow", lambda: (a := watched.alarm("mains_absent")) is not None and a.tier() is Tier.YELLOW)
    await upsd.stop()
    await watched.until_hidden("refused")
    await watched.until("lost", lambda: (a := watched.alarm("lost_on_battery")) is not None and a.tier() is Tier.RED)

    mains = watched.alarm("mains_absent")
    assert mains is not None
    assert mains.tier() is Tier.YELLOW
    assert watched.bodies(IncidentClosed) == []
