"""One rung of a line: its target, its window, and the observations that they make."""

from __future__ import annotations

from typing import Final

from agent.core.model import Observation, PointId, PointSpec, Quality, Value
from agent.core.profiles import Profile
from probes.line_window import LineWindow
from probes.wire.echo import Target

PUBLISH_S: Final = 1.0

POINTS: Final = {  # point of a rung -> (unit, text, deadband)
    "loss_ratio": ("ratio", "part of the probes to {} lost in the window", 0.01),
    "lost_in_row": ("", "probes to {} lost in a row", 0.0),
    "silent_s": ("s", "how long {} has not answered, 0 while it answers", 1.0),
    "rtt_s": ("s", "smoothed round-trip time to {}", 0.005),
    "jitter_s": ("s", "smoothed variation of the round-trip time to {}", 0.005),
}


def rung_specs(rung: str, profile: Profile) -> dict[str, PointSpec]:
    """Return what each point of *rung* is, by its name within the line."""
    # A probe is settled at most 1 s after it was sent, and told within another: on a calm line it is 3 s old by then.
    period_s = max(PUBLISH_S, 2 * profile.period_s)
    return {
        f"{rung}.{point}": PointSpec(unit, period_s, text.format(rung), deadband)
        for point, (unit, text, deadband) in POINTS.items()
    }


class Observer:
    """Makes the observations of one piece of equipment, which all come by one channel."""

    def __init__(self, equipment: str, channel: str) -> None:
        self.equipment = equipment
        self.channel = channel

    def good(self, point: str, value: Value, asked_at: float, now: float, since: float | None = None) -> Observation:
        """Return what was seen of *point*."""
        return Observation(
            PointId(f"{self.equipment}.{point}"), value, Quality.GOOD, asked_at, now, self.channel, None, since
        )

    def unseen(self, point: str, fault: str, asked_at: float, now: float) -> Observation:
        """Return that *point* could not be looked at."""
        return Observation(
            PointId(f"{self.equipment}.{point}"), None, Quality.UNKNOWN, asked_at, now, self.channel, fault
        )

    def suspect(self, point: str, reason: str, asked_at: float, now: float) -> Observation:
        """Return that what was seen of *point* contradicts itself."""
        return Observation(
            PointId(f"{self.equipment}.{point}"), None, Quality.SUSPECT, asked_at, now, self.channel, reason
        )


class Rung:
    """One rung. `fault` is set while our own sends to it fail."""

    def __init__(self, name: str, target: Target, profile: Profile, observer: Observer) -> None:
        self.name = name
        self.target = target
        self.window = LineWindow(profile.window_s)
        self.fault: str | None = None
        self._profile = profile
        self._observer = observer
        self._told_standing: object = None
        self._told_settled_at = float("-inf")
        self._told_answered_at = float("-inf")

    def has_news(self, now: float, line_fault: str | None, burst: tuple[float, float]) -> bool:
        """
        Tell whether something worth publishing at once has happened: where it stands towards its limits has changed, or
        a probe of the present *burst* (its first and last send time) has been settled.
        """
        if self._standing(now, line_fault) != self._told_standing:
            return True
        first_at, last_at = burst
        settled_at = self.window.newest_settled_at
        return (
            settled_at is not None
            and self._told_settled_at < settled_at >= first_at
            and self._told_settled_at < last_at
        )

    def observe(self, now: float, line_fault: str | None) -> list[Observation]:
        """
        Return the rung as it stands: every point unknown under a fault, else what the window says.

        Silence is of good quality, since our own send succeeded. Round-trip time is left out when no new answer came.
        """
        self._told_standing = self._standing(now, line_fault)
        self._told_settled_at = self.window.newest_settled_at or float("-inf")
        fault = line_fault or self.fault
        if fault is not None:
            return [self._observer.unseen(f"{self.name}.{point}", fault, now, now) for point in POINTS]
        if self.window.newest_settled_at is None:
            return []
        values: dict[str, Value] = {"lost_in_row": self.window.lost_in_row, "silent_s": self.window.silent_s(now)}
        ratio = self.window.loss_ratio
        if ratio is not None:
            values["loss_ratio"] = ratio
        settled_at, since = self.window.newest_settled_at, self.window.first_lost_at
        seen = [self._observer.good(f"{self.name}.{point}", values[point], settled_at, now, since) for point in values]
        return seen + self._observe_time(now)

    def _observe_time(self, now: float) -> list[Observation]:
        answered_at = self.window.newest_answered_at
        if answered_at is None or answered_at <= self._told_answered_at:
            return []
        self._told_answered_at = answered_at
        times = {"rtt_s": self.window.rtt_s, "jitter_s": self.window.jitter_s}
        return [self._observer.good(f"{self.name}.{point}", times[point], answered_at, now) for point in times]

    def _standing(self, now: float, line_fault: str | None) -> object:
        """Return where the rung stands towards its limits; when this changes it is told at once."""
        window, profile = self.window, self._profile
        dead = profile.dead_lost_in_row or profile.burst_count + 1
        ratio = window.loss_ratio
        return (
            line_fault or self.fault,
            window.newest_settled_at is not None,
            0 if not window.lost_in_row else 1 if window.lost_in_row < dead else 2,
            window.silent_s(now) >= profile.dead_silent_s,
            None if ratio is None else (ratio >= profile.bad_loss_ratio, ratio < profile.good_below_ratio),
        )
