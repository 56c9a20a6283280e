"""A pass of the core: the state as it becomes, record by record, and the questions every part of the pass asks of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from agent.core.apply import apply
from agent.core.judge import Points
from agent.core.model import At, Fact, PointId
from agent.core.records import Body, Record
from agent.core.site import Site
from agent.core.state import Durable, State, Volatile


@dataclass(slots=True)
class Work:
    """One pass: what it is about, and the records that it has decided so far, applied as they come."""

    site: Site
    state: State
    now: At
    records: list[Record] = field(default_factory=list)

    @property
    def durable(self) -> Durable:
        """Return the durable state as it stands in this pass."""
        return self.state.durable

    @property
    def volatile(self) -> Volatile:
        """Return the volatile state."""
        return self.state.volatile

    @property
    def now_s(self) -> float:
        """Return the present moment in boot seconds."""
        return self.now.boot_s

    @property
    def points(self) -> Points:
        """Return the sight of the core."""
        return self.state.points(self.site)

    def emit(self, body: Body) -> None:
        """Decide *body*: it becomes a record and is applied."""
        record = Record(self.now, body)
        self.records.append(record)
        self.state = replace(self.state, durable=apply(self.state.durable, record))

    def facts(self, points: tuple[PointId, ...] | list[PointId]) -> tuple[Fact, ...]:
        """Return what is known of *points* now, for a record."""
        sight = self.points
        return tuple(sight.fact(point, self.now_s) for point in dict.fromkeys(points))
