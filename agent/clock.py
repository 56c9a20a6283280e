"""The only place that reads clocks. Everything else is handed an `At`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Protocol

from agent.core.model import At

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Clock(Protocol):
    """Gives the present moment."""

    def now(self) -> At:
        """Return the present moment: boot id, boot seconds (suspend included), UTC seconds."""
        ...


class SystemClock:
    """The machine's clocks."""

    def __init__(self) -> None:
        self.boot_id = BOOT_ID.read_text(encoding="ascii").strip()

    def now(self) -> At:
        """Return the present moment from CLOCK_BOOTTIME and the UTC clock."""
        return At(self.boot_id, time.clock_gettime(time.CLOCK_BOOTTIME), time.time())


def boot_s() -> float:
    """Return seconds since boot, suspend included: the scale of every `asked_at` and deadline."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def running_s() -> float:
    """Return monotonic seconds, suspend excluded; its distance from `boot_s` grows by the length of each suspend."""
    return time.monotonic()


def wall_ns() -> int:
    """Return UTC nanoseconds: the scale of the kernel's packet time stamps."""
    return time.time_ns()
