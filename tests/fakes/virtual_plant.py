"""
The plant of a branch in virtual time: two lines and the mains, what is broken, and the probes that look at it.

A line's probe keeps the rhythm of the real one: an observation each period, and at the first loss a burst on every line
whose result is told at once. What its window would say is worked out from the plant's history, probe by probe.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from agent.clock import Clock
from agent.core.model import Observation, PointId, PointSpec, Quality, Value
from agent.core.profiles import PROFILES
from agent.errors import ProbeFault
from agent.ports import Lane, Publish, Readings
from drills.simsite.routes import MemoryRouteTable
from probes import line, line_config, nut, path
from probes.line_config import LineConfig

GAP_S: Final = 0.1  # between two probes of the plant's lines
SETTLES_S: Final = 0.02  # after so long without an answer a probe is lost
BURST: Final = 3
ANSWERS_S: Final = 0.005
SILENT_S: Final = 1.0  # so long an echo by the path is waited for
FAST_FOR_S: Final = 1.0  # so long after somebody looked, the path is asked each GAP_S
SLACK_S: Final = 1e-6  # a timer may fire by a rounding error too early
KEPT_S: Final = 60.0  # history that any window may look at


@dataclass(frozen=True, slots=True)
class LineFault:
    """How a line stands: rungs that are dead, the share that is lost on all of them, and what hides it from us."""

    dead: frozenset[str] = frozenset()
    loss_ratio: float = 0.0
    hidden: str | None = None
    carrier: bool = True

    def lost(self, rung: str) -> float:
        """Return the share of probes to *rung* that is lost."""
        return 1.0 if rung in self.dead or not self.carrier else self.loss_ratio


WELL: Final = LineFault()


class Plant:
    """What is out there. Change it by `set_line`, `set_mains` and the route table; those who look are woken."""

    def __init__(self, lines: Mapping[str, LineConfig], table: MemoryRouteTable, clock: Clock) -> None:
        self.lines = dict(lines)
        self.table = table
        self.mains = True
        self.battery_low = False
        self.ups_fault: str | None = None
        self._clock = clock
        self._history: dict[str, list[tuple[float, LineFault]]] = {name: [(-math.inf, WELL)] for name in lines}
        self._watchers: list[Callable[[], None]] = []

    def set_line(self, name: str, fault: LineFault = WELL) -> None:
        """From now on line *name* stands as *fault* says."""
        now = self._clock.now().boot_s
        history = self._history[name]
        history.append((now, fault))
        while len(history) > 2 and history[1][0] < now - KEPT_S:
            history.pop(0)
        for wake in tuple(self._watchers):
            wake()

    def shift(self, by_s: float) -> None:
        """Tell the past in the boot seconds of a new boot."""
        self._history = {name: [(at + by_s, fault) for at, fault in past] for name, past in self._history.items()}

    def kill(self, name: str, *rungs: str) -> None:
        """Let *rungs* of line *name* (all beyond its box unless named) fall silent."""
        self.set_line(name, LineFault(frozenset(rungs or ("edge", "hq", "second_site"))))

    def mend(self, name: str) -> None:
        """Make line *name* well."""
        self.set_line(name)

    def fault(self, name: str) -> LineFault:
        """Return how line *name* stands."""
        return self._history[name][-1][1]

    def lost_ratio(self, name: str, rung: str, begin: float, end: float) -> float:
        """Return the share of probes to *rung* that was lost between two moments."""
        if end <= begin:
            return self.fault(name).lost(rung)
        spans = self._history[name]
        ends = [at for at, _ in spans[1:]] + [math.inf]
        parts = (
            fault.lost(rung) * max(0.0, min(end, until) - max(begin, since))
            for (since, fault), until in zip(spans, ends, strict=True)
        )
        return min(1.0, sum(parts) / (end - begin))

    def dead_since(self, name: str, rung: str) -> float | None:
        """Return since when *rung* has been silent without a break, None while it answers."""
        since = None
        for at, fault in self._history[name]:
            since = None if fault.lost(rung) < 1.0 else at if since is None else since
        return since

    def way(self) -> str | None:
        """Return the line by which the host's own traffic leaves, None when it has no route."""
        routes = self.table.seen()
        by_interface = {config.interface: name for name, config in self.lines.items()}
        return by_interface.get(routes[0].interface) if routes else None

    def reaches_hq(self) -> bool:
        """Tell whether the host's own traffic reaches headquarters."""
        way = self.way()
        return way is not None and self.fault(way).lost("hq") < 1.0

    def watch(self, wake: Callable[[], None]) -> None:
        """Call *wake* when something has changed."""
        self._watchers.append(wake)

    def unwatch(self, wake: Callable[[], None]) -> None:
        """Call *wake* no more."""
        self._watchers.remove(wake)


class PlantLine:
    """The probe of one line of the plant, a stream."""

    def __init__(self, name: str, plant: Plant, clock: Clock, bursts: list[Callable[[], None]], every_s: float) -> None:
        config = plant.lines[name]
        self.equipment = name
        self.channel = line.channel(name, config)
        self.specs: Mapping[str, PointSpec] = line_config.specs(config)
        self._rungs = tuple(rung for rung in ("cpe", "edge", "hq", "second_site") if rung in config.targets)
        self._window_s = PROFILES[config.profile].window_s
        self._plant = plant
        self._clock = clock
        self._bursts = bursts
        self._every_s = every_s
        self._woken = asyncio.Event()
        self._burst_at = math.inf
        self._burst_probes: list[float] = []
        self._standing: object = None

    async def run(self, publish: Publish) -> None:
        """Publish each period, at once on a change, and after each burst."""
        self._bursts.append(self.look)
        self._plant.watch(self._woken.set)
        self._standing = self._stands()
        tell_at = self._now()
        try:
            while True:
                if self._now() >= tell_at - SLACK_S:
                    publish(self.observe())
                    tell_at = self._now() + self._every_s
                try:
                    async with asyncio.timeout(max(0.0, min(tell_at, self._burst_at) - self._now())):
                        await self._woken.wait()
                except TimeoutError:
                    pass
                self._woken.clear()  # here, so that what happens while we heed this is heeded next
                await self._heed(publish)
        finally:
            self._plant.unwatch(self._woken.set)
            self._bursts.remove(self.look)

    def look(self) -> None:
        """Send a burst, and tell what it found."""
        self._burst_at = min(self._burst_at, self._now())
        self._woken.set()

    async def _heed(self, publish: Publish) -> None:
        """Notice a change at the next probe, begin the burst that a first loss asks for, and tell what it found."""
        before, self._standing = self._standing, self._stands()
        if self._standing != before:
            await asyncio.sleep(max(0.0, self._slot(self._now()) - self._now()) + SETTLES_S)
            for start in tuple(self._bursts):
                start()
        if self._now() >= self._burst_at - SLACK_S:
            first = self._now()
            self._burst_at = math.inf
            await asyncio.sleep((BURST - 1) * 0.02 + SETTLES_S + 1e-6)
            self._burst_probes = [*self._burst_probes[-30:], *(first + 0.02 * number for number in range(BURST))]
            publish(self.observe())

    def observe(self) -> list[Observation]:
        """Return the line as its window would have it now."""
        now = self._now()
        fault = self._plant.fault(self.equipment)
        asked_at = now - SETTLES_S
        if fault.hidden is not None:
            points = [f"{rung}.{point}" for rung in self._rungs for point in ("lost_in_row", "loss_ratio", "silent_s")]
            return [self._observation(point, None, now, now, fault.hidden) for point in points]
        seen = [self._observation("binding_ok", True, now, now)]
        if "carrier" in self.specs:
            seen.append(self._observation("carrier", fault.carrier, now, now))
        for rung in self._rungs:
            for point, value in self._measured(rung, asked_at).items():
                since = self._first_lost(rung, asked_at) if value else None
                seen.append(self._observation(f"{rung}.{point}", value, asked_at, now, since=since))
        return seen

    def _measured(self, rung: str, asked_at: float) -> Mapping[str, Value]:
        first = self._first_lost(rung, asked_at)
        lost = 0
        if first is not None:
            lost = 1 + math.floor((asked_at - first) / GAP_S) + sum(first < at <= asked_at for at in self._burst_probes)
        ratio = self._plant.lost_ratio(self.equipment, rung, asked_at - self._window_s, asked_at)
        silent_s = 0.0 if first is None else asked_at - first + GAP_S
        return {"lost_in_row": lost, "loss_ratio": round(ratio, 4), "silent_s": round(silent_s, 3)}

    def _first_lost(self, rung: str, asked_at: float) -> float | None:
        """Return when the first probe of the present row of losses was sent, None while the newest was answered."""
        since = self._plant.dead_since(self.equipment, rung)
        first = None if since is None else self._slot(since)
        return first if first is not None and first <= asked_at else None

    def _stands(self) -> object:
        fault = self._plant.fault(self.equipment)
        return fault.hidden, fault.carrier, tuple(fault.lost(rung) >= 1.0 for rung in self._rungs), fault.loss_ratio

    def _observation(
        self,
        point: str,
        value: Value,
        asked_at: float,
        now: float,
        fault: str | None = None,
        since: float | None = None,
    ) -> Observation:
        quality = Quality.GOOD if fault is None else Quality.UNKNOWN
        return Observation(
            PointId(f"{self.equipment}.{point}"), value, quality, asked_at, now, self.channel, fault, since
        )

    def _now(self) -> float:
        return self._clock.now().boot_s

    @staticmethod
    def _slot(at: float) -> float:
        return math.ceil(round(at / GAP_S, 6)) * GAP_S if math.isfinite(at) else at


class PlantPath:
    """The probe of the way that the host's own traffic takes; it follows the route table."""

    def __init__(self, name: str, config: path.PathConfig, plant: Plant, clock: Clock) -> None:
        self.equipment = name
        self.channel = path.channel(name, config)
        self.specs: Mapping[str, PointSpec] = path.specs(config)
        self._period_s = config.period_s
        self._plant = plant
        self._clock = clock
        self._woken = asyncio.Event()
        self._fast_until = self._told_at = -math.inf

    async def run(self, publish: Publish) -> None:
        """Ask each period, and each GAP_S while somebody looks; publish each answer and each silence."""
        loop = asyncio.get_running_loop()
        ask_at = self._clock.now().boot_s
        while True:
            self._woken.clear()
            now = self._clock.now().boot_s
            if now >= ask_at - SLACK_S:
                reached, way = self._plant.reaches_hq(), self._plant.way()
                loop.call_later(ANSWERS_S if reached else SILENT_S, self._tell, publish, now, way if reached else None)
                ask_at = now + (GAP_S if now < self._fast_until else self._period_s)
            try:
                async with asyncio.timeout(max(0.0, ask_at - now)):
                    await self._woken.wait()
                ask_at = min(ask_at, self._clock.now().boot_s)
            except TimeoutError:
                pass

    def look(self) -> None:
        """Ask now, and again and again for a second."""
        self._fast_until = self._clock.now().boot_s + FAST_FOR_S
        self._woken.set()

    def _tell(self, publish: Publish, asked_at: float, way: str | None) -> None:
        if asked_at < self._told_at:
            return
        self._told_at = asked_at
        now = self._clock.now().boot_s
        seen, unseen = Quality.GOOD, Quality.UNKNOWN
        answered, by = (PointId(f"{self.equipment}.{point}") for point in ("answered", "line"))
        publish(
            [
                Observation(answered, way is not None, seen, asked_at, now, self.channel),
                Observation(by, way, seen, asked_at, now, self.channel)
                if way is not None
                else Observation(by, None, unseen, asked_at, now, self.channel, "timed_out"),
            ]
        )


class PlantUps:
    """The probe of the plant's UPS, asked by the poller."""

    def __init__(self, name: str, config: nut.NutConfig, plant: Plant) -> None:
        self.equipment = name
        self.channel = nut.channel(name, config)
        self.specs: Mapping[str, PointSpec] = nut.specs(config)
        names = ("mains_present", "on_battery", "battery_low", "battery_charge_ratio", "battery_runtime_s")
        self.lanes = (Lane("status", config.status_period_s, 3.0, names),)
        self._plant = plant

    async def poll(self, lane: str) -> Readings:
        """Return the readings. Raises ProbeFault where the plant says so."""
        if self._plant.ups_fault is not None:
            raise ProbeFault(self._plant.ups_fault)
        mains, low = self._plant.mains, self._plant.battery_low
        charge = 0.2 if low else 1.0
        return {
            "mains_present": mains,
            "on_battery": not mains,
            "battery_low": low,
            "battery_charge_ratio": charge,
            "battery_runtime_s": 9000.0 * charge,
        }

    async def close(self) -> None:
        """Nothing to let go of."""


def plant_probes(probe_configs: Mapping[str, tuple[str, Any]], plant: Plant, clock: Clock, every_s: float) -> list[Any]:
    """Return the plant's probes for a site's equipment; kinds that the plant does not have are left out."""
    bursts: list[Callable[[], None]] = []
    found: list[Any] = []
    for name, (kind, config) in probe_configs.items():
        if kind == "line":
            found.append(PlantLine(name, plant, clock, bursts, every_s))
        elif kind == "path":
            found.append(PlantPath(name, config, plant, clock))
        elif kind == "nut":
            found.append(PlantUps(name, config, plant))
    return found
