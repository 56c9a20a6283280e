"""The simulated branch: a UPS, two lines, headquarters and a route table, and everything that can be broken in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from types import TracebackType
from typing import Final

from agent.app import Surroundings
from agent.clock import Clock
from agent.errors import ProbeFault
from agent.ports import Route
from drills.simsite.far_end import LINES, RUNGS, FarEnds
from drills.simsite.nut_server import SimNutServer
from drills.simsite.routes import MemoryRouteTable
from probes.wire.echo import Binding, parse_target
from probes.wire.tcp import ask_once

UPS: Final = "ups-a"
GOOD_FOR_S: Final = 10.0
METRICS: Final = {"wan1": 100, "wan2": 200}  # of the branch's own default routes
LOSSY_RATIO: Final = 0.5
NAMES: Final = {"en": "Demo branch", "zh": "演示支行"}
ON_MAINS: Final = {
    "battery.charge": "100",
    "battery.runtime": "3600",
    "input.frequency": "50.0",
    "input.voltage": "229.6",
    "ups.load": "31",
}
ON_BATTERY: Final = {"battery.charge": "94", "battery.runtime": "2700", "input.frequency": "0", "input.voltage": "0"}
NEARLY_EMPTY: Final = {"battery.charge": "14", "battery.runtime": "240"}


class SimBranch:
    """
    Runs the stand-ins of one branch from `start` to `stop`, or for as long as it is entered.

    A fault stays until its opposite is called. `standing` holds the names in FAULTS that were begun and not ended.
    """

    def __init__(self, seed: int = 1) -> None:
        self.ups = SimNutServer()
        self.far_ends = FarEnds(LINES, seed)
        self.routes = MemoryRouteTable(
            (Route("default", line.cpe, name, METRICS[name], ours=False) for name, line in LINES.items()),
            {name: (line.source,) for name, line in LINES.items()},
        )
        self.standing: set[str] = set()
        self._mains = True
        self._battery_low = False
        self._power()

    async def start(self) -> None:
        """Listen; harmless when it does so already. Raises OSError."""
        await self.ups.start()
        await self.far_ends.start()

    async def stop(self) -> None:
        """End everything; harmless when it has ended."""
        await self.far_ends.stop()
        await self.ups.stop()

    async def __aenter__(self) -> SimBranch:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.stop()

    # ------------------------------------------------------------ what the agent gets

    def surroundings(self, clock: Clock) -> Surroundings:
        """Return what stands between the agent and the machine: this branch's route table, and its way out."""
        return Surroundings(clock, self.routes, self.opener)

    async def opener(self, target: str, deadline_s: float) -> str:
        """
        Ask *target* the way that the route table says, and return the source address that it saw.

        Raises:
            ProbeFault: unreachable (no route by any line), or as TCP ends: timed_out, refused, closed.
        """
        line = self.line_in_use()
        if line is None:
            raise ProbeFault("unreachable", "the route table has no default route by a line")
        reply = await ask_once(parse_target(target), Binding(source=LINES[line].source), deadline_s)
        if reply.told is None:
            raise ProbeFault("bad_reply", f"{target} did not tell which source it saw")
        return reply.told

    def line_in_use(self) -> str | None:
        """Return the line by which the best default route goes, None without one."""
        best = next(iter(self.routes.seen()), None)
        return next((name for name, line in LINES.items() if best is not None and best.gateway == line.cpe), None)

    def site_file(self, directory: Path, language: str = "en", good_for_s: float = GOOD_FOR_S) -> Path:
        """
        Write the site file of this branch to *directory*, where its agent's state and socket will be too; return it.

        *good_for_s*: how long wan1 must be good before traffic returns to it.

        Raises KeyError before the first start, ValueError for a language without a name here, OSError.
        """
        if language not in NAMES:
            raise ValueError(f"language: must be one of {', '.join(NAMES)}, got {language!r}")
        targets = {f"{line}_{rung}": self.far_ends.target(line, rung) for line in LINES for rung in RUNGS}
        words = {
            "name": NAMES[language],
            "language": language,
            "good_for": f"{good_for_s:g}s",
            "ups_port": self.ups.address[1],
            "path": json.dumps(self.far_ends.target("wan1", "hq")),
            "socket": json.dumps(str(directory / "control.sock")),
            "state_dir": json.dumps(str(directory / "state")),
            **{name: json.dumps(target) for name, target in targets.items()},  # a JSON text is a YAML text too
        }
        template = files("drills.simsite").joinpath("branch.yaml").read_text(encoding="utf-8")
        path = directory / "site.yaml"
        path.write_text(Template(template).substitute(words), encoding="utf-8")
        return path

    # ------------------------------------------------------------ faults

    def begin(self, fault: str) -> None:
        """Begin a fault of FAULTS, in place of one that befell the same thing. Raises KeyError."""
        wanted = FAULTS[fault]
        self.standing = {other for other in self.standing if FAULTS[other].befalls != wanted.befalls} | {fault}
        wanted.begin(self)

    def end(self, fault: str) -> None:
        """End a fault of FAULTS; harmless when it does not stand. Raises KeyError."""
        wanted = FAULTS[fault]
        if fault in self.standing:
            self.standing.discard(fault)
            wanted.end(self)

    def break_line(self, line: str, rung: str = "edge") -> None:
        """Let *line* fall silent from *rung* on: nothing is refused, nothing comes back."""
        self.far_ends.break_line(line, rung)

    def lose(self, line: str, loss_ratio: float) -> None:
        """Let *line* lose this part of what it carries."""
        self.far_ends.lose(line, loss_ratio)

    def mend_line(self, line: str) -> None:
        """Let *line* carry everything again."""
        self.far_ends.mend_line(line)

    def break_hq(self) -> None:
        """Let headquarters fall silent on every line."""
        self.far_ends.hq_dead = True

    def mend_hq(self) -> None:
        """Let headquarters answer again."""
        self.far_ends.hq_dead = False

    def cut_mains(self) -> None:
        """Take the mains away from the UPS."""
        self._power(mains=False)

    def restore_mains(self) -> None:
        """Give the UPS its mains again."""
        self._power(mains=True)

    def drain_battery(self) -> None:
        """Let the battery be nearly empty."""
        self._power(battery_low=True)

    def charge_battery(self) -> None:
        """Let the battery be full again."""
        self._power(battery_low=False)

    def _power(self, *, mains: bool | None = None, battery_low: bool | None = None) -> None:
        self._mains = self._mains if mains is None else mains
        self._battery_low = self._battery_low if battery_low is None else battery_low
        words = ("OL" if self._mains else "OB DISCHRG") + (" LB" if self._battery_low else "")
        values = ON_MAINS if self._mains else ON_MAINS | ON_BATTERY
        self.ups.ups[UPS] = {"ups.status": words, **values, **(NEARLY_EMPTY if self._battery_low else {})}


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that can be broken and mended. Of two faults that befall the same thing the later one stands."""

    befalls: str
    begin: Callable[[SimBranch], None]
    end: Callable[[SimBranch], None]


def _line_faults(line: str) -> dict[str, Fault]:
    """Return what can happen to *line*."""

    def mend(branch: SimBranch) -> None:
        branch.mend_line(line)

    return {
        f"{line}_dead": Fault(line, lambda branch: branch.break_line(line), mend),
        f"{line}_box_dead": Fault(line, lambda branch: branch.break_line(line, "cpe"), mend),
        f"{line}_core_dead": Fault(line, lambda branch: branch.break_line(line, "hq"), mend),
        f"{line}_lossy": Fault(line, lambda branch: branch.lose(line, LOSSY_RATIO), mend),
    }


FAULTS: Final[Mapping[str, Fault]] = {
    **_line_faults("wan1"),
    **_line_faults("wan2"),
    "hq_dead": Fault("hq", SimBranch.break_hq, SimBranch.mend_hq),
    "mains_absent": Fault("mains", SimBranch.cut_mains, SimBranch.restore_mains),
    "battery_low": Fault("battery", SimBranch.drain_battery, SimBranch.charge_battery),
}
