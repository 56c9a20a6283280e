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
        self._first: dict[PointId, Observation] = {}
        self._newest: dict[PointId, Observation] = {}
        self.merged = 0

    def __len__(self) -> int:
        return len(self._events) + len(self._first)

    def observe(self, observations: Sequence[Observation]) -> None:
        """Take observations; when too many wait, keep of each point the first that waits and the newest."""
        if self._batches < self._max and not self._first:
            self._events.append(Observed(tuple(observations)))
            self._batches += 1
            return
        for observation in observations:
            if observation.point in self._first:
                self.merged += observation.point in self._newest
                self._newest[observation.point] = observation
            else:
                self._first[observation.point] = observation

    def put(self, event: Event) -> None:
        """Take any other event; it goes before merged observations, since it is never late for its own cause."""
        self._events.append(event)

    def take(self) -> Event | None:
        """Return the next event, None when there is none."""
        if self._events:
            event = self._events.popleft()
            self._batches -= isinstance(event, Observed)
            return event
        if self._first:
            merged, self._first = tuple(self._first.values()), self._newest
            self._newest = {}
            return Observed(merged)
        return None
