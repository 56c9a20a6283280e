"""Probe a line: every rung of it at the profile's rhythm, in a burst when something is lost, bound to the line."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from itertools import count
from typing import Final

from agent.clock import boot_s
from agent.core.model import Observation, PointSpec
from agent.core.profiles import PROFILES
from agent.errors import ProbeFault
from agent.ports import ProbeContext, ProbeKind, Publish
from probes.line_config import LineConfig, specs
from probes.line_port import LinePort
from probes.line_rungs import PUBLISH_S, Observer, Rung
from probes.line_service import SERVICE, ServiceWatch
from probes.wire.echo import Binding

FAR_LAST: Final = ("cpe", "edge", "second_site", "hq")  # the self-test asks the way to the last one that is configured
BURST_REST_S: Final = 0.2  # from one burst to the next: two lossy lines would else set each other off without end


class LineProbe:
    """Probes one line until it is cancelled. One step drains, then settles, then sends, then tells."""

    def __init__(self, equipment: str, config: LineConfig, context: ProbeContext) -> None:
        self.equipment = equipment
        self.channel = channel(equipment, config)
        self.specs: Mapping[str, PointSpec] = specs(config)
        self._profile = PROFILES[config.profile]
        self._bursts = context.bursts
        self._observer = Observer(equipment, self.channel)
        targets = config.parsed()
        self._rungs = [
            Rung(name, target, self._profile, self._observer) for name, target in targets.items() if name != SERVICE
        ]
        far_last = sorted(self._rungs, key=lambda rung: FAR_LAST.index(rung.name))
        self._woken = asyncio.Event()
        binding = Binding(config.interface, config.source)
        self._port = LinePort(binding, config.gateway, [rung.target for rung in far_last], self._woken.set)
        self._service = ServiceWatch(targets[SERVICE], self._port, self._observer) if SERVICE in targets else None
        self._sequence = count(1)
        self._fault: str | None = None  # the port's, as it was last told
        self._tick_at = self._tell_at = float("-inf")
        self._burst_due: deque[float] = deque()
        self._burst = (float("-inf"), float("-inf"))  # send times of the first and the last probe of the newest burst

    async def run(self, publish: Publish) -> None:
        """Probe until cancelled, publishing each second and at once on change."""
        self._port.open()
        self._bursts.append(self.start_burst)
        try:
            async with asyncio.TaskGroup() as tasks:
                if self._service is not None:
                    tasks.create_task(self._service.run(publish))
                await self._keep_on(publish)
        finally:
            self._bursts.remove(self.start_burst)
            self._port.close()

    def look(self) -> None:
        """Ask again now: burst, self-test, carrier and service."""
        self._port.test_soon()
        self._tell_at = float("-inf")
        if self._service is not None:
            self._service.look()
        self.start_burst()

    def start_burst(self) -> None:
        """Send the profile's burst on every rung, as soon as the last one has rested. One that is under way goes on."""
        if not self._burst_due:
            first_at = max(boot_s(), self._burst[0] + BURST_REST_S)
            self._burst_due.extend(first_at + i * self._profile.burst_gap_s for i in range(self._profile.burst_count))
            self._burst = (first_at, self._burst_due[-1])
        self._woken.set()

    async def _keep_on(self, publish: Publish) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._woken.clear()
            due = self._step(boot_s(), publish)
            handle = loop.call_later(max(due - boot_s(), 0.0), self._woken.set)
            try:
                await self._woken.wait()
            finally:
                handle.cancel()

    def _step(self, now: float, publish: Publish) -> float:
        """Do what is due at *now*; return when the next thing is."""
        is_telling = now >= self._tell_at
        # The kernel may hold a link event back for a second; the state itself it tells at once, so each tick asks for it.
        port_changed = (self._port.heard() or is_telling or now >= self._tick_at) and self._port.look(now)
        if now >= self._port.test_at:
            self._port.test(now)
        self._drain(now)
        if self._fault is not None and self._port.fault(now) is None:
            for rung in self._rungs:
                rung.window.forget()  # what was lost while the probes did not leave by this line says nothing of it
        if self._settle(now):
            self._port.test(now)  # before anybody believes in a loss: do the probes still leave by this line?
            for start in () if self._port.fault(now) else tuple(self._bursts):
                start()
        self._send_due()
        self._tell(now, is_telling, port_changed, publish)
        settling = [at for rung in self._rungs if (at := rung.window.settles_at) is not None]
        return min(self._tick_at, self._tell_at, self._port.test_at, *settling, *list(self._burst_due)[:1])

    def _drain(self, now: float) -> None:
        for reply in self._port.drain(now):
            for rung in self._rungs:  # a window knows its own sequence numbers
                if reply.fault is not None or rung.target != reply.target:
                    continue
                if reply.told is not None and not self._port.is_own(reply.told):
                    rung.window.drop(reply.sequence)
                else:
                    rung.window.answered(reply.sequence, reply.received_at)

    def _settle(self, now: float) -> bool:
        """Settle every rung; tell whether one of them has just lost its first probe."""
        were_good = [rung for rung in self._rungs if not rung.window.lost_in_row]
        for rung in self._rungs:
            rung.window.settle(now)
        return any(rung.window.lost_in_row for rung in were_good)

    def _send_due(self) -> None:
        now = boot_s()
        if self._burst_due and self._burst_due[0] <= now:
            late_s = now - self._burst_due.popleft()
            self._send(in_burst=True)
            # After a stall of ours the rest keeps its distance: three probes at once could meet the same full queue.
            self._burst_due = deque(at + late_s for at in self._burst_due)
            self._burst = (self._burst[0], self._burst[1] + late_s)
        if now >= self._tick_at:
            self._send(in_burst=False)
            # The schedule is absolute, so that it does not drift; after an absence of ours it starts anew.
            next_at = self._tick_at + self._profile.period_s
            self._tick_at = next_at if next_at > now else now + self._profile.period_s

    def _send(self, in_burst: bool) -> None:
        """Ask every rung once."""
        for rung in self._rungs:
            sequence = next(self._sequence)
            asked_at = boot_s()
            try:
                self._port.send(rung.target, sequence)
            except ProbeFault as fault:
                rung.fault = fault.fault
            else:
                rung.fault = None
                rung.window.sent(sequence, asked_at, boot_s(), in_burst)

    def _tell(self, now: float, is_telling: bool, port_changed: bool, publish: Publish) -> None:
        fault = self._port.fault(now)
        observations: list[Observation] = []
        if is_telling or port_changed or fault != self._fault:
            observations += self._observe_port(now, fault)
        for rung in self._rungs:
            if is_telling or rung.has_news(now, fault, self._burst):
                observations += rung.observe(now, fault)
        self._fault = fault
        if is_telling:
            self._tell_at = max(self._tell_at + PUBLISH_S, now + PUBLISH_S / 2)
        if observations:
            publish(observations)

    def _observe_port(self, now: float, fault: str | None) -> list[Observation]:
        tested_at = self._port.tested_at or now
        if fault in (None, "binding_failed"):
            seen = [self._observer.good("binding_ok", fault is None, tested_at, now)]
        else:
            seen = [self._observer.unseen("binding_ok", fault, tested_at, now)]
        if "carrier" in self.specs:
            carrier = self._port.carrier
            seen.append(
                self._observer.unseen("carrier", "binding_failed", now, now)
                if carrier is None
                else self._observer.good("carrier", carrier, now, now, self._port.carrier_since)
            )
        return seen


def channel(equipment: str, config: LineConfig) -> str:
    """Return the way by which the facts come: the line itself."""
    return f"line:{equipment}"


def make(equipment: str, config: LineConfig, context: ProbeContext) -> LineProbe:
    """Return the probe of one line; nothing is sent before it runs."""
    return LineProbe(equipment, config, context)


KIND: Final = ProbeKind("line", ("line",), LineConfig, make, specs, channel)
