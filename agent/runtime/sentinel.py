"""Watches time itself: suspends, stops, starvation, and steps of the wall clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from agent.core.model import At, ClockStepped, TimeGap

GAP_S: Final = 2.0  # what we may be late, or boot time may run away from loop time, before our sight is stale
STEP_S: Final = 1.0  # what UTC may move against boot time before it counts as a step


@dataclass(slots=True)
class Sentinel:
    """Compares the clocks from pass to pass. *Not* told of: drift below the limits, which is folded in."""

    _boot_s: float | None = None
    _loop_s: float = 0.0
    _utc_offset_s: float = 0.0

    def look(self, now: At, loop_s: float, due_loop_s: float) -> tuple[TimeGap | ClockStepped, ...]:
        """
        Return what happened to time since the last pass.

        *loop_s* is the event loop's time, *due_loop_s* when this pass was due by it at the latest.
        """
        events: list[TimeGap | ClockStepped] = []
        offset_s = now.utc_s - now.boot_s
        if self._boot_s is not None:
            suspended_s = (now.boot_s - self._boot_s) - (loop_s - self._loop_s)
            late_s = loop_s - due_loop_s
            stepped_s = offset_s - self._utc_offset_s
            if suspended_s >= GAP_S:
                events.append(TimeGap(suspended_s, "the machine was suspended"))
            elif late_s >= GAP_S:
                events.append(TimeGap(late_s, "the agent was stopped or starved"))
            if abs(stepped_s) >= STEP_S:
                events.append(ClockStepped(stepped_s))
        self._boot_s, self._loop_s, self._utc_offset_s = now.boot_s, loop_s, offset_s
        return tuple(events)
