"""Probe the way that the host itself routes to headquarters: is there an answer, and by which line does it come?"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from typing import Final

from agent.clock import boot_s
from agent.core.model import Observation, PointSpec
from agent.errors import ProbeFault
from agent.ports import ProbeContext, ProbeKind, Publish, Suspect
from probes.line_rungs import Observer
from probes.line_service import OUR_OWN
from probes.path_line import line_of
from probes.path_opener import DEADLINE_S, Opener, OpenerEcho
from probes.wire.echo import Binding, Reply, parse_target
from probes.wire.icmp import EchoSocket
from probes.wire.tcp import TcpEcho

FAST_FOR_S: Final = 1.0  # so long after somebody looked, the path is asked again and again
FAST_PERIOD_S: Final = 0.1
REST_S: Final = 0.05  # the least time between two echoes, however often somebody looks


@dataclass(frozen=True, slots=True)
class PathConfig:
    """
    The site file's keys for the path. *lines* are the lines that it may take, all of the site unless named.

    Raises:
        ValueError: the message begins with the name of the key.
    """

    target: str
    period_s: float = 1.0
    lines: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        try:
            parse_target(self.target)
        except ValueError as error:
            raise ValueError(f"target: {error}") from error
        if not FAST_PERIOD_S <= self.period_s <= 60:
            raise ValueError(f"period_s: must be within {FAST_PERIOD_S} and 60, got {self.period_s}")


class PathProbe:
    """Asks unbound, as the host routes it. No answer is a fact (`answered` False); a send that fails is unknown."""

    def __init__(self, equipment: str, config: PathConfig, context: ProbeContext) -> None:
        self.equipment = equipment
        self.channel = channel(equipment, config)
        self.specs: Mapping[str, PointSpec] = specs(config)
        self._config = config
        self._opener: Opener | None = context.opener
        self._lines = {name: line for name, line in context.lines.items() if name in config.lines or not config.lines}
        self._target = parse_target(config.target)
        self._observer = Observer(equipment, self.channel)
        self._woken = asyncio.Event()
        self._echo: EchoSocket | TcpEcho | OpenerEcho | None = None
        self._sequence = count(1)
        self._asked: dict[int, float] = {}
        self._ask_at = self._asked_at = self._fast_until = self._told_at = float("-inf")
        self._silent_since: float | None = None

    async def run(self, publish: Publish) -> None:
        """Ask until cancelled; publish each answer as it comes, and each silence after its deadline."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                self._woken.clear()
                publish_now, due = self._step(boot_s())
                if publish_now:
                    publish(publish_now)
                handle = loop.call_later(max(due - boot_s(), 0.0), self._woken.set)
                try:
                    await self._woken.wait()
                finally:
                    handle.cancel()
        finally:
            self._close()

    def look(self) -> None:
        """Ask now, and again each 100 ms for a second."""
        now = boot_s()
        self._fast_until = now + FAST_FOR_S
        self._ask_at = min(self._ask_at, max(now, self._asked_at + REST_S))
        self._woken.set()

    def _step(self, now: float) -> tuple[list[Observation], float]:
        """Drain, judge what is over, ask when due; return the news and when the next thing is due."""
        seen: list[Observation] = []
        try:
            for reply in self._echo.drain() if self._echo is not None else ():
                seen += self._judge(reply)
            for sequence in [sequence for sequence, at in self._asked.items() if now - at >= DEADLINE_S]:
                seen += self._judge(Reply(self._target, sequence, now, fault="timed_out"))
            if now >= self._ask_at:
                self._ask()
        except ProbeFault as fault:
            self._close()
            seen += self._unseen(fault.fault, boot_s())
        return seen, min(self._ask_at, *(at + DEADLINE_S for at in self._asked.values()), now + DEADLINE_S)

    def _ask(self) -> None:
        """Send one echo. Raises ProbeFault."""
        asked_at = self._asked_at = boot_s()
        if asked_at < self._fast_until:
            self._ask_at = asked_at + FAST_PERIOD_S
        else:  # the schedule is absolute, so that it does not drift; after an absence of ours it starts anew
            next_at = self._ask_at + self._config.period_s
            self._ask_at = next_at if next_at > asked_at else asked_at + self._config.period_s
        sequence = next(self._sequence)
        echo = self._echo = self._echo or self._open()
        echo.send(self._target, sequence)
        self._asked[sequence] = asked_at

    def _open(self) -> EchoSocket | TcpEcho | OpenerEcho:
        if self._opener is not None:
            return OpenerEcho(self._opener, self._config.target, self._woken.set)
        echo = EchoSocket(Binding()) if self._target.port is None else TcpEcho(Binding(), DEADLINE_S)
        asyncio.get_running_loop().add_reader(echo.fileno(), self._woken.set)
        return echo

    def _close(self) -> None:
        if isinstance(self._echo, EchoSocket | TcpEcho):
            asyncio.get_running_loop().remove_reader(self._echo.fileno())
        if self._echo is not None:
            self._echo.close()
        self._echo = None
        self._asked.clear()

    def _judge(self, reply: Reply) -> list[Observation]:
        """Return what *reply* says, nothing when a later echo has already said more."""
        asked_at = self._asked.pop(reply.sequence, None)
        if asked_at is None or asked_at < self._told_at:
            return []
        self._told_at = asked_at
        now = boot_s()
        if reply.fault in OUR_OWN or reply.fault == "bad_reply":
            return self._unseen(reply.fault or "failed", asked_at)
        if reply.fault is not None:
            self._silent_since = asked_at if self._silent_since is None else self._silent_since
            silent = self._observer.good("answered", False, asked_at, now, self._silent_since)
            return [silent, self._observer.unseen("line", reply.fault, asked_at, now)]
        self._silent_since = None
        return [self._observer.good("answered", True, asked_at, now), self._observe_line(reply, asked_at)]

    def _unseen(self, fault: str, asked_at: float) -> list[Observation]:
        return [self._observer.unseen(point, fault, asked_at, boot_s()) for point in self.specs]

    def _observe_line(self, reply: Reply, asked_at: float) -> Observation:
        now = boot_s()
        line = line_of(reply, self._lines)
        if isinstance(line, Suspect):
            return self._observer.suspect("line", line.reason, asked_at, now)
        if line is None:
            return self._observer.unseen("line", "failed", asked_at, now)
        return self._observer.good("line", line, asked_at, now)


def specs(config: PathConfig) -> dict[str, PointSpec]:
    """Return what each point of the path is, by its name."""
    return {
        "answered": PointSpec("bool", config.period_s, f"{config.target} answers the way the host routes it"),
        "line": PointSpec("state", config.period_s, "the line by which it answers"),
    }


def channel(equipment: str, config: PathConfig) -> str:
    """Return the way by which the facts come: the host's own routing, whichever line that is."""
    return "path"


def make(equipment: str, config: PathConfig, context: ProbeContext) -> PathProbe:
    """Return the probe of the path; nothing is sent before it runs."""
    return PathProbe(equipment, config, context)


KIND: Final = ProbeKind("path", ("path",), PathConfig, make, specs, channel)
