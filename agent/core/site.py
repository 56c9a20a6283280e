"""The site as the core knows it: equipment, points, alarms, causes, runbooks. Frozen; made by the config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.core.alarm import AlarmSpec
from agent.core.model import AlarmKey, PointId, PointSpec
from agent.core.runbook import Runbook


@dataclass(frozen=True, slots=True)
class LineFacts:
    """What judging and swapping need of a line: its role, the names of its rungs, and the limits of its profile."""

    role: str
    rungs: tuple[str, ...]  # configured ICMP or echo rungs, nearest first: cpe, edge, hq, second_site
    bad_loss_ratio: float
    has_port: bool
    has_service: bool
    provider: str | None = None

    def far(self) -> tuple[str, ...]:
        """Return the far rungs: all but the line's own box."""
        return tuple(rung for rung in self.rungs if rung != "cpe")


@dataclass(frozen=True, slots=True)
class Equipment:
    """One piece of equipment. `fed_by` and `through` name other equipment (power, network path)."""

    name: str
    kind: str
    fed_by: tuple[str, ...] = ()
    through: str | None = None
    line: LineFacts | None = None


@dataclass(frozen=True, slots=True)
class Predicted:
    """One point that a candidate predicts bad, as the alarms that judge it: bad if one is, good if all are."""

    equipment: str
    alarms: tuple[AlarmKey, ...]


@dataclass(frozen=True, slots=True)
class Candidate:
    """
    A possible cause as a row of data.

    `predicts`: points that this cause makes bad; one fresh good one among them refutes it. `carries`: alarms that may
    follow from it and neither support nor refute it. `depth`: nearness to the root (utility, agent): the smallest wins.
    `support`: on how many pieces of equipment it must be seen bad. `late`: asked only for what no other cause explains.
    """

    id: str
    kind: str
    equipment: tuple[str, ...]
    predicts: tuple[Predicted, ...]
    carries: frozenset[AlarmKey]
    depth: int
    text: str
    support: int = 1
    late: bool = False
    explained: frozenset[AlarmKey] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Join once what is asked for at every event of an outage."""
        explained = self.carries | frozenset(a for p in self.predicts for a in p.alarms)
        object.__setattr__(self, "explained", explained)

    def explains(self) -> frozenset[AlarmKey]:
        """Return every alarm that this cause would make understandable."""
        return self.explained


@dataclass(frozen=True, slots=True)
class Site:
    """Everything the core needs of the site file."""

    id: str
    name: str
    language: str
    digest: str
    equipment: Mapping[str, Equipment]
    points: Mapping[PointId, PointSpec]
    alarms: Mapping[AlarmKey, AlarmSpec]
    candidates: tuple[Candidate, ...]
    runbooks: Mapping[str, Runbook]
    boot_guard_s: float = 30.0
    evidence_max_age_s: float = 5.0
    alarms_of: Mapping[PointId, tuple[AlarmKey, ...]] = field(default_factory=dict)


def make_site(
    *,
    id: str,
    name: str,
    language: str,
    digest: str,
    equipment: Mapping[str, Equipment],
    points: Mapping[PointId, PointSpec],
    alarms: tuple[AlarmSpec, ...],
    candidates: tuple[Candidate, ...],
    runbooks: tuple[Runbook, ...],
    boot_guard_s: float = 30.0,
) -> Site:
    """Return the Site with its index from points to the alarms that look at them."""
    index: dict[PointId, list[AlarmKey]] = {}
    for spec in alarms:
        for point in spec.points():
            index.setdefault(point, []).append(spec.key)
    return Site(
        id=id,
        name=name,
        language=language,
        digest=digest,
        equipment=dict(equipment),
        points=dict(points),
        alarms={spec.key: spec for spec in alarms},
        candidates=candidates,
        runbooks={book.name: book for book in runbooks},
        boot_guard_s=boot_guard_s,
        alarms_of={point: tuple(keys) for point, keys in index.items()},
    )
