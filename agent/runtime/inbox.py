"""The loop's inbox: bounded for observations, which merge when it is full; nothing else is ever dropped."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from agent.core.model import Event, Observation, Observed, PointId

BATCHES_MAX: Final = 2048  # batches of observations that wait at most; about ten seconds of a busy site


class Inbox:
    """Events in the order in which they came."""

    def __init__(self, batches_max: int = BATCHES_MAX) -> None:
        self._max = batches_max
        self._events: deque[Event] = deque()
        self._batches = 0
        self._told: dict[PointId, Observation] = {}  # of each point the last that went in unmerged
        self._first: dict[PointId, Observation] = {}
        self._newest: dict[PointId, Observation] = {}
        self.merged = 0

    def __len__(self) -> int:
        return len(self._events) + len(self._first)

    def observe(self, observations: Sequence[Observation]) -> None:
        """Take observations; when too many wait, keep of each point the first that is a change, and the newest."""
        if self._batches < self._max and not self._first:
            self._events.append(Observed(tuple(observations)))
            self._batches += 1
            self._told.update((observation.point, observation) for observation in observations)
            return
        for observation in observations:
            self._merge(observation)

    def put(self, event: Event) -> None:
        """Take any other event; it goes before merged observations, since it is never late for its own cause."""
        self._events.append(event)

    def put_back(self, events: Sequence[Event]) -> None:
        """Take *events* again, before all others and in their order."""
        self._events.extendleft(reversed(events))

    def take(self) -> Event | None:
        """Return the next event, None when there is none."""
        if self._events:
            event = self._events.popleft()
            self._batches -= isinstance(event, Observed)
            return event
        if self._first:
            merged, self._first = self._first, self._newest
            self._newest = {}
            self._told.update(merged)
            return Observed(tuple(merged.values()))
        return None

    def _merge(self, observation: Observation) -> None:
        point = observation.point
        first = self._first.get(point)
        told = self._told.get(point)
        if first is None or (told is not None and not _differs(first, told) and _differs(observation, told)):
            self.merged += (first is not None) + (self._newest.pop(point, None) is not None)
            self._first[point] = observation
        else:
            self.merged += point in self._newest
            self._newest[point] = observation


def _differs(one: Observation, other: Observation) -> bool:
    return (one.value, one.quality) != (other.value, other.quality)
