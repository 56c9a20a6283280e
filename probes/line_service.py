"""The service row of a line: does the service at headquarters open a connection? It decides about no line."""

from __future__ import annotations

import asyncio
from typing import Final

from agent.clock import boot_s
from agent.core.model import Observation, PointSpec
from agent.errors import ProbeFault
from agent.ports import Publish
from probes.line_port import LinePort
from probes.line_rungs import Observer
from probes.wire.echo import Target
from probes.wire.tcp import ask_once

SERVICE: Final = "hq_service"
OPEN: Final = f"{SERVICE}.open"
PERIOD_S: Final = 15.0
FAILING_PERIOD_S: Final = 5.0
REST_S: Final = 1.0  # the least time between two connections, however often somebody looks
DEADLINE_S: Final = 3.0
OUR_OWN: Final = frozenset({"send_failed", "binding_failed", "failed"})  # faults that say nothing of the service


def service_specs() -> dict[str, PointSpec]:
    """Return the one point of the service row."""
    return {OPEN: PointSpec("bool", PERIOD_S, "the service at headquarters accepts a connection over this line")}


class ServiceWatch:
    """Connects to *target* by the line of *port*, each 15 s, each 5 s while it fails."""

    def __init__(self, target: Target, port: LinePort, observer: Observer) -> None:
        self._target = target
        self._port = port
        self._observer = observer
        self._asked = asyncio.Event()

    def look(self) -> None:
        """Connect as soon as the last connection has rested."""
        self._asked.set()

    async def run(self, publish: Publish) -> None:
        """Connect and tell, until cancelled."""
        while True:
            seen = await self._observe()
            publish([seen])
            await asyncio.sleep(REST_S)
            period_s = PERIOD_S if seen.value is True else FAILING_PERIOD_S
            try:
                async with asyncio.timeout(period_s - REST_S):
                    await self._asked.wait()
            except TimeoutError:
                pass  # nobody asked: it is simply time again
            self._asked.clear()

    async def _observe(self) -> Observation:
        asked_at = boot_s()
        try:
            reply = await ask_once(self._target, self._port.binding, DEADLINE_S)
            if reply.told is not None and not self._port.is_own(reply.told):
                raise ProbeFault("binding_failed", f"{self._target} saw {reply.told}")
        except ProbeFault as fault:
            if fault.fault in OUR_OWN:
                return self._observer.unseen(OPEN, fault.fault, asked_at, boot_s())
            return self._hidden_or(False, asked_at)
        return self._hidden_or(True, asked_at)

    def _hidden_or(self, is_open: bool, asked_at: float) -> Observation:
        now = boot_s()
        hidden = self._port.fault(now)
        if hidden is not None:
            return self._observer.unseen(OPEN, hidden, asked_at, now)
        return self._observer.good(OPEN, is_open, asked_at, now)
