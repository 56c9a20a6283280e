"""What the poller counts, and when the first poll of a lane is due."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from agent.ports import Lane

FIRST_POLL_WITHIN_S: Final = 5.0  # slow lanes too are seen soon after start: nothing acts before everything was seen
LATENESS_KEPT: Final = 4096


@dataclass(frozen=True, slots=True)
class PollerStats:
    """
    Counts since start, by equipment, and how late polls left against their schedule (seconds, of the last 4096).

    `abandoned` counts polls that went on after their cancellation, `restarts` crashes of streams.
    """

    polls: Mapping[str, int]
    faults: Mapping[str, int]
    restarts: Mapping[str, int]
    abandoned: int
    lateness_p50_s: float
    lateness_p99_s: float
    lateness_max_s: float


class Tally:
    """Counts while polling."""

    def __init__(self) -> None:
        self.abandoned = 0
        self._polls: Counter[str] = Counter()
        self._faults: Counter[str] = Counter()
        self._restarts: Counter[str] = Counter()
        self._lateness: deque[float] = deque(maxlen=LATENESS_KEPT)

    def know(self, equipment: str) -> None:
        """Start *equipment* at zero: a metric exists before its first count."""
        for counter in (self._polls, self._faults, self._restarts):
            counter[equipment] += 0

    def forget(self, equipment: str) -> None:
        """Leave out *equipment*, which is not watched any more."""
        for counter in (self._polls, self._faults, self._restarts):
            del counter[equipment]

    def slot(self, late_s: float) -> None:
        """Count a scheduled poll that left *late_s* behind its time."""
        self._lateness.append(late_s)

    def poll(self, equipment: str) -> None:
        """Count one asking of *equipment*, or one piece of news of a stream."""
        self._polls[equipment] += 1

    def fault(self, equipment: str) -> None:
        """Count one asking that brought nothing."""
        self._faults[equipment] += 1

    def restart(self, equipment: str) -> None:
        """Count one crash of a stream."""
        self._restarts[equipment] += 1
        self._faults[equipment] += 1

    def stats(self) -> PollerStats:
        """Return the counts as they stand."""
        late = sorted(self._lateness) or [0.0]
        return PollerStats(
            polls=dict(self._polls),
            faults=dict(self._faults),
            restarts=dict(self._restarts),
            abandoned=self.abandoned,
            lateness_p50_s=late[len(late) // 2],
            lateness_p99_s=late[min(len(late) - 1, len(late) * 99 // 100)],
            lateness_max_s=late[-1],
        )


def phase_s(equipment: str, lane: Lane) -> float:
    """
    Return how long after start the first poll of *lane* is due: the same on every start, and spread over the lanes.

    Within the period and 5 s.
    """
    digest = hashlib.sha256(f"{equipment}/{lane.name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 * min(lane.period_s, FIRST_POLL_WITHIN_S)
