"""Read the host that the agent runs on: processor, memory, swap, disks, load and time since boot. Source: psutil."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import psutil

from agent.clock import Clock
from agent.core.model import PointSpec, Value
from agent.errors import ProbeFault
from agent.ports import Lane, ProbeContext, ProbeKind, Suspect

DEADLINE_S: Final = 1.0
CPU_SPAN_S_MIN: Final = 0.5  # over less, the kernel's ticks of 10 ms make the ratio meaningless

POINTS: Final = {  # point -> (unit, text, deadband)
    "cpu_ratio": ("ratio", "part of the processors' time in use since the last look", 0.05),
    "memory_ratio": ("ratio", "part of the memory that is not available to programs", 0.02),
    "swap_ratio": ("ratio", "part of the swap space in use", 0.02),
    "disk_ratio": ("ratio", "part of the fullest disk in use", 0.01),
    "load_1m": ("", "tasks that run or wait, mean of the last minute", 0.2),
    "uptime_s": ("s", "time since boot, suspend included", 60.0),
}


@dataclass(frozen=True, slots=True)
class LocalConfig:
    """
    The site file's keys for the host itself. *disks* are paths on local file systems: a hung network share would stop
    the agent's loop.

    Raises:
        ValueError: no disk, a path that does not start at the root, or a period that is not above zero.
    """

    disks: tuple[str, ...] = ("/",)
    period_s: float = 5.0

    def __post_init__(self) -> None:
        if not self.disks:
            raise ValueError("disks: name at least one path, such as /")
        for path in self.disks:
            if not path.startswith("/") or "\0" in path:
                raise ValueError(f"disks: must be full paths, got {path!r}")
        if not 0 < self.period_s <= 3600:
            raise ValueError(f"period_s: must be above 0 and at most 3600, got {self.period_s}")


class LocalProbe:
    """The host that the agent runs on. Every call takes some ten microseconds, so they run on the loop."""

    def __init__(self, equipment: str, config: LocalConfig, clock: Clock) -> None:
        self.equipment = equipment
        self.channel = channel(equipment, config)
        self.specs: Mapping[str, PointSpec] = specs(config)
        self.lanes: tuple[Lane, ...] = (Lane("all", config.period_s, DEADLINE_S, tuple(self.specs)),)
        self._disks = config.disks
        self._clock = clock
        self._cpu_asked_at: float | None = None

    async def poll(self, lane: str) -> Mapping[str, Any]:
        """Return the readings; `swap_ratio` is left out where there is no swap. Raises ProbeFault: failed."""
        try:
            return self._read()
        except (OSError, psutil.Error) as error:
            raise ProbeFault("failed", str(error)) from error

    async def close(self) -> None:
        """Nothing is held."""

    def _read(self) -> dict[str, Value | Suspect]:
        now_s = self._clock.now().boot_s
        swap = psutil.swap_memory()
        readings: dict[str, Value | Suspect] = {
            "memory_ratio": psutil.virtual_memory().percent / 100,
            "disk_ratio": fullest(self._disks),
            "load_1m": psutil.getloadavg()[0],
            "uptime_s": now_s,
        }
        if swap.total:
            readings["swap_ratio"] = swap.percent / 100
        return readings | self._read_cpu(now_s)

    def _read_cpu(self, now_s: float) -> dict[str, Value | Suspect]:
        # The ratio is of the time since the last call: the first one has no start, and a burst no length.
        if self._cpu_asked_at is not None and now_s - self._cpu_asked_at < CPU_SPAN_S_MIN:
            return {}
        is_first = self._cpu_asked_at is None
        self._cpu_asked_at = now_s
        ratio = psutil.cpu_percent(None) / 100
        return {} if is_first else {"cpu_ratio": ratio}


def fullest(paths: tuple[str, ...]) -> Value | Suspect:
    """Return the ratio of the fullest disk; a Suspect with the reason when one of *paths* cannot be looked at."""
    ratios: list[float] = []
    unseen: list[str] = []
    for path in paths:
        try:
            ratios.append(psutil.disk_usage(path).percent / 100)
        except OSError as error:
            unseen.append(f"{path}: {error.strerror}")
    worst = max(ratios, default=None)
    return Suspect(worst, "; ".join(unseen)) if unseen else worst


def specs(config: LocalConfig) -> dict[str, PointSpec]:
    """Return what each point of the host is, by its name."""
    return {point: PointSpec(unit, config.period_s, text, deadband) for point, (unit, text, deadband) in POINTS.items()}


def channel(equipment: str, config: LocalConfig) -> str:
    """Return the way by which the facts come: the kernel, without any wire."""
    return "kernel"


def make(equipment: str, config: LocalConfig, context: ProbeContext) -> LocalProbe:
    """Return the probe of the host that the agent runs on."""
    return LocalProbe(equipment, config, context.clock)


KIND: Final = ProbeKind("local", ("host",), LocalConfig, make, specs, channel)
