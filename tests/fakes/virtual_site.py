"""
A whole agent in virtual time: the real loop, poller, executor and route verb on a simulated disk, a route table in memory
and the plant of `virtual_plant`. It can be stopped, crashed at a record, and started again on what was durable.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from agent import config as site_file
from agent.config import Config
from agent.core.model import At, Outcome, Request, Started
from agent.core.records import Body, Record
from agent.core.state import Durable, State
from agent.errors import ActionFailed, JournalBroken
from agent.ports import ActionContext, Route
from agent.runtime.codec import canonical
from agent.runtime.executor import Executor
from agent.runtime.journal import InlineJournal, JournalLimits
from agent.runtime.ledger import MemoryLedger
from agent.runtime.loop import Loop
from agent.runtime.poller import Poller
from agent.runtime.recall import recall
from drills.simsite.routes import MemoryRouteTable
from drills.vdisk import Crash, SimDisk
from drills.vtime import VirtualClock, run_virtual
from probes import PROBES
from runbooks import ACTIONS
from tests.fakes.virtual_plant import Plant, plant_probes

B = TypeVar("B", bound=Body)
T = TypeVar("T")

START_S: Final = 1000.0
UTC_START_S: Final = 1_700_000_000.0
UP_S: Final = 20.0  # how long a machine is up before the agent starts

SITE: Final = """
site: {{id: branch-01, agent: {{boot_guard: {boot_guard}}}}}
equipment:
  mains: {{kind: utility}}
{ups}  wan1:
    {{kind: line, role: primary, profile: {profile}, interface: eth1, gateway: 192.0.2.1,
     targets: {{cpe: 192.0.2.1, edge: 198.51.100.1, hq: 203.0.113.1}}}}
  wan2:
    {{kind: line, role: standby, profile: {profile}, interface: eth2, gateway: 192.0.2.129,
     targets: {{cpe: 192.0.2.129, edge: 198.51.100.129, hq: 203.0.113.1}}}}
  path: {{kind: path, target: 203.0.113.1, period: {path_period}}}
runbooks:
  standby: {{use: standby_line, mode: {mode}{more}}}
"""

SITE_ROUTES: Final = (
    Route("default", "192.0.2.1", "eth1", 100, False),
    Route("default", "192.0.2.129", "eth2", 200, False),
)


def site_config(
    folder: Path,
    more: str = "",
    *,
    mode: str = "auto",
    profile: str = "fast",
    boot_guard: str = "30s",
    path_period: str = "1s",
    ups_period: str = "1s",
) -> Config:
    """
    Load a site file for two lines through the real configuration; *more* is put into its runbook. An empty *ups_period*
    leaves the UPS out.
    """
    ups = f"  ups-a: {{kind: ups, fed_by: mains, ups: ups-a, status_period: {ups_period}}}\n" if ups_period else ""
    values = {"profile": profile, "boot_guard": boot_guard, "path_period": path_period, "ups": ups}
    path = folder / "site.yaml"
    path.write_text(SITE.format(more=f", {more}" if more else "", mode=mode, **values), encoding="utf-8")
    return site_file.load(path, PROBES, ACTIONS)


class SiteClock(VirtualClock):
    """The clock of a machine that can be suspended and rebooted."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop, "boot-1", UTC_START_S)
        self.suspended_s = 0.0
        self.booted_s = 0.0

    def now(self) -> At:
        """Return the present moment."""
        now = super().now()
        boot_s = now.boot_s + self.suspended_s
        return At(now.boot_id, boot_s - self.booted_s, now.utc_s + self.suspended_s)

    def reboot(self) -> None:
        """Begin a new boot."""
        self.boot_id = f"boot-{int(self.boot_id.removeprefix('boot-')) + 1}"
        self.booted_s += self.now().boot_s - UP_S


@dataclass(slots=True)
class Timing:
    """How the executor's world orders things: when its word reaches the loop, and when a command moves the route."""

    accepted_after_s: float = 0.0
    moves_after_s: float = 0.0
    returns_after_s: float = 0.0


class SlowTable(MemoryRouteTable):
    """A route table whose commands take their time. What has been handed to the kernel survives its caller."""

    def __init__(self, timing: Timing) -> None:
        super().__init__(SITE_ROUTES, {"eth1": ("192.0.2.2",), "eth2": ("192.0.2.130",)})
        self.timing = timing

    async def add(self, route: Route) -> None:
        """Add *route* as ours, after the time that it takes."""
        await self._in_its_time(super().add(route))

    async def remove(self, route: Route) -> None:
        """Remove *route*, after the time that it takes."""
        await self._in_its_time(super().remove(route))

    async def _in_its_time(self, change: Coroutine[Any, Any, None]) -> None:
        if self.timing.moves_after_s <= 0:
            await change
        else:
            loop = asyncio.get_running_loop()
            moved: asyncio.Future[None] = loop.create_future()
            loop.call_later(self.timing.moves_after_s, _run_now, change, moved)
            await moved
        await asyncio.sleep(self.timing.returns_after_s)

    def reboot(self) -> None:
        """Lose what the kernel does not keep over a reboot: our routes."""
        self._routes = [route for route in self._routes if not route.ours]


def _run_now(change: Coroutine[Any, Any, None], moved: asyncio.Future[None]) -> None:
    """Run *change*, which waits for nothing, whether or not anybody still waits for it."""
    try:
        change.send(None)
    except StopIteration:
        if not moved.done():
            moved.set_result(None)
    except ActionFailed as error:
        if not moved.done():
            moved.set_exception(error)


class WatchedExecutor(Executor):
    """The real executor, with what was asked of it kept in order."""

    def __init__(self, *arguments: Any, asked: list[tuple[str, str]]) -> None:
        super().__init__(*arguments)
        self._asked = asked

    async def perform(self, request: Request) -> tuple[Outcome, str]:
        """Keep the key, and perform."""
        self._asked.append(("perform", request.key))
        return await super().perform(request)

    async def outcome(self, key: str) -> tuple[Outcome, str]:
        """Keep the key, and answer."""
        self._asked.append(("outcome", key))
        return await super().outcome(key)


class WatchedPoller(Poller):
    """The real poller, with what was looked at kept beside what was asked of the executor."""

    def __init__(self, *arguments: Any, asked: list[tuple[str, str]]) -> None:
        super().__init__(*arguments)
        self._asked = asked

    def look(self, points: Any, not_before: float, until: float) -> None:
        """Keep that somebody looked, and look."""
        self._asked.append(("look", ",".join(sorted(points))))
        super().look(points, not_before, until)


@dataclass(slots=True)
class RunningAgent:
    """One life of the agent. `asked`: what it asked of executor and plant, in order."""

    loop: Loop
    records: list[Record]
    asked: list[tuple[str, str]]
    task: asyncio.Task[None]

    @property
    def durable(self) -> Durable:
        """The durable state."""
        return self.loop.state.durable

    def bodies(self, kind: type[B]) -> list[B]:
        """Return the bodies of *kind* that were decided in this life, oldest first."""
        return [record.body for record in self.records if isinstance(record.body, kind)]

    async def until(self, is_it: Callable[[RunningAgent], bool], within_s: float = 120.0) -> None:
        """Wait until *is_it* holds. Raises TimeoutError; what ended the agent."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within_s
        while not is_it(self):
            if self.task.done():
                self.task.result()
            if loop.time() >= deadline:
                raise TimeoutError(f"not within {within_s:g} s; runs {self.durable.runs}, {self.durable.refusals}")
            await asyncio.sleep(0.05)


@dataclass(slots=True)
class VirtualSite:
    """A site in virtual time: what outlives the agent. Made on a running virtual-time loop."""

    config: Config
    every_s: float = 1.0
    disk: SimDisk = field(default_factory=SimDisk)
    ledger: MemoryLedger = field(default_factory=MemoryLedger)
    timing: Timing = field(default_factory=Timing)
    limits: JournalLimits | None = None
    table: SlowTable = field(init=False)
    clock: SiteClock = field(init=False)
    plant: Plant = field(init=False)
    lives: list[RunningAgent] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock = SiteClock(asyncio.get_running_loop())
        self.table = SlowTable(self.timing)
        self.plant = Plant(self.config.lines, self.table, self.clock)

    @contextlib.asynccontextmanager
    async def agent(self) -> AsyncIterator[RunningAgent]:
        """
        Start an agent on what is durable, and end it when the context is left.

        A crash of the simulated process ends the context as if it had been left: the `task` of the agent has the Crash.
        """
        opened, safe = self._opened()
        durable = recall(opened.checkpoint, opened.bodies)
        journal = InlineJournal(opened.store, opened.head, filled=opened.filled, limits=self.limits)
        loop = Loop(self.config.site, State(durable=durable), journal, self.clock, cut=opened.cut)
        records: list[Record] = []
        asked: list[tuple[str, str]] = []
        loop.on_record(records.append)
        executor = WatchedExecutor(self._actions(), self.ledger, self.clock, self._telling(loop), asked=asked)
        probes = plant_probes(self.config.probe_configs, self.plant, self.clock, self.every_s)
        poller = WatchedPoller(probes, self.clock, loop.observe, asked=asked)
        loop.connect(executor, poller)
        started = Started("0", self.config.digest, safe is None, safe or "")
        before = asyncio.all_tasks()
        task = asyncio.create_task(loop.run(started), name="loop")
        polling = asyncio.create_task(poller.run(), name="poller")
        task.add_done_callback(lambda _: end_all(before))
        life = RunningAgent(loop, records, asked, task)
        self.lives.append(life)
        try:
            yield life
        finally:
            polling.cancel()
            task.cancel()
            await asyncio.wait({task, polling})
            end_all(before)
            if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, Crash):
                raise error

    async def until_crash(self, life: RunningAgent, within_s: float = 600.0) -> Crash:
        """Wait until the simulated process ends, and return its end."""
        await asyncio.wait({life.task}, timeout=within_s)
        error = life.task.exception() if life.task.done() and not life.task.cancelled() else None
        if not isinstance(error, Crash):
            raise AssertionError(f"no crash within {within_s:g} s: {error!r}")
        return error

    def reboot(self) -> None:
        """The machine starts anew, while no agent runs: another boot, and no route of ours any more."""
        before = self.clock.now().boot_s
        self.clock.reboot()
        self.plant.shift(self.clock.now().boot_s - before)
        self.table.reboot()

    def _opened(self) -> tuple[Any, str | None]:
        try:
            return self.disk.open(), None
        except JournalBroken as broken:
            self.disk = SimDisk()
            return self.disk.open(), str(broken)

    def _actions(self) -> dict[str, Any]:
        context = ActionContext(self.config.lines, self.table)
        return {name: (kind, kind.make(context)) for name, kind in ACTIONS.items()}

    def _telling(self, loop: Loop) -> Callable[[str], None]:
        if self.timing.accepted_after_s <= 0:
            return loop.accepted
        running = asyncio.get_running_loop()

        def accepted(key: str) -> None:
            running.call_later(self.timing.accepted_after_s, loop.accepted, key)

        return accepted


def same(one: Durable, other: Durable) -> bool:
    """Tell whether two durable states have the same canonical text, and so the same digest."""
    return canonical(one) == canonical(other)


async def pass_time(seconds: float) -> None:
    """Let virtual time pass."""
    await asyncio.sleep(seconds)


def end_all(spared: set[asyncio.Task[Any]]) -> None:
    """Cancel every task but *spared* and the present one: the process has ended."""
    for task in asyncio.all_tasks() - spared - {asyncio.current_task()}:
        task.cancel()


def virtually(main: Coroutine[Any, Any, T]) -> T:
    """Run *main* in virtual time that begins well above zero, as a machine that is up for a while."""
    return run_virtual(main, start_s=START_S)
